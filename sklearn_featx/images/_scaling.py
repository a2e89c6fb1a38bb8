"""Scaling: numbers of any dtype and range become uint8 levels.

The range that maps linearly to 0..255, rounded to nearest, is `value_range` if the user gave one
and otherwise follows from the dtype, never from the data (one row must not depend on another):

============  ==========
dtype         range
============  ==========
bool          0..1
uint8         0..255
uint16        0..65535
other int     0..255
float         0..1
============  ==========

Values outside the range, NaN and infinity are refused.
"""

import math
from typing import Any, TypeAlias

import numpy as np

from .._messages import shown
from .._typing import AnyArray, Pixels
from ..exceptions import ImageError, InputError

ValueRange: TypeAlias = tuple[float, float]

# Rows are checked in chunks of this many bytes: few calls, and memory stays flat.
_CHUNK_BYTES = 16 * 2**20


def check_value_range(value_range: Any) -> ValueRange | None:
    """Return `value_range` as two finite floats, low < high; `InputError` for others."""
    if value_range is None:
        return None
    try:
        low, high = (float(bound) for bound in value_range)
    except (TypeError, ValueError) as error:
        raise InputError(_bad_range(value_range)) from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(_bad_range(value_range))
    return low, high


def _bad_range(value_range: Any) -> str:
    return f"value_range={shown(value_range)} is not a range: expected (low, high) with low < high."


def effective_range(dtype: np.dtype[Any], value_range: ValueRange | None) -> ValueRange:
    """Return the range that maps to 0..255, see the table above; `ImageError` for other dtypes."""
    if dtype.kind == "c":
        raise ImageError(f"Complex data not supported: dtype {dtype}.")
    if dtype.kind not in "buif":
        raise ImageError(f"an array of dtype {dtype} does not hold pixels: expected numbers.")
    if value_range is not None:
        return value_range
    if dtype.kind in "bf":
        return 0.0, 1.0
    # In either order of bytes: big-endian types are not equal to `np.uint16`.
    return (0.0, 65535.0) if dtype.newbyteorder("=") == np.uint16 else (0.0, 255.0)


def check_values(values: AnyArray, value_range: ValueRange) -> None:
    """Refuse an item with values that are not finite or not in range, by an `ImageError`."""
    if not _in_range(values, value_range):
        raise ImageError(_why_refused(values, value_range))


def check_rows(array: AnyArray, value_range: ValueRange) -> None:
    """Check every row of `array`; the `ImageError` names the first row refused."""
    if _always_in_range(array.dtype, value_range):
        return
    for start, chunk in chunks(array):
        if not _in_range(chunk, value_range):
            row = next(r for r in range(len(chunk)) if not _in_range(chunk[r], value_range))
            raise ImageError(_why_refused(chunk[row], value_range), row=start + row)


def chunks(array: AnyArray) -> list[tuple[int, AnyArray]]:
    """Cut `array` along its rows: pairs of (first row, view)."""
    step = max(1, _CHUNK_BYTES // max(1, array.nbytes // max(1, len(array))))
    return [(start, array[start : start + step]) for start in range(0, len(array), step)]


def _always_in_range(dtype: np.dtype[Any], value_range: ValueRange) -> bool:
    low, high = value_range
    if dtype.kind == "b":
        return low <= 0 and high >= 1
    return dtype.kind in "ui" and low <= np.iinfo(dtype).min and high >= np.iinfo(dtype).max


def _in_range(values: AnyArray, value_range: ValueRange) -> bool:
    low, high = value_range
    # A NaN anywhere makes both NaN, and both comparisons false.
    return bool(values.min() >= low and values.max() <= high)


def _why_refused(values: AnyArray, value_range: ValueRange) -> str:
    if np.isnan(values).any():
        return "contains NaN. Pixels must be finite numbers."
    low, high = (f"{bound:g}" for bound in value_range)
    smallest, largest = float(values.min()), float(values.max())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        return "contains infinity (inf). Pixels must be finite numbers."
    return (
        f"values run from {smallest:g} to {largest:g}, outside the range {low} to {high} "
        f"of this {values.dtype} image. Pass value_range=(low, high), the values of black and "
        f"white{_hint(smallest, largest)}."
    )


def _hint(smallest: float, largest: float) -> str:
    if smallest >= 0 and largest <= 255:
        return ", for example value_range=(0, 255)"
    return ""


def to_levels(values: AnyArray, value_range: ValueRange) -> Pixels:
    """Map `value_range` linearly to 0..255, rounded to nearest; values must be in range."""
    low, high = value_range
    if values.dtype == np.uint8 and value_range == (0.0, 255.0):
        return values
    # float32 holds 8 and 16 bits exactly; wider integers are computed in float64.
    wide = np.result_type(values.dtype, np.float32)
    levels: Pixels = np.rint((values.astype(wide) - low) * 255 / (high - low)).astype(np.uint8)
    return levels


def over_white(colour: Pixels, alpha: Pixels) -> Pixels:
    """Composite over white: ``(c * a + 255 * (255 - a)) / 255``, rounded to nearest.

    `colour` of shape (H, W, C) is not multiplied by `alpha` of shape (H, W, 1).
    """
    # At most 255 * 255 + 127, which uint16 holds.
    opacity = alpha[:, :, 0].astype(np.uint16)
    white = 255 * (255 - opacity) + 127
    opaque = np.empty(colour.shape, np.uint8)
    # A channel at a time: loops over three are too short for vector instructions.
    for channel in range(colour.shape[2]):
        opaque[:, :, channel] = (colour[:, :, channel] * opacity + white) // 255
    return opaque
