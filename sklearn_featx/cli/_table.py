"""A column of a .csv, .tsv or .parquet file: the images that it names or holds."""

import csv
import os
from pathlib import Path
from typing import Any

from .._messages import said, short, shown
from .._optional import import_optional
from ..exceptions import InputError

TABLES = (".csv", ".parquet", ".tsv")
# The csv module refuses longer cells than 128 KiB; a picture in base64 is longer.
_LONGEST_CELL = 2**30


def read_column(path: Path, column: str | None) -> list[Any]:
    """Read one column of a table.

    Parameters
    ----------
    path : Path
        The file.
    column : str or None
        Name of the column. None: the only column.

    Returns
    -------
    cells : list
        One entry per row; None for an empty cell.

    Raises
    ------
    InputError
        If the file is no such table, is empty, or has no such column.
    """
    read = _parquet_column if path.suffix.lower() == ".parquet" else _text_column
    cells = read(path, column)
    if not cells:
        raise InputError(f"SOURCE: {shown(str(path))} has no rows.")
    return cells


def _chosen(names: list[str], column: str | None, path: Path) -> str:
    if column is None and len(names) == 1 and not _separator_hint(names, path):
        return names[0]
    if column in names:
        assert column is not None
        return column
    if not names:
        raise InputError(f"SOURCE: {shown(str(path))} is empty: its first line names no column.")
    reason = "is needed" if column is None else f"{shown(column)} is not in the table"
    raise InputError(
        f"--column {reason}: {shown(path.name)} has the columns {short(', '.join(names))}."
        f"{_separator_hint(names, path)}"
    )


def _separator_hint(names: list[str], path: Path) -> str:
    """Return what separates the columns of a text that was read as one column; empty if nothing."""
    expected, others = ("tabs", ",;") if path.suffix.lower() == ".tsv" else ("commas", ";\t|")
    mark = next((mark for mark in others if len(names) == 1 and mark in names[0]), None)
    if mark is None or path.suffix.lower() == ".parquet":
        return ""
    words = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
    rename = ", or name the file .tsv" if mark == "\t" else ""
    return f" It is separated by {words[mark]}: save it with {expected}{rename}."


def _text_column(path: Path, column: str | None) -> list[Any]:
    csv.field_size_limit(_LONGEST_CELL)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        # `utf-8-sig` drops the mark that Excel writes at the start.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            name = _chosen([n for n in rows.fieldnames or [] if n], column, path)
            return [row[name] or None for row in rows]
    except csv.Error as error:
        raise InputError(f"SOURCE: {shown(str(path))} is no table: {said(error)}.") from error


def _parquet_column(path: Path, column: str | None) -> list[Any]:
    parquet = import_optional("pyarrow.parquet", extra="parquet", purpose="A .parquet table")
    try:
        name = _chosen(parquet.read_schema(path).names, column, path)
        cells: list[Any] = parquet.read_table(path, columns=[name]).column(name).to_pylist()
    except InputError:
        raise
    except ValueError as error:
        # pyarrow's own errors are ValueErrors.
        raise InputError(f"SOURCE: {shown(str(path))} is no table: {said(error)}.") from error
    return cells


def below(root: Path, cell: Any) -> Any:
    """Return a relative path as one below a folder; any other cell as it is.

    Parameters
    ----------
    root : Path
        The folder.
    cell : object
        A cell of a table.

    Returns
    -------
    entry : object
        The path of a file, or the cell.
    """
    is_path = isinstance(cell, str) and ":" not in cell[:32] and not os.path.isabs(cell)  # noqa: PTH117
    # A picture in base64 is no path; no system has longer ones than this.
    return os.path.join(root, cell) if is_path and len(cell) < 4096 else cell  # noqa: PTH118


def path_of(cell: Any) -> str | None:
    """Return the path in a cell; None for a cell that holds a picture.

    Parameters
    ----------
    cell : object
        A cell of a table.

    Returns
    -------
    path : str or None
        The path.
    """
    if isinstance(cell, dict):
        # The picture of a parquet file of the Hugging Face Hub.
        cell = cell.get("path")
    return cell if isinstance(cell, str) and len(cell) < 4096 else None
