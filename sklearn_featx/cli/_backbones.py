"""The command ``sklearn-featx backbones``: the names of backbones."""

import argparse
import fnmatch
from typing import Any

from .._messages import shown
from ..exceptions import InputError
from ._lines import print_text


def _backbones(arguments: argparse.Namespace) -> None:
    # Here: help does not wait for PyTorch.
    from ..backbones import backbone_names

    pattern = arguments.pattern.lower()
    if not set("*?[") & set(pattern):
        pattern = f"*{pattern}*"
    names = [name for name in backbone_names() if fnmatch.fnmatchcase(name, pattern)]
    if not names:
        raise InputError(
            f"PATTERN: no backbone matches {shown(arguments.pattern)}. "
            "Without a pattern, `sklearn-featx backbones` lists all but timm's, whose names are "
            "timm/NAME."
        )
    print_text("\n".join(names))


def add_backbones(commands: Any) -> None:
    backbones = commands.add_parser("backbones", help="list the names of backbones")
    backbones.add_argument(
        "pattern", nargs="?", default="", metavar="PATTERN", help="part of a name, or a glob"
    )
    backbones.set_defaults(run=_backbones)
