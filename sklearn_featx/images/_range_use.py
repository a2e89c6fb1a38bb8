"""Use of defaults: the share of a declared range that images use, and unread frames.

The range that a type or file declares is usually correct, but wrong for a 12-bit camera that writes
16 bits. A low share is reported; it never changes the range.
"""

from typing import Any

from .._parallel import ForkSafeLock
from .._typing import AnyArray
from ._scaling import LEAST_SHARE, ValueRange


class RangeUse:
    """The smallest and largest value in each declared range, and unread frames; thread-safe.

    Images of an 8-bit type are not recorded: their range is always that of their type, and a dark
    photograph is none of another range. Wider integers from 0 to 16 are seldom a photograph.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx.images._range_use import RangeUse
    >>> use = RangeUse()
    >>> use(np.array([100, 4000], np.uint16), (0.0, 65535.0))
    >>> use.reports()
    ['values run from 100 to 4000 in all images seen, 6% of ...']
    >>> use.frames("GIF")
    >>> use.reports()
    ["a file (GIF) has several frames, of which the first was read. ..."]
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._seen: dict[tuple[ValueRange, bool], tuple[float, float]] = {}
        self._reported = False
        self._frames: str | None = None

    def frames(self, what: str) -> None:
        """Record that the first of several frames was read."""
        if self._frames is None:
            self._frames = what

    def __call__(self, values: AnyArray, declared: ValueRange, *, scan: bool = False) -> None:
        """Record the values of one image, or of one DICOM file."""
        if values.dtype.itemsize == 1:
            return
        smallest, largest = float(values.min()), float(values.max())
        with self._lock:
            key = declared, scan
            before = self._seen.get(key, (smallest, largest))
            self._seen[key] = (min(before[0], smallest), max(before[1], largest))

    def reports(self) -> list[str]:
        """Describe the defaults that may not be what the user wants, each once."""
        with self._lock:
            return [text for text in (self._of_frames(), self._of_range()) if text]

    def _of_frames(self) -> str | None:
        if not self._frames:
            return None
        what, self._frames = self._frames, ""
        return (
            f"a file ({what}) has several frames, of which the first was read. "
            "ImageReader(frames=0) confirms this; frames='all', with bag_pooling='mean', "
            "reads all of them."
        )

    def _of_range(self) -> str | None:
        if self._reported:
            return None
        for ((low, high), scan), (smallest, largest) in self._seen.items():
            share = (largest - smallest) / (high - low)
            # Images of a single value, such as black images, give no information.
            # Those of a smaller share look alike to a network.
            if 0 < share < LEAST_SHARE:
                self._reported = True
                return _report((low, high), (smallest, largest), share, scan=scan)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


def _report(declared: ValueRange, seen: ValueRange, share: float, *, scan: bool) -> str:
    (low, high), (smallest, largest) = declared, seen
    found = (
        f"values run from {smallest:g} to {largest:g} in all images seen, {share:.0%} of the range "
        f"{low:g} to {high:g} that their type or file declares: in this range they have little "
        "contrast. "
    )
    if scan:
        # A value range rejects the values of the next patient beyond it; a window clips them.
        return (
            f"{found}Pass reader=ImageReader(window='soft') for CT, or window=(center, width); "
            "window='full' confirms the range."
        )
    other_low, other_high = _other_reading(declared, seen)
    return (
        f"{found}If {other_low:g} is black and {other_high:g} is white, pass "
        f"reader=ImageReader(value_range=({other_low:g}, {other_high:g})); if not, "
        f"value_range=({low:g}, {high:g}) confirms the range."
    )


def _other_reading(declared: ValueRange, seen: ValueRange) -> ValueRange:
    """Return the range of the fewest bits that contains the values, or the values' own range."""
    (low, high), (smallest, largest) = declared, seen
    white = float(2 ** int(largest).bit_length() - 1)
    if low == 0 and 255 <= white < high and largest > white / 4:
        return 0.0, white
    return float(f"{smallest:.6g}"), float(f"{largest:.6g}")
