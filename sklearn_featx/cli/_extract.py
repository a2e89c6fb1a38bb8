"""The command ``sklearn-featx extract``: write the features of images to a file.

An unreadable image is a row of NaN with its reason, and the command ends with an exit code of its
own.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, get_args

import numpy as np

from .._messages import shown
from .._typing import AnyArray, EngineChoice, Pooling, Precision
from ..exceptions import ImageError, ImageWarning
from ._check import unreadable
from ._empty import some_path, some_text
from ._exit_codes import NO_GROUP, SOME_UNREADABLE
from ._groups import group_column
from ._lines import in_utf_8, print_text, write_line
from ._option_words import in_options
from ._output import Table, choose_writer, write_whole
from ._sources import Source, open_source


class _Unreadable(Protocol):
    """The record of an unreadable image."""

    @property
    def row(self) -> int | None:
        """Its row."""

    @property
    def path(self) -> str | None:
        """Its file or address."""

    @property
    def reason(self) -> str:
        """The reason."""


def _extract(arguments: argparse.Namespace) -> int:
    writer = None if arguments.check else choose_writer(arguments.output)
    source = open_source(arguments)
    if source.skipped and not arguments.quiet:
        write_line(f"skipped: {source.skipped}")
    # Images without a group are named.
    groups = group_column(source, arguments.group_by, arguments.storage_options)
    if groups is not None and not any(groups):
        by = shown(arguments.group_by)
        write_line(f"error: --group-by {by} gives no image a group; nothing was computed")
        return NO_GROUP
    if writer is None:
        failures: Sequence[_Unreadable] = unreadable(
            source.entries,
            n_threads=arguments.n_jobs,
            show_progress=not arguments.quiet,
            **_reading(arguments),
        )
        summary = " is readable" if len(source.entries) == 1 else " are readable"
    else:
        table, failures = _computed(source, arguments, groups)
        write_whole(arguments.output, lambda file: writer(file, table))
        n_classes = len(set(source.classes) - {""})
        noun = "class" if n_classes == 1 else "classes"
        classes = f" in {n_classes} {noun}" if n_classes else ""
        summary = f"{classes}, {table.features.shape[1]} features each: {arguments.output}"
    for failure in failures:
        name = source.printed_name(_row(failure), failure.path)
        write_line(f"{shown(name)}: {source.reason(_row(failure), failure.reason)}")
    if not arguments.quiet:
        print_text(f"{_counted(len(source.entries), len(failures))}{summary}")
    return SOME_UNREADABLE if failures else 0


def _counted(n_images: int, n_failures: int) -> str:
    some = f"{n_images - n_failures} of " if n_failures else ""
    return f"{some}{n_images} {'image' if n_images == 1 else 'images'}"


def _row(failure: _Unreadable) -> int:
    assert failure.row is not None
    return failure.row


def _reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of `ImageReader` that were given."""
    return {
        "value_range": arguments.value_range,
        "window": _window(arguments.window),
        "channels": arguments.channels,
        "frames": arguments.frames,
        "bag_pooling": arguments.bag_pooling,
        "storage_options": arguments.storage_options,
    }


def _window(words: list[str] | None) -> str | list[str] | None:
    """Return a name as it is; `ImageReader` checks it, and converts a center and a width."""
    if words is None or len(words) > 1:
        return words
    # "40,400" is a center and a width too.
    return words[0].split(",") if "," in words[0] else words[0]


def _extractor(arguments: argparse.Namespace) -> Any:
    """Return the extractor that the options describe."""
    # Here, since PyTorch takes seconds to import: help and errors of the source do not wait.
    from .. import ImageReader, PretrainedFeatureExtractor

    layers = arguments.layer
    return PretrainedFeatureExtractor(
        arguments.backbone,
        weights=None if arguments.weights == "none" else arguments.weights,
        layer=layers[0] if layers and len(layers) == 1 else layers,
        pooling=arguments.pooling,
        image_size=arguments.image_size,
        reader=ImageReader(**_reading(arguments)),
        batch_size=arguments.batch_size,
        device=arguments.device,
        precision=arguments.precision,
        engine=arguments.engine,
        preprocessing="fast" if arguments.fast else None,
        on_error=arguments.on_error,
        n_jobs=arguments.n_jobs,
        cache=arguments.cache,
        normalize=arguments.normalize,
        verbose=0 if arguments.quiet else 1,
    )


def _computed(
    source: Source, arguments: argparse.Namespace, groups: AnyArray | None
) -> tuple[Table, Sequence[_Unreadable]]:
    """Compute the features."""
    extractor = _extractor(arguments)
    with warnings.catch_warnings():
        # Each unreadable image has its own line.
        warnings.simplefilter("ignore", ImageWarning)
        try:
            features = extractor.fit_transform(source.entries)
        except ImageError as error:
            raise source.explained(error) from error
    failures: Sequence[_Unreadable] = getattr(extractor, "failures_", [])
    errors = [""] * len(features)
    for failure in failures:
        row = _row(failure)
        errors[row] = in_utf_8(source.reason(row, failure.reason))
    names = extractor.get_feature_names_out().astype(str)
    table = Table(
        features,
        paths=np.array(source.names),
        classes=np.array(source.classes),
        errors=np.array(errors),
        feature_names=names,
        groups=groups,
    )
    return table, failures


