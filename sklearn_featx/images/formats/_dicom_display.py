"""Display of DICOM pixels: from stored values to levels, in the order of PS3.4, N.2.

1. The stored bits are extracted, with their sign.
2. The modality table or the rescale slope and intercept give the scanner's units.
3. The window (VOI) maps these to levels from 0 to 255: the user's, else the file's first table or
   window, else all values that the stored bits have.
4. The presentation table, and the inversion of MONOCHROME1 or of the shape INVERSE.
5. Padding is black.

Each step is a function of single values. Pictures of more pixels than there are stored values are
looked up in a table of them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..._typing import AnyArray, Levels
from ...exceptions import ImageError
from .._options import ReadOptions
from .._scaling import WHOLE, Note, ValueRange, as_levels, check_values
from .._window import FULL, HOUNSFIELD, Window, window_limits
from . import _dicom_header as tags
from ._dicom_header import Header

# Their numbers of 8 bytes stay below the size at which malloc asks the system for memory.
_WORDS_AT_ONCE = 2**13
_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"


class Table(NamedTuple):
    """A lookup table: entries for the values from `first` on, of `bits` bits."""

    entries: AnyArray
    first: int
    bits: int

    def find(self, values: AnyArray) -> AnyArray:
        """Look up values; those beyond the ends have the entry of the end."""
        index = (np.rint(values).astype(np.int64) - self.first).clip(0, len(self.entries) - 1)
        found: AnyArray = self.entries[index]
        return found

    @property
    def white(self) -> float:
        """The largest entry that `bits` can hold."""
        return float(2**self.bits - 1)


class Gray(NamedTuple):
    """How gray values of one file are displayed.

    Parameters
    ----------
    stored : tuple of int
        Bits stored, position of the lowest one, and whether the highest is a sign.
    units : callable
        From stored values to the scanner's units.
    levels : callable
        From the scanner's units to levels from 0 to 255 in float64.
    padding : (float, float) or None
        Stored values that are no part of the picture.
    strict : (float, float) or None
        Range that the values must lie in, in the scanner's units.
    declared : (float, float) or None
        Range of the stored bits, where neither the user nor the file names a window.
    """

    stored: tuple[int, int, bool]
    units: Callable[[AnyArray], AnyArray]
    levels: Callable[[AnyArray], AnyArray]
    padding: tuple[float, float] | None
    strict: ValueRange | None
    declared: ValueRange | None

    def show(self, words: AnyArray) -> AnyArray:
        """Convert words, as the file has them, to levels in float64."""
        values = _extract(words, *self.stored)
        levels = self.levels(self.units(values))
        if self.padding is not None:
            low, high = self.padding
            levels = np.where((values >= low) & (values <= high), 0.0, levels)
        return levels


def gray_levels(
    words: AnyArray, header: Header, options: ReadOptions, frame: int, note: Note | None
) -> Levels:
    """Convert words (H, W) of MONOCHROME1 or MONOCHROME2 to levels (H, W, 1)."""
    if words.dtype.kind == "f" and not np.isfinite(words).all():
        raise ImageError("the DICOM file has pixels that are NaN or infinite.")
    gray = _display_of(header, options, frame, words.dtype)
    limits = gray.strict or gray.declared
    if limits is not None and (gray.strict is not None or note is not None):
        values = gray.units(_extract(words, *gray.stored))
        if gray.strict is not None:
            check_values(values, gray.strict)
        elif note is not None:
            note(values, limits, scan=True)
    return _looked_up(words, gray.show)[:, :, np.newaxis]


def _looked_up(words: AnyArray, show: Callable[[AnyArray], AnyArray]) -> Levels:
    """Apply a function of single values; once for each value, if there are fewer than pixels."""
    if words.dtype.kind == "f":
        return as_levels(show(words))
    first, last = int(words.min()), int(words.max())
    if last - first >= words.size:
        return as_levels(show(words))
    table = show(np.arange(first, last + 1).astype(words.dtype))
    levels: Levels = np.rint(table).astype(np.uint8)
    fraction = np.abs(table - levels) > WHOLE
    if fraction.any() and any(fraction[index].any() for _, index in _indices(words, first)):
        levels = table.astype(np.float32)
    found: Levels = np.empty(words.shape, levels.dtype)
    for rows, index in _indices(words, first):
        # All are in range: "clip" omits a check.
        levels.take(index, out=found[rows], mode="clip")
    return found


def _indices(words: AnyArray, first: int) -> Iterator[tuple[slice, AnyArray]]:
    """Yield the places of words in a table, some rows at once: fresh memory is slow to write."""
    n_rows = max(1, _WORDS_AT_ONCE // words.shape[1])
    for start in range(0, len(words), n_rows):
        rows = slice(start, start + n_rows)
        index = words[rows].astype(np.intp)
        index -= first
        yield rows, index


def _extract(words: AnyArray, bits: int, lowest: int, signed: bool) -> AnyArray:
    """Return the stored values of words: `bits` bits from the bit `lowest` on."""
    if words.dtype.kind == "f":
        return words
    size = 8 * words.dtype.itemsize
    native = words.astype(words.dtype.newbyteorder("="), copy=False)
    if bits == size and (words.dtype.kind == "i") == signed:
        return native
    # The bits go to the top, which drops those above, and back, which copies the sign.
    kind = f"{'i' if signed else 'u'}{words.dtype.itemsize}"
    shifted = np.left_shift(native, size - bits - lowest).view(kind)
    extracted: AnyArray = np.right_shift(shifted, size - bits)
    return extracted


def _display_of(header: Header, options: ReadOptions, frame: int, dtype: np.dtype[Any]) -> Gray:
    size = 8 * dtype.itemsize
    signed = bool(header.integer(tags.SIGNED, 0))
    bits = header.integer(tags.BITS_STORED, size) or size
    bits = bits if 1 <= bits <= size else size
    lowest = (header.integer(tags.HIGH_BIT, bits - 1) or 0) + 1 - bits
    lowest = lowest if 0 <= lowest <= size - bits else 0
    if header.integer(tags.BITS_ALLOCATED) == 1:
        bits, lowest, signed = 1, 0, False
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    units, (low, high) = _modality(header, frame, (low, high))
    if dtype.kind == "f":
        low, high = 0.0, 1.0
    shown, limits = _voi(header, options, frame, (low, high))
    levels = _presentation(header, shown)
    strict = options.value_range
    declared = limits if strict is None and options.window is None else None
    padding = _padding(header, signed)
    return Gray((bits, lowest, signed), units, levels, padding, strict, declared)


def _modality(
    header: Header, frame: int, stored: ValueRange
) -> tuple[Callable[[AnyArray], AnyArray], ValueRange]:
    """Return the function from stored values to the scanner's units, and their range."""
    for item in header.items(tags.MODALITY_LUT)[:1]:
        table = read_table(item, signed=stored[0] < 0)
        if table is not None:
            return table.find, (0.0, table.white)
    place = header.of_frame(tags.SLOPE, frame)
    slope, intercept = place.number(tags.SLOPE), place.number(tags.INTERCEPT)
    if slope is None and header.text(tags.SOP_CLASS) == _DOSE:
        slope = header.number(tags.DOSE_SCALING)
    slope = 1.0 if not slope or not np.isfinite(slope) else slope
    intercept = 0.0 if intercept is None or not np.isfinite(intercept) else intercept
    ends = sorted(value * slope + intercept for value in stored)
    if slope == 1 and intercept == 0:
        return _unchanged, stored

    def rescale(values: AnyArray) -> AnyArray:
        return values.astype(np.float64) * slope + intercept

    return rescale, (ends[0], ends[1])


