"""The command ``sklearn-featx extract``: write the features of the images in a folder to a file.

The output file is either complete or absent.
"""

import argparse
import csv
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, get_args

import numpy as np

from .._messages import shown
from .._optional import import_optional
from .._typing import AnyArray, EngineChoice, FloatArray, Pooling, Precision
from ..estimators._extractor import PretrainedFeatureExtractor
from ..exceptions import InputError
from ._folder import find_images


class Table(NamedTuple):
    """The content of an output file: one row per image.

    Parameters
    ----------
    features : ndarray of shape (n_images, n_features), float32
        The features.
    paths : ndarray of shape (n_images,), str
        Paths below the folder, with forward slashes.
    classes : ndarray of shape (n_images,), str
        Name of the top-level subfolder; empty for a file in the folder itself.
    feature_names : ndarray of shape (n_features,), str
        Names of the columns of `features`.
    """

    features: FloatArray
    paths: AnyArray
    classes: AnyArray
    feature_names: AnyArray


Writer = Callable[[IO[bytes], Table], None]


def _extract(arguments: argparse.Namespace) -> None:
    writer = choose_writer(arguments.output)
    folder = arguments.folder
    paths, skipped = find_images(folder, follow_links=arguments.follow_links)
    if skipped and not arguments.quiet:
        print(f"sklearn-featx: skipped: {skipped}", file=sys.stderr)
    layers = arguments.layer
    extractor = PretrainedFeatureExtractor(
        arguments.backbone,
        weights=None if arguments.weights == "none" else arguments.weights,
        layer=layers[0] if layers and len(layers) == 1 else layers,
        pooling=arguments.pooling,
        image_size=arguments.image_size,
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
    features = extractor.fit_transform([str(folder / path) for path in paths])
    table = Table(
        features,
        np.array([path.as_posix() for path in paths]),
        np.array([class_of(path) for path in paths]),
        extractor.get_feature_names_out().astype(str),
    )
    write_whole(arguments.output, lambda file: writer(file, table))
    if not arguments.quiet:
        n_classes = len(set(table.classes.tolist()) - {""})
        print(
            f"{len(features)} images in {n_classes} classes, {features.shape[1]} features each: "
            f"{arguments.output}"
        )


def class_of(path: Path) -> str:
    """Return the first folder of a relative path; empty for a file without a folder."""
    return path.parts[0] if len(path.parts) > 1 else ""


def choose_writer(output: Path) -> Writer:
    """Return the function that writes the file format of a suffix.

    Parameters
    ----------
    output : Path
        The file to write.

    Returns
    -------
    writer : callable
        Takes a binary file and a `Table`.

    Raises
    ------
    InputError
        If the format is unknown, or the folder of the file does not exist.
    MissingDependencyError
        If the packages that write parquet are not installed.
    """
    if not output.parent.is_dir():
        raise InputError(f"--output: there is no folder {shown(str(output.parent))}.")
    suffix = output.suffix.lower()
    if suffix not in _WRITERS:
        raise InputError(
            f"--output: {shown(str(output))} must end in one of {', '.join(sorted(_WRITERS))}."
        )
    if suffix == ".parquet":
        for package in ("pandas", "pyarrow"):
            import_optional(package, extra="parquet", purpose="A .parquet output")
    return _WRITERS[suffix]


def write_whole(output: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a temporary file and rename it: the output file is either complete or unchanged.

    Parameters
    ----------
    output : Path
        The file to write; an existing file is replaced.
    write : callable
        Writes the content to a binary file.
    """
    # Files of `tempfile` are readable by their owner alone, whatever the umask.
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def _write_npz(file: IO[bytes], table: Table) -> None:
    # Numbers and fixed-width text only, which load without pickle.
    np.savez(file, **table._asdict())


def _write_csv(file: IO[bytes], table: Table) -> None:
    # `surrogateescape` keeps the bytes of file names that are not Unicode.
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "class", *table.feature_names.tolist()])
    for path, label, row in zip(table.paths, table.classes, table.features, strict=True):
        # `astype(str)` gives the fewest digits that identify a float32.
        writer.writerow([path, label, *row.astype(str)])
    text.flush()
    text.detach()


def _write_parquet(file: IO[bytes], table: Table) -> None:
    pandas = import_optional("pandas", extra="parquet", purpose="A .parquet output")
    frame = pandas.DataFrame(table.features, columns=table.feature_names.tolist())
    frame.insert(0, "path", table.paths.tolist())
    frame.insert(1, "class", table.classes.tolist())
    frame.to_parquet(file, engine="pyarrow", index=False)


_WRITERS: dict[str, Writer] = {
    ".csv": _write_csv,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}


def add_extract(commands: Any) -> None:
    extract = commands.add_parser(
        "extract",
        help="compute the features of the images in a folder",
        description="Compute the features of all images in a folder and its subfolders, and write "
        "them with their paths and classes. The class of an image is its top-level subfolder.",
    )
    add = extract.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of images, with subfolders")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help=".npz, .csv or .parquet")
    add("--backbone", default="efficientnet_lite0", help="default: %(default)s")
    add("--weights", default="DEFAULT", help="name, file, or 'none' for random weights")
    add("--layer", action="append", help="stage or layer; repeatable")
    add("--pooling", choices=get_args(Pooling), default="avg", help="default: %(default)s")
    add("--image-size", type=_image_size, metavar="PIXELS", help="side, or HEIGHTxWIDTH")
    add("--device", default="auto", help="default: %(default)s")
    add("--precision", choices=get_args(Precision), default="float32", help="default: %(default)s")
    add("--engine", choices=get_args(EngineChoice), default="torch", help="default: %(default)s")
    add("--fast", action="store_true", help="decode large JPEG files at a fraction of their size")
    add(
        "--on-error",
        choices=("raise", "nan"),
        default="raise",
        help="effect of an unreadable image: end the run, or give a row of NaN; "
        "default: %(default)s",
    )
    add("--follow-links", action="store_true", help="follow symbolic links")
    add("--n-jobs", type=int, metavar="N", help="number of worker threads")
    add("--batch-size", type=int, metavar="N", help="images in one pass")
    add("--cache", default=False, metavar="PATH", help="folder for cached features")
    add("--normalize", action="store_true", help="scale each row to unit length")
    add("-q", "--quiet", action="store_true", help="no progress bar, no summary")
    extract.set_defaults(run=_extract)


def _image_size(text: str) -> int | tuple[int, int]:
    try:
        sides = tuple(int(side) for side in text.lower().split("x"))
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is neither a side nor HEIGHTxWIDTH, in pixels"
        )
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
