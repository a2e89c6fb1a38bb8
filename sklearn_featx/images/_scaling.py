"""Scaling: conversion of numbers of any dtype and range to levels from 0 (black) to 255 (white).

The range that maps linearly to 0..255 is the user's `value_range`, else the range that the file
declares (see `_declared`), else that of the dtype. It never follows from the values, so no row
depends on another row or on an image's brightest pixel.

============  ==========
dtype         range
============  ==========
bool          0..1
uint8         0..255
uint16        0..65535
other int     0..255
float         0..1
============  ==========

Levels are uint8 if all levels of an image are whole numbers, as for every 8-bit image, whatever its
dtype. Other levels are float32: 65,536 gray values are not rounded to 256. Values that are NaN,
infinite or out of range are rejected.
"""

import math
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from .._messages import shown
from .._typing import AnyArray, Levels, Pixels
from ..exceptions import ImageError, InputError
from ._window import HounsfieldWindow, Window

ValueRange: TypeAlias = tuple[float, float]


class AsTheyAre(NamedTuple):
    """The range of floats that enter a network as they are: 0 and 1, and values beyond are valid.

    Parameters
    ----------
    low, high : float
        The values of the levels 0 and 255.
    """

    low: float = 0.0
    high: float = 1.0


class Note(Protocol):
    """A record of defaults that the user may want to change."""

    def __call__(self, values: AnyArray, declared: ValueRange, /, *, scan: bool = False) -> None:
        """Record the values of one image, the range that its type or file declares, and its kind.

        `scan`: a DICOM file, whose range depends on the rescaling of each file.
        """

    def frames(self, what: str, /) -> None:
        """Record that one frame of several was read."""


# Rows are checked in chunks of this size, which bounds the memory.
_CHUNK_BYTES = 16 * 2**20
# Levels that are closer to whole numbers have 8 bits: k / 255 times 255 is k +- 3e-5 in float32 and
# k +- 64 * eps in float16.
WHOLE, _WHOLE_EPS = 1e-3, 64
# Values beyond a range by this share of it come from arithmetic, not from another scale, if they
# use the least share of it.
_ROUNDING = 0.01
LEAST_SHARE = 0.25


def check_value_range(value_range: Any) -> ValueRange | None:
    """Return `value_range` as two finite floats with low < high; raise `InputError` otherwise."""
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
    """Return the range that maps to 0..255; raise `ImageError` if the dtype is no number."""
    if dtype.kind == "c":
        raise ImageError(
            f"Complex data not supported: dtype {dtype}. Pass its real parts or magnitudes."
        )
    if dtype.kind not in "buif":
        raise ImageError(f"an array of dtype {dtype} does not hold pixels: expected numbers.")
    if isinstance(value_range, HounsfieldWindow) and dtype.kind in ("b", "u"):
        raise value_range.refusal(f"an image of {dtype}, without negative numbers,")
    if dtype.kind == "b":
        # False is black and True is white, whatever the `value_range` of other images.
        return 0.0, 1.0
    if value_range is not None:
        if dtype == np.uint8 and value_range[1] > 4 * 255 and not _clips(value_range):
            raise ImageError(
                f"value_range={value_range} goes beyond the 8 bits of this image, which would be "
                "nearly black. Give images of 8 bits their own call, or bring all to one scale."
            )
        return value_range
    if dtype.kind == "f":
        return 0.0, 1.0
    # A big-endian dtype is not equal to `np.uint16`.
    return (0.0, 65535.0) if dtype.newbyteorder("=") == np.uint16 else (0.0, 255.0)


def check_values(values: AnyArray, value_range: ValueRange) -> None:
    """Raise `ImageError` if an item has values that are NaN, infinite or out of range."""
    if not _always_in_range(values.dtype, value_range) and not _in_range(values, value_range):
        raise ImageError(_why_refused(values, value_range))


