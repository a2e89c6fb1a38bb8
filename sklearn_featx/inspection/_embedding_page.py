"""The interactive page of a map: data and pictures in one file, without a remote script."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from .._typing import AnyArray, FloatArray
from ..images import data_uri

# Tiles of one sheet: browsers decode pictures of some thousand pixels a side.
_SHEET_SIDE = 4096
# More different numbers than these are a scale, not classes.
_MOST_CLASSES = 20


def embedding_page(
    points: FloatArray,
    thumbnails: AnyArray,
    columns: Mapping[str, AnyArray],
    paths: Sequence[str],
) -> str:
    """Return the page.

    Parameters
    ----------
    points : ndarray of shape (n_points, 2)
        Places.
    thumbnails : ndarray of shape (n_points, side, side, 3), uint8
        Pictures.
    columns : mapping of str to ndarray of shape (n_points,)
        Columns that points can be colored by.
    paths : sequence of str
        Files.

    Returns
    -------
    page : str
        HTML.
    """
    side = int(thumbnails.shape[1])
    per_row = max(1, min(_SHEET_SIDE // side, math.ceil(math.sqrt(len(points)))))
    per_sheet = per_row * max(1, _SHEET_SIDE // side)
    sheets = [
        data_uri(_sheet(thumbnails[start : start + per_sheet], per_row))
        for start in range(0, len(points), per_sheet)
    ]
    data = {
        "x": _rounded(points[:, 0]),
        "y": _rounded(points[:, 1]),
        "side": side,
        "perRow": per_row,
        "perSheet": per_sheet,
        "paths": list(paths),
        "columns": [_column(name, values) for name, values in columns.items()],
        "sheets": sheets,
    }
    template = files(__package__).joinpath("_embedding_page.html").read_text("utf-8")
    # Text of the user must not end the script element.
    return template.replace("/*DATA*/", json.dumps(data).replace("<", "\\u003c"))


def _sheet(tiles: AnyArray, per_row: int) -> AnyArray:
    """Tiles in rows, as one picture."""
    n_rows, side = math.ceil(len(tiles) / per_row), tiles.shape[1]
    sheet = np.zeros((n_rows * per_row, side, side, 3), np.uint8)
    sheet[: len(tiles)] = tiles
    rows = sheet.reshape(n_rows, per_row, side, side, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(n_rows * side, per_row * side, 3)


def _rounded(values: AnyArray) -> list[float | None]:
    """Numbers with six digits; None for those that JSON does not have."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in values.tolist()]


def _column(name: str, values: AnyArray) -> dict[str, Any]:
    """Codes and names of classes, or numbers."""
    names, codes = np.unique(np.asarray(values).astype(str), return_inverse=True)
    is_number = np.asarray(values).dtype.kind in "iuf"
    if is_number and len(names) > _MOST_CLASSES:
        return {"name": name, "values": _rounded(np.asarray(values, dtype=float))}
    return {"name": name, "classes": names.tolist(), "codes": codes.tolist()}
