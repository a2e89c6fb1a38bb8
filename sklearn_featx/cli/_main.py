"""The command line: ``sklearn-featx extract | backbones | stages | store``.

It promises that an output file is either whole or not there, that results go to standard output and
everything else to standard error, and that an error of the package is one line and exit code 2.
Thin: what it can do, the public estimators and functions do.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..exceptions import FeatxError
from ._backbones import add_backbones
from ._extract import add_extract
from ._stages import add_stages
from ._store import add_store

_USAGE_ERROR = 2
# 128 + SIGINT, what shells expect of a program that was interrupted.
_INTERRUPTED = 130
# 128 + SIGPIPE.
_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; None: those of the process.

    Returns
    -------
    code : int
        0, 2 after an error, 130 after an interrupt, 141 if who reads the output has gone.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads, `head` for one, has seen enough. Python writes out the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except (FeatxError, OSError, ValueError) as error:
        print(f"sklearn-featx: error: {' '.join(str(error).split())}", file=sys.stderr)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        print("sklearn-featx: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sklearn-featx", description="Features of images from pretrained networks."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_extract(commands)
    add_store(commands)
    add_backbones(commands)
    add_stages(commands)
    return parser