def _unchanged(values: AnyArray) -> AnyArray:
    return values


def _voi(
    header: Header, options: ReadOptions, frame: int, full: ValueRange
) -> tuple[Callable[[AnyArray], AnyArray], ValueRange | None]:
    """Return the function to levels; and the declared range, if no window is named."""
    if isinstance(options.window, str) and options.window in HOUNSFIELD:
        _refuse_other_units(header, frame, options.window)
    window = window_limits(options.window)
    if window is not None:
        return window.apply, None
    if options.value_range is not None:
        return Window(*options.value_range).apply, None
    found = None if options.window == FULL else _voi_of_file(header, frame, full)
    return (Window(*full).apply, full) if found is None else (found, None)


def _voi_of_file(
    header: Header, frame: int, full: ValueRange
) -> Callable[[AnyArray], AnyArray] | None:
    for item in header.items(tags.VOI_LUT)[:1]:
        table = read_table(item, signed=full[0] < 0)
        if table is not None:
            return lambda values: table.find(values) * (255 / table.white)
    place = header.of_frame(tags.CENTER, frame)
    center, width = place.number(tags.CENTER), place.number(tags.WIDTH)
    if center is None or width is None or not np.isfinite([center, width]).all():
        return None
    function = place.text(tags.VOI_FUNCTION) or "LINEAR"
    if function == "SIGMOID" and width > 0:
        return lambda values: 255 / (1 + np.exp((-4 * (values - center) / width).clip(-99, 99)))
    if function == "LINEAR_EXACT" and width > 0:
        return Window(center - width / 2, center + width / 2).apply
    return Window.of(center, width).apply if width >= 1 else None


