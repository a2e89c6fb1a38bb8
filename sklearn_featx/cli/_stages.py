"""The command ``sklearn-featx stages``: the stages of a backbone and their costs."""

import argparse
import re
from typing import Any

from ._lines import print_text


def _stages(arguments: argparse.Namespace) -> None:
    # Here: help does not wait for PyTorch.
    from ..backbones import backbone_stages

    print_text(str(backbone_stages(arguments.name, granularity=arguments.granularity)))


def _in_words(text: str) -> str:
    """Return a message in the words of the command."""
    return re.sub("^backbone(?=: )|^backbone=", _argument, text)


def _argument(found: re.Match[str]) -> str:
    return "NAME" + found[0].removeprefix("backbone").replace("=", " ")


def add_stages(commands: Any) -> None:
    stages = commands.add_parser("stages", help="list the stages of a backbone and their costs")
    stages.add_argument(
        "name", metavar="NAME", help="a name from `sklearn-featx backbones`, or timm/NAME"
    )
    stages.add_argument(
        "--granularity", choices=("stage", "block"), default="stage", help="default: %(default)s"
    )
    stages.set_defaults(run=_stages, wording=_in_words)
