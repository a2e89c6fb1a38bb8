"""The command ``sklearn-featx stages``: the stages of a backbone and their costs."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from ..backbones import backbone_stages


def _stages(arguments: argparse.Namespace) -> None:
    header = (
        "stage", "parameters", "output shape", "% FLOPs before", "KiB per image", "depth",
        "parameters trained",
    )  # fmt: skip
    rows = [
        (
            stage.name,
            f"{stage.n_parameters:,}",
            " x ".join(map(str, stage.output_shape)),
            f"{100 * stage.flops_before:.1f}",
            f"{stage.activation_kib:,.1f}",
            str(stage.unfreeze_depth),
            f"{stage.n_trained:,}",
        )
        for stage in backbone_stages(arguments.name, granularity=arguments.granularity)
    ]
    print("\n".join(aligned([header, *rows])))


def aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Return lines of aligned columns: the first is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells])


def add_stages(commands: Any) -> None:
    stages = commands.add_parser("stages", help="list the stages of a backbone and their costs")
    stages.add_argument("name", metavar="NAME", help="a name from `sklearn-featx backbones`")
    stages.add_argument(
        "--granularity", choices=("stage", "block"), default="stage", help="default: %(default)s"
    )
    stages.set_defaults(run=_stages)