def add_extract(commands: Any) -> None:
    """Add the command to a parser.

    Parameters
    ----------
    commands : argparse subparsers action
        The subparsers.
    """
    extract = commands.add_parser(
        "extract",
        help="compute the features of images",
        description="Compute the features of images, and write them with their paths, their "
        "classes (the top-level subfolders of SOURCE) and, for an unreadable image, the reason "
        "(column 'error', and a row of NaN). The exit code is 3 if some images are unreadable, "
        "and 1 if --group-by gives no image a group.",
    )
    _add_input(extract.add_argument)
    _add_reading(extract.add_argument)
    _add_network(extract.add_argument)
    output = extract.add_mutually_exclusive_group(required=True).add_argument
    output("-o", "--output", type=some_path, metavar="FILE", help=".npz, .csv or .parquet")
    output(
        "--check",
        action="store_true",
        help="read all images, compute nothing; options of the network, --cache and --on-error "
        "have no effect",
    )
    add = extract.add_argument
    add(
        "--cache",
        type=some_text,
        default=False,
        metavar="PATH",
        help="folder for cached features; default: none",
    )
    add("--n-jobs", type=int, metavar="N", help="number of worker threads; default: one per core")
    add("-q", "--quiet", action="store_true", help="no progress bar, no summary")
    extract.set_defaults(run=_extract, wording=in_options)


def _add_input(add: Callable[..., Any]) -> None:
    add(
        "source",
        type=some_text,
        metavar="SOURCE",
        help="folder of images with subfolders; table (.csv, .tsv, .parquet); archive (.zip, .tar, "
        ".tar.gz); folder of a bucket (s3://...); or - for paths on standard input, one per line",
    )
    add("--column", metavar="NAME", help="column of a table that names or holds the images")
    add(
        "--root",
        type=some_path,
        metavar="FOLDER",
        help="folder that relative paths of a table start from; default: that of the table",
    )
    add(
        "--storage-options",
        type=_json_object,
        metavar="JSON",
        help="options of fsspec for remote files, such as '{\"anon\": true}'",
    )
    add("--follow-links", action="store_true", help="follow symbolic links")
    add(
        "--group-by",
        metavar="NAME",
        help="keyword of DICOM, such as PatientID, or regular expression on the path as the output "
        "has it: adds a column 'group' of numbers",
    )


def _add_reading(add: Callable[..., Any]) -> None:
    add(
        "--value-range",
        type=float,
        nargs=2,
        metavar=("BLACK", "WHITE"),
        help="values of black and white; default: as the file declares",
    )
    add(
        "--window",
        nargs="+",
        metavar="WINDOW",
        help="window of scans: CENTER WIDTH, or lung, bone, brain, soft, full; default: the file's",
    )
    add(
        "--channels",
        type=_channels,
        default="rgb",
        metavar="CHANNELS",
        help="rgb: pictures; numbers from 0, such as 0,2,4: these channels; each: every channel "
        "alone, columns side by side; default: %(default)s",
    )
    add(
        "--frames",
        type=_frames,
        default="first",
        metavar="FRAMES",
        help="frames of animations and stacks: first, all, a number, or a range, such as 0:2 or "
        "::2; default: %(default)s",
    )
    add("--bag-pooling", metavar="NAME", help="how all frames become one row: mean, max, mean+max")
    add(
        "--on-error",
        choices=("nan", "raise"),
        default="nan",
        help="effect of an unreadable image: a row of NaN, or the end; default: %(default)s",
    )


def _add_network(add: Callable[..., Any]) -> None:
    add("--backbone", default="efficientnet_lite0", help="default: %(default)s")
    add(
        "--weights",
        default="DEFAULT",
        help="name, file, or 'none' for random weights; default: %(default)s",
    )
    add(
        "--layer",
        action="append",
        help="layer, such as the end of a stage, or all; repeatable; default: the last",
    )
    add("--pooling", choices=get_args(Pooling), default="avg", help="default: %(default)s")
    add(
        "--image-size",
        type=_image_size,
        metavar="PIXELS",
        help="side, or HEIGHTxWIDTH; default: that of the weights",
    )
    add("--normalize", action="store_true", help="scale each row to unit length")
    add("--fast", action="store_true", help="decode large JPEG files at a fraction of their size")
    add("--device", default="auto", help="default: %(default)s")
    add("--precision", choices=get_args(Precision), default="float32", help="default: %(default)s")
    add("--engine", choices=get_args(EngineChoice), default="torch", help="default: %(default)s")
    add("--batch-size", type=int, metavar="N", help="images in one pass; default: by the device")


def _frames(text: str) -> str | int | slice:
    """Return a number, or a slice from "0:2" or "::2"; `ImageReader` checks other text."""
    try:
        bounds = [int(bound) if bound.strip() else None for bound in text.split(":")]
    except ValueError:
        return text
    if len(bounds) in (2, 3):
        return slice(*bounds)
    return text if bounds[0] is None or len(bounds) > 3 else bounds[0]


def _channels(text: str) -> str | list[int]:
    if text in ("rgb", "each"):
        return text
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is neither rgb nor each nor numbers, such as 0,2,4"
        ) from None


def _json_object(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        # Without the text, which may contain a secret.
        raise argparse.ArgumentTypeError("is no JSON object, such as '{\"anon\": true}'")
    return options


def _image_size(text: str) -> int | tuple[int, int]:
    try:
        sides = tuple(int(side) for side in text.lower().split("x"))
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is neither a side nor HEIGHTxWIDTH, in pixels, at least 1"
        )
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
