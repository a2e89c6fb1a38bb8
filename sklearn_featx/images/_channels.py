"""Channels: which channels of an image enter the network.

=========  ========================================================================
channels   an image is
=========  ========================================================================
"rgb"      a picture: gray, RGB, or one of these with alpha as its last channel
[i, j, k]  these channels, in this order, whatever they show; none of them is alpha
"each"     each of its channels, as a gray image of its own
=========  ========================================================================

Channels have numbers from 0, in the order of the array or file.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from .._messages import shown
from .._typing import AnyArray
from ..exceptions import ImageError, InputError

Channels: TypeAlias = Literal["rgb", "each"] | tuple[int, ...]

# What to do about an image that is no picture.
CHOOSE_CHANNELS = (
    "reader=ImageReader(channels='each'), or the numbers of three or one, channels=[0, 1, 2]"
)


def check_channels(channels: Any) -> Channels:
    """Return `channels`, a list as a tuple; raise `InputError` if it chooses no channels."""
    if isinstance(channels, str) and channels in ("rgb", "each"):
        return "each" if channels == "each" else "rgb"
    if isinstance(channels, Sequence | np.ndarray) and not isinstance(channels, str | bytes):
        numbers = list(channels)
        if numbers and all(_is_number(number) for number in numbers):
            return tuple(int(number) for number in numbers)
    raise InputError(
        f"channels={shown(channels)}: expected 'rgb', 'each', or the numbers of channels, from 0: "
        "[0, 2, 4], or [1] for a gray image."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 0


def picked(values: AnyArray, channels: tuple[int, ...], *, exact: bool = False) -> AnyArray:
    """Return some channels of values (..., C), as a view where that is possible.

    Parameters
    ----------
    values : ndarray of shape (..., C)
        Channels last.
    channels : tuple of int
        Their numbers.
    exact : bool, default=False
        Whether the values must have exactly these channels: those of a network.

    Raises
    ------
    ImageError
        If the values lack one of them.
    """
    n_channels = values.shape[-1]
    if exact and n_channels != len(channels):
        raise ImageError(not_of_network(n_channels, len(channels)))
    if max(channels) >= n_channels:
        raise ImageError(
            f"{_has(n_channels)}, numbered from 0, and channels={shown(list(channels))} asks for "
            f"{max(channels)}."
        )
    step = channels[1] - channels[0] if len(channels) > 1 else 1
    regular = range(channels[0], channels[-1] + 1, step) if step > 0 else ()
    if tuple(regular) == channels:
        return values[..., channels[0] : channels[-1] + 1 : step]
    return values[..., list(channels)]


def not_of_network(n_channels: int, n_wanted: int) -> str:
    """Return the reason why a network of many channels refuses an image."""
    return (
        f"{_has(n_channels)}, and the network reads {n_wanted}. Pass images of {n_wanted}, choose "
        f"as many with reader=ImageReader(channels=[...]), or take a network of {n_channels}."
    )


def _has(n_channels: int) -> str:
    return f"the image has {n_channels} channel{'s' if n_channels != 1 else ''}"
