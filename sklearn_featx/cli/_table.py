"""A column of a .csv, .tsv or .parquet file: the images that it names or holds."""

import csv
import os
from pathlib import Path
from typing import Any

from .._messages import listed, said, shown
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
        if (count := names.count(column)) > 1:
            raise InputError(
                f"--column: {count} columns of {shown(path.name)} have the name {shown(column)}. "
                "Rename all but one of them."
            )
        return column
    if not names:
        raise InputError(f"SOURCE: {shown(str(path))} is empty: its first line names no column.")
    reason = "is needed" if column is None else f"{shown(column)} is not in the table"
    raise InputError(
        f"--column {reason}: {shown(path.name)} has the columns {listed(names)}."
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
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter)
            header = next(rows, [])
            # UTF-16 without a mark is UTF-8 with null bytes.
            if any("\0" in name for name in header):
                raise _not_utf_8(path)
            place = header.index(_chosen([name for name in header if name], column, path))
            return [_cell(row, place, len(header), rows.line_num, path) for row in rows if row]
    except UnicodeDecodeError:
        raise _not_utf_8(path) from None
    except csv.Error as error:
        raise InputError(f"SOURCE: {shown(str(path))} is no table: {said(error)}.") from error


def _not_utf_8(path: Path) -> InputError:
    return InputError(f"SOURCE: {shown(str(path))} is not UTF-8 text: save it as UTF-8.")


def _cell(row: list[str], place: int, n_columns: int, line: int, path: Path) -> str | None:
    """Return a cell of a row, None for an empty one; a row may be shorter than the header."""
    if len(row) > n_columns:
        raise InputError(
            f"SOURCE: line {line} of {shown(str(path))} has {len(row)} cells, the header "
            f"{n_columns}. Quote a cell that contains the separator."
        )
    return (row[place] if place < len(row) else None) or None


def _parquet_column(path: Path, column: str | None) -> list[Any]:
    parquet = import_optional("pyarrow.parquet", extra="parquet", purpose="A .parquet table")
    try:
        schema = parquet.read_schema(path)
        name = _chosen(schema.names, column, path)
        _refuse_numbers(name, schema.field(name).type, path)
        cells: list[Any] = parquet.read_table(path, columns=[name]).column(name).to_pylist()
    except InputError:
        raise
    except ValueError as error:
        # pyarrow's own errors are ValueErrors.
        raise InputError(f"SOURCE: {shown(str(path))} is no table: {said(error)}.") from error
    # An empty text is a missing path, as in a .csv file.
    return [None if isinstance(cell, str) and not cell else cell for cell in cells]


def _refuse_numbers(name: str, kind: Any, path: Path) -> None:
    """Raise an error for a column of numbers, truth values or dates, which name no image."""
    types = import_optional("pyarrow.types", extra="parquet", purpose="A .parquet table")
    if types.is_primitive(kind):
        raise InputError(
            f"--column {shown(name)} of {shown(path.name)} holds {kind}: expected paths or "
            "contents of images. Name another column."
        )


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
