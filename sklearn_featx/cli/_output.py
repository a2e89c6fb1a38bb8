"""The output file of ``sklearn-featx extract``: .csv, .npz or .parquet, complete or absent."""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from .._messages import shown
from .._optional import import_optional
from .._typing import AnyArray, FloatArray
from ..exceptions import InputError


class Table(NamedTuple):
    """The content of an output file: one row per image.

    Parameters
    ----------
    features : ndarray of shape (n_images, n_features), float32
        The features; NaN for an unreadable image.
    paths : ndarray of shape (n_images,), str
        Name of each image in its source: the path below a folder, with forward slashes.
    classes : ndarray of shape (n_images,), str
        Name of the top-level subfolder; empty for an image without one.
    errors : ndarray of shape (n_images,), str
        Why an image is unreadable; empty for the others.
    feature_names : ndarray of shape (n_features,), str
        Names of the columns of `features`.
    groups : ndarray of shape (n_images,), str, default=None
        Equal where images belong together; empty for an image without a group. None: no column.
    """

    features: FloatArray
    paths: AnyArray
    classes: AnyArray
    errors: AnyArray
    feature_names: AnyArray
    groups: AnyArray | None = None

    @property
    def texts(self) -> dict[str, AnyArray]:
        """The columns before the features, by name."""
        grouped = {} if self.groups is None else {"group": self.groups}
        return {"path": self.paths, "class": self.classes, **grouped, "error": self.errors}


Writer = Callable[[IO[bytes], Table], None]


def check_folder(output: Path) -> None:
    """Raise an `InputError` if the folder of an output file does not exist, before any work."""
    if not output.parent.is_dir():
        raise InputError(f"--output: there is no folder {shown(str(output.parent))}.")


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
    check_folder(output)
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
    arrays = {name: array for name, array in table._asdict().items() if array is not None}
    np.savez(file, **arrays)


def _write_csv(file: IO[bytes], table: Table) -> None:
    # `surrogateescape` keeps the bytes of file names that are not Unicode.
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text)
    writer.writerow([*table.texts, *table.feature_names.tolist()])
    for *texts, row in zip(*table.texts.values(), table.features, strict=True):
        # `astype(str)` gives the fewest digits that identify a float32.
        writer.writerow([*texts, *row.astype(str)])
    text.flush()
    text.detach()


def _write_parquet(file: IO[bytes], table: Table) -> None:
    pandas = import_optional("pandas", extra="parquet", purpose="A .parquet output")
    frame = pandas.DataFrame(table.features, columns=table.feature_names.tolist())
    for i, (name, column) in enumerate(table.texts.items()):
        frame.insert(i, name, column.tolist())
    frame.to_parquet(file, engine="pyarrow", index=False)


_WRITERS: dict[str, Writer] = {
    ".csv": _write_csv,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