def _refuse_other_units(header: Header, frame: int, name: str) -> None:
    """Reject a window of Hounsfield units for values that have other units."""
    kind = header.of_frame(tags.RESCALE_TYPE, frame).text(tags.RESCALE_TYPE)
    is_ct = header.text(tags.MODALITY) in ("CT", "") and kind in ("", "US")
    intercept = header.of_frame(tags.INTERCEPT, frame).number(tags.INTERCEPT)
    # Without either, the numbers are stored values.
    is_rescaled = intercept is not None or any(header.items(tags.MODALITY_LUT))
    if kind == "HU" or (is_ct and is_rescaled):
        return
    missing = "it has no RescaleIntercept" if is_ct else "it is no CT (Modality, RescaleType)"
    raise ImageError(
        f"window={name!r} is in Hounsfield units, which this DICOM file does not have: {missing}. "
        "Pass window=(center, width) in its own units, or None."
    )


def _presentation(
    header: Header, shown: Callable[[AnyArray], AnyArray]
) -> Callable[[AnyArray], AnyArray]:
    """Add the presentation table and the inversion to a function to levels."""
    tables = [read_table(item) for item in header.items(tags.PRESENTATION_LUT)[:1]]
    shape = header.text(tags.PRESENTATION_SHAPE)
    inverted = header.text(tags.PHOTOMETRIC) == "MONOCHROME1"
    if shape in ("IDENTITY", "INVERSE"):
        # MONOCHROME1 and INVERSE are one inversion, which such files name twice.
        inverted = shape == "INVERSE"
    table = tables[0] if tables else None

    def levels(values: AnyArray) -> AnyArray:
        found = shown(values)
        if table is not None:
            found = table.find(found * ((len(table.entries) - 1) / 255)) * (255 / table.white)
        return 255 - found if inverted else found

    return levels


def _padding(header: Header, signed: bool) -> tuple[float, float] | None:
    kind = "SS" if signed else "US"
    first = header.number(tags.PADDING, kind)
    if first is None:
        return None
    last = header.number(tags.PADDING_LIMIT, kind)
    last = first if last is None else last
    return min(first, last), max(first, last)


def read_table(item: Header, *, signed: bool = False) -> Table | None:
    """Return the lookup table of a sequence's item; None if it is incomplete.

    The first value of a table for signed values is signed, also where the file names no type, or
    the wrong one.
    """
    words: Any = item.words(tags.LUT_DESCRIPTOR) if tags.LUT_DESCRIPTOR in item else ()
    data = item.data(tags.LUT_DATA)
    if len(words) != 3 or not data:
        return None
    count, bits = int(words[0]) or 2**16, int(words[2])
    first = int(words[1])
    if first >= 2**15 and (signed or item.representation(tags.LUT_DESCRIPTOR) == "SS"):
        first -= 2**16
    wide = len(data) >= 2 * count or len(data) > count + 1
    entries = item.words(tags.LUT_DATA) if wide else np.frombuffer(data, np.uint8)
    if not 1 <= bits <= 16 or len(entries) < 1:
        return None
    return Table(entries[:count], first, bits)
