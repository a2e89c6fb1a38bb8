"""Use of a range: how much of the numbers from black to white a set of images has.

A range that follows from the type or from the file is right more often than any guess, and wrong
for a camera of 12 bits that writes 16. Nothing is changed by what is seen here: it is reported.
"""

from typing import Any

from .._parallel import ForkSafeLock
from .._typing import AnyArray
from ._scaling import ValueRange

# Below this share of the range, all images together look alike to a network.
_LEAST_SHARE = 0.25


class RangeUse:
    """Smallest and largest value seen, by the range that was declared for them; thread-safe.

    Images of 8 bits are left out: their range is their type's by a convention without exceptions.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx.images._range_use import RangeUse
    >>> use = RangeUse()
    >>> use.note(np.array([100, 4000], np.uint16), (0.0, 65535.0))
    >>> use.report()
    'values run from 100 to 4000 in all images seen, 6% of ... pass value_range=(0, 4095)...'
    >>> use.report()
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._seen: dict[ValueRange, tuple[float, float]] = {}
        self._reported = False

    def note(self, values: AnyArray, declared: ValueRange) -> None:
        """Note the values of one image."""
        if values.dtype.kind != "f" and declared[1] <= 255:
            return
        smallest, largest = float(values.min()), float(values.max())
        with self._lock:
            before = self._seen.get(declared, (smallest, largest))
            self._seen[declared] = (min(before[0], smallest), max(before[1], largest))

    def report(self) -> str | None:
        """Describe a range that is used to less than a quarter; once, and else None."""
        with self._lock:
            if self._reported:
                return None
            for (low, high), (smallest, largest) in self._seen.items():
                share = (largest - smallest) / (high - low)
                # Images of one value, black ones among them, say nothing about the range.
                if 0 < share < _LEAST_SHARE:
                    self._reported = True
                    return _report((low, high), (smallest, largest), share)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


def _report(declared: ValueRange, seen: ValueRange, share: float) -> str:
    (low, high), (smallest, largest) = declared, seen
    other_low, other_high = _other_reading(declared, seen)
    return (
        f"values run from {smallest:g} to {largest:g} in all images seen, {share:.0%} of the range "
        f"{low:g} to {high:g} that their type or file declares: read so, they have little "
        f"contrast. If {other_low:g} is black and {other_high:g} is white, pass "
        f"reader=ImageReader(value_range=({other_low:g}, {other_high:g})); if not, "
        f"value_range=({low:g}, {high:g}) says so."
    )


def _other_reading(declared: ValueRange, seen: ValueRange) -> ValueRange:
    """Return the range of fewer bits that holds the values; else the values' own."""
    (low, high), (smallest, largest) = declared, seen
    white = float(2 ** int(largest).bit_length() - 1)
    if low == 0 and 255 <= white < high and largest > white / 4:
        return 0.0, white
    return float(f"{smallest:.6g}"), float(f"{largest:.6g}")
