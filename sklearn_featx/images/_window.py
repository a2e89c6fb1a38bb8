"""Windows: the part of a scanner's values that is displayed from black to white.

A window clips, where a value range rejects. Its function is LINEAR of DICOM PS3.3, C.11.2.1.2.1,
which every viewer uses: values up to ``center - 0.5 - (width - 1) / 2`` are black, values above
``center - 0.5 + (width - 1) / 2`` white.
"""

import math
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np

from .._messages import shown
from .._typing import AnyArray
from ..exceptions import ImageError, InputError

# A name, or (center, width).
WindowOption: TypeAlias = str | tuple[float, float]

# Center and width in Hounsfield units, as usual in radiology (radiopaedia.org, "Windowing (CT)").
HOUNSFIELD = {
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "soft": (40.0, 400.0),
}
# All values that the file can store, whatever window it names.
FULL: Literal["full"] = "full"


class Window(NamedTuple):
    """The values of black and white of a window; values beyond them are clipped.

    Parameters
    ----------
    low, high : float
        The largest black and the smallest white value.
    """

    low: float
    high: float

    @classmethod
    def of(cls, center: float, width: float) -> Self:
        """Return the window of a center and a width of at least 1."""
        half = (width - 1) / 2
        return cls(center - 0.5 - half, center - 0.5 + half)

    def apply(self, values: AnyArray) -> AnyArray:
        """Return levels from 0 to 255 in float64."""
        wide = values.astype(np.float64)
        if self.high <= self.low:
            return np.where(wide > self.high, 255.0, 0.0)
        return (wide.clip(self.low, self.high) - self.low) * (255 / (self.high - self.low))


class HounsfieldWindow(Window):
    """A window of a name, which has a meaning in Hounsfield units only: air is at -1000.

    Examples
    --------
    >>> from sklearn_featx.images._window import window_limits
    >>> window_limits("brain").name
    'brain'
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name."""
        return next(name for name in HOUNSFIELD if self == HounsfieldWindow.of(*HOUNSFIELD[name]))

    def may_be_units_of(self, values: AnyArray) -> bool:
        """Whether finite values may be Hounsfield units: 0 to 1 are those of a picture."""
        if values.dtype.kind == "f":
            smallest, largest = values.min(), values.max()
            # An image of one value says nothing: the margin of a volume may be all 0.
            return not 0 <= smallest < largest <= 1
        return values.dtype.kind == "i"

    def refusal(self, what: str) -> ImageError:
        """Return the error of an image without these units; `what` names it."""
        return ImageError(
            f"window={self.name!r} is in Hounsfield units, which {what} does not have. Pass "
            "window=(center, width) in its own units, or None."
        )


def refuse_file_without_units(limits: tuple[float, float] | None, kind: str) -> None:
    """Raise `ImageError` if a window is in Hounsfield units, and a file of a kind has none."""
    if isinstance(limits, HounsfieldWindow):
        raise limits.refusal(f"a file of this format ({kind})")


def check_window(window: Any) -> WindowOption | None:
    """Return a valid `window`; raise `InputError` otherwise."""
    if window is None or (isinstance(window, str) and window in (*HOUNSFIELD, FULL)):
        return window
    if not isinstance(window, str):
        try:
            center, width = (float(number) for number in window)
        except (TypeError, ValueError):
            center = width = math.nan
        if math.isfinite(center) and 1 <= width < math.inf:
            return center, width
    raise InputError(
        f"window={shown(window)} is no window: expected (center, width) with a width of at least "
        f"1, or one of {', '.join(map(repr, (*HOUNSFIELD, FULL)))}. For values from 0 to 1, pass "
        "value_range=(low, high)."
    )


def window_limits(window: WindowOption | None) -> Window | None:
    """Return the window of a checked option; None if it names no values."""
    if window is None or window == FULL:
        return None
    if isinstance(window, str):
        return HounsfieldWindow.of(*HOUNSFIELD[window])
    return Window.of(*window)