def check_rows(array: AnyArray, value_range: ValueRange) -> None:
    """Check every row of an array; the `ImageError` has the first invalid row."""
    if _always_in_range(array.dtype, value_range):
        return
    for start, chunk in chunks(array):
        if not _in_range(chunk, value_range):
            row = next(r for r in range(len(chunk)) if not _in_range(chunk[r], value_range))
            reason = _why_refused(chunk[row], value_range, array)
            raise ImageError(reason, row=start + row)


def chunks(array: AnyArray) -> list[tuple[int, AnyArray]]:
    """Split an array along its rows into pairs of (first row, view)."""
    step = max(1, _CHUNK_BYTES // max(1, array.nbytes // max(1, len(array))))
    return [(start, array[start : start + step]) for start in range(0, len(array), step)]


def _clips(value_range: ValueRange) -> bool:
    return isinstance(value_range, Window)


def _has_no_limits(value_range: ValueRange) -> bool:
    return isinstance(value_range, Window | AsTheyAre)


def _always_in_range(dtype: np.dtype[Any], value_range: ValueRange) -> bool:
    if _has_no_limits(value_range):
        return dtype.kind in "bui"
    low, high = value_range
    if dtype.kind == "b":
        return low <= 0 and high >= 1
    return dtype.kind in "ui" and low <= np.iinfo(dtype).min and high >= np.iinfo(dtype).max


def _in_range(values: AnyArray, value_range: ValueRange) -> bool:
    if _has_no_limits(value_range):
        return bool(np.isfinite(values).all()) and not _in_other_units(values, value_range)
    low, high = value_range
    # With a NaN, both are NaN and both comparisons are false.
    return bool(values.min() >= low and values.max() <= high)


def _in_other_units(values: AnyArray, value_range: ValueRange) -> bool:
    return isinstance(value_range, HounsfieldWindow) and not value_range.may_be_units_of(values)


def _why_refused(values: AnyArray, value_range: ValueRange, X: AnyArray | None = None) -> str:
    if np.isnan(values).any():
        return "contains NaN. Pixels must be finite numbers."
    low, high = value_range
    smallest, largest = float(values.min()), float(values.max())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        return "contains infinity (inf). Pixels must be finite numbers."
    if isinstance(value_range, HounsfieldWindow):
        return value_range.refusal("an image of values from 0 to 1").reason
    slack = _ROUNDING * (high - low)
    is_scale = largest - smallest >= LEAST_SHARE * (high - low)
    if (
        values.dtype.kind == "f"
        and is_scale
        and smallest >= low - slack
        and largest <= high + slack
    ):
        return (
            f"values run from {smallest:.12g} to {largest:.12g}, just outside the range {low:g} to "
            f"{high:g} of this {values.dtype} image, as after rounding or resizing. Pass "
            f"np.clip(X, {low:g}, {high:g})."
        )
    return (
        f"values run from {smallest:g} to {largest:g}, outside the range {low:g} to {high:g} "
        f"of this {values.dtype} image. Pass reader=ImageReader(value_range=(low, high)), the "
        f"values of black and white{_hint(values, value_range, X)}."
    )


def _hint(values: AnyArray, value_range: ValueRange, X: AnyArray | None) -> str:
    """Return an example of a range: that of 8 bits, or one that holds the values."""
    what = "this image" if X is None else "all of X"
    values = values if X is None else X
    smallest, largest = float(values.min()), float(values.max())
    if not (math.isfinite(smallest) and math.isfinite(largest) and smallest < largest):
        return ""
    slack = _ROUNDING * 255
    is_scale = largest - smallest >= LEAST_SHARE * 255
    if value_range != (0.0, 255.0) and is_scale and smallest >= -slack and largest <= 255 + slack:
        return ", for example value_range=(0, 255)"
    low, high = _around(smallest, largest)
    return f", for example value_range=({low:.12g}, {high:.12g}), which holds {what}"


def _around(smallest: float, largest: float) -> ValueRange:
    """Return the values as they are if they are short numbers, else rounded outwards."""
    digits = 3 - math.floor(math.log10(largest - smallest))
    unit = 10.0**-digits

    def outwards(value: float, sign: int) -> float:
        if float(f"{value:.6g}") == value:
            return value
        near = round(value, digits)
        return near if (near - value) * sign >= 0 else round(near + sign * unit, digits)

    return outwards(smallest, -1), outwards(largest, 1)


def alpha_range(dtype: np.dtype[Any], value_range: ValueRange) -> ValueRange:
    """Return the range of an alpha channel: that of its integer type, or of the float colors."""
    return value_range if dtype.kind == "f" else effective_range(dtype, None)


def to_shown(
    values: AnyArray, limits: ValueRange, note: Note | None = None, *, bands: bool = False
) -> Levels:
    """Check and scale numbers (H, W, C) to levels (H, W, 1 or 3); composite alpha over white.

    `note` is called with the values of the colors and their range. `bands`: no channel is alpha,
    and levels have the channels of the values.
    """
    if values.shape[2] in (2, 4) and not bands:
        values, alpha = values[:, :, :-1], values[:, :, -1:]
        opacity_limits = alpha_range(alpha.dtype, limits)
        check_values(alpha, opacity_limits)
        return over_white(to_shown(values, limits, note), to_levels(alpha, opacity_limits))
    if values.shape[2] == 3 and _clips(limits):
        if isinstance(limits, HounsfieldWindow):
            raise limits.refusal("an image in color")
        # A window is of gray values.
        limits = effective_range(values.dtype, None)
    check_values(values, limits)
    if note is not None and not _has_no_limits(limits):
        note(values, limits)
    return np.ascontiguousarray(to_levels(values, limits))


def to_levels(values: AnyArray, value_range: ValueRange) -> Levels:
    """Map `value_range` linearly to 0..255. The values must be in the range."""
    if isinstance(value_range, Window):
        return as_levels(value_range.apply(values))
    low, high = value_range
    if values.dtype == np.uint8 and value_range == (0.0, 255.0):
        return values
    # float32 represents 8 and 16 bits exactly; wider integers are computed in float64.
    wide = np.result_type(values.dtype, np.float32)
    levels = (values.astype(wide) - low) * 255 / (high - low)
    eps = np.finfo(values.dtype).eps if values.dtype.kind == "f" else 0.0
    return as_levels(levels, float(eps))


def as_levels(levels: AnyArray, eps: float = 0.0) -> Levels:
    """Return levels from 0 to 255 as uint8 if all are whole numbers, else as float32.

    `eps` is the precision of the values that they were computed from.
    """
    whole = np.rint(levels)
    # Floats that enter a network as they are may lie beyond the levels of 8 bits.
    fits = whole.min() >= 0 and whole.max() <= 255
    if fits and np.abs(levels - whole).max() <= max(WHOLE, _WHOLE_EPS * eps):
        return whole.astype(np.uint8)
    return levels.astype(np.float32, copy=False)


def to_pixels(levels: Levels) -> Pixels:
    """Round levels to 8 bits."""
    return levels if levels.dtype == np.uint8 else np.rint(levels).astype(np.uint8)


def over_white(color: Levels, alpha: Levels) -> Levels:
    """Composite over white: ``(c * a + 255 * (255 - a)) / 255``; uint8 is rounded to nearest.

    `color`, of shape (H, W, C), is not premultiplied by `alpha`, of shape (H, W, 1).
    """
    if color.dtype != np.uint8 or alpha.dtype != np.uint8:
        opacity = alpha.astype(np.float32) / np.float32(255)
        mixed: Levels = color * opacity + 255 * (1 - opacity)
        return mixed
    # The maximum is 255 * 255 + 127, which fits into uint16.
    opacity = alpha[:, :, 0].astype(np.uint16)
    white = 255 * (255 - opacity) + 127
    opaque = np.empty(color.shape, np.uint8)
    # Each channel on its own: inner loops over three values would not be vectorized.
    for channel in range(color.shape[2]):
        opaque[:, :, channel] = (color[:, :, channel] * opacity + white) // 255
    return opaque
