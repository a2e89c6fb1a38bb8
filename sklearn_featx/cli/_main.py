"""The command line: ``sklearn-featx extract | backbones | stages | store | look``.

Results go to standard output and everything else to standard error. Errors and warnings are lines.
PyTorch and Pillow are imported by the commands that need them, when they need them.
"""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from .. import __version__
from ..exceptions import FeatxError, FeatxWarning
from ._backbones import add_backbones
from ._exit_codes import BROKEN_PIPE, INTERRUPTED, USAGE_ERROR
from ._extract import add_extract
from ._lines import write_line
from ._look import add_look
from ._stages import add_stages
from ._store import add_store
from ._window_words import with_joined_window

_SILENT = logging.NullHandler()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments. None: those of the process.

    Returns
    -------
    code : int
        0; 1 if no image has a group, 2 after an error, 3 if some images are unreadable, 130 after
        an interrupt, 141 after a closed output pipe.
    """
    arguments = _parser().parse_args(with_joined_window(sys.argv[1:] if argv is None else argv))
    # A command that has the parameters of a message as options names these.
    say: Callable[[str], str] = getattr(arguments, "wording", str)
    # Libraries log the tracebacks of errors that are lines here. Without any handler, Python would
    # print them.
    logging.getLogger().addHandler(_SILENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", FeatxWarning)
            warnings.showwarning = _WarningLines(say).show
            code: int | None = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, `head` for example, closed the pipe. Python flushes the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (FeatxError, OSError, ValueError) as error:
        write_line(f"error: {say(str(error))}")
        return USAGE_ERROR
    except KeyboardInterrupt:
        write_line("interrupted")
        return INTERRUPTED
    return code or 0


class _WarningLines:
    """Warnings as lines, each text once, without the line of code that raised it."""

    def __init__(self, say: Callable[[str], str]) -> None:
        self._say = say
        self._shown: set[str] = set()

    def show(self, message: Warning | str, *_: Any, **__: Any) -> None:
        """Print a warning."""
        text = self._say(str(message))
        if text not in self._shown:
            self._shown.add(text)
            write_line(f"warning: {text}")


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
    add_look(commands)
    return parser
