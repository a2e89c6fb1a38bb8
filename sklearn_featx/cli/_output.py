"""The output file of ``sklearn-featx extract``: .csv, .npz or .parquet, complete or unchanged."""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from .._messages import said, shown
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


def check_output(output: Path) -> None:
    """Raise an `InputError` if an output file cannot be written, before any work."""
    if not output.parent.is_dir():
        raise InputError(f"--output: there is no folder {shown(str(output.parent))}.")
    target = _target(output)
    if target.exists() and not target.is_file():
        raise InputError(f"--output: {shown(str(output))} is a folder or a device, not a file.")
    temporary = _temporary(target)
    try:
        temporary.touch(exist_ok=True)
        temporary.unlink()
    except OSError as error:
        raise InputError(f"{_not_written(output, error)} Name a file in another folder.") from None


def _target(output: Path) -> Path:
    """Return the file that a symbolic link leads to, which is written in place of the link."""
    try:
        target = output.resolve()
        # Links in a circle are a RuntimeError up to Python 3.12, and resolved to a link since.
        if target.is_symlink():
            target.stat()
        return target
    except (OSError, RuntimeError) as error:
        raise InputError(f"{_not_written(output, error)} Name another file.") from None


def _temporary(target: Path) -> Path:
    # Files of `tempfile` are readable by their owner alone, whatever the umask.
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def _not_written(output: Path, error: Exception) -> str:
    return f"--output: {shown(str(output))} cannot be written ({said(error)})."


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
        If the format is unknown, or the file cannot be written.
    MissingDependencyError
        If the packages that write parquet are not installed.
    """
    check_output(output)
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
        The file to write; an existing file is replaced, and a symbolic link stays.
    write : callable
        Writes the content to a binary file.
    """
    target = _target(output)
    temporary = _temporary(target)
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(target)
    except OSError as error:
        raise OSError(_not_written(output, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_npz(file: IO[bytes], table: Table) -> None:
    # Numbers and fixed-width text only, which load without pickle.
    arrays = {name: array for name, array in table._asdict().items() if array is not None}
    np.savez(file, **arrays)


def _write_csv(file: IO[bytes], table: Table) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
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
