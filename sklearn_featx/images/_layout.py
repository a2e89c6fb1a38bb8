"""Layouts: the meaning of an array's axes (height, width, channels).

An item with two axes is HW. An item with three axes is HWC if the last axis may contain channels,
CHW if the first may. If both may, `image_shape` decides, or an error asks for it.

- Pictures: an axis of length 1, 3 or 4 may contain channels (gray, RGB, RGBA). RGBA usually has its
  channels last: four channels first need an `image_shape`, or a choice of channels.
- Other images (see `_channels`): the axis that is shorter than both others, unless it would be
  unclear in a picture; for a network of a certain number of channels, the axis of this length.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from .._messages import shown
from .._typing import AnyArray
from ..exceptions import ImageError, InputError
from ._channels import CHOOSE_CHANNELS

Layout: TypeAlias = Literal["HW", "HWC", "CHW"]
ImageShape: TypeAlias = tuple[int, ...]

_OF_PICTURES = (1, 3, 4)


def check_image_shape(image_shape: Any) -> ImageShape | None:
    """Return `image_shape` as a tuple of int; raise `InputError` if it is no image's shape."""
    if image_shape is None:
        return None
    if isinstance(image_shape, Sequence | np.ndarray) and not isinstance(image_shape, str | bytes):
        lengths = list(image_shape)
        if all(isinstance(n, int | np.integer) for n in lengths):
            shape = tuple(int(n) for n in lengths)
            if _is_possible(shape):
                return shape
    raise InputError(
        f"image_shape={shown(image_shape)} is not the shape of an image: expected (height, width), "
        "(height, width, channels) or (channels, height, width), or (1, -1) for rows of plain "
        "numbers."
    )


def _is_possible(shape: ImageShape) -> bool:
    if len(shape) == 2 and shape[1] == -1:
        return shape[0] >= 1
    return len(shape) in (2, 3) and all(n >= 1 for n in shape)


def _of_picture(shape: Sequence[int]) -> list[Layout]:
    """Return the possible layouts of a picture with three axes, channels last before first."""
    found: list[Layout] = []
    if shape[2] in _OF_PICTURES:
        found.append("HWC")
    if shape[0] in _OF_PICTURES and not (shape[0] == 4 and found):
        found.append("CHW")
    return found


def _of_bands(shape: Sequence[int], n_channels: int | None) -> list[Layout]:
    """Return the possible layouts of an image of any number of channels, or of a certain one."""
    both: dict[Layout, int] = {"HWC": 2, "CHW": 0}
    if n_channels is not None:
        return [layout for layout, axis in both.items() if shape[axis] == n_channels]
    shortest = min(shape)
    if sorted(shape)[1] == shortest or len(_of_picture(shape)) > 1:
        return []
    return [layout for layout, axis in both.items() if shape[axis] == shortest]


def spatial(shape: Sequence[int], layout: Layout) -> tuple[int, int]:
    """Return (height, width) of an item of this shape and layout."""
    height, width = shape[1:] if layout == "CHW" else shape[:2]
    return height, width


def choose_layout(
    shape: Sequence[int],
    image_shape: ImageShape | None = None,
    *,
    bands: bool = False,
    n_channels: int | None = None,
) -> Layout:
    """Return the layout of one item, from its shape and the user's `image_shape`.

    `bands`: it may have any number of channels, or exactly `n_channels`. Raises `ImageError` if no
    layout or several layouts fit.
    """
    shape = tuple(shape)
    if 0 in shape:
        raise ImageError(f"an image of shape {shape} has no pixels.")
    if len(shape) == 2:
        return _checked_against(shape, ["HW"], image_shape)
    if len(shape) != 3:
        raise ImageError(
            f"an image has 2 or 3 axes, (height, width[, channels]), but this has {len(shape)}: "
            f"shape {shape}. Give one item per image."
        )
    if bands:
        return _layout_of_bands(shape, image_shape, n_channels)
    readings = _of_picture(shape)
    if not readings:
        raise ImageError(
            f"an image of shape {shape} has no axis of 1, 3 or 4 channels, neither last (HWC) nor "
            f"first (CHW). Say which channels are read: {CHOOSE_CHANNELS}. Of slices, pass "
            "list(array), with bag_pooling='mean'."
        )
    layout = _checked_against(shape, readings, image_shape)
    if layout == "CHW" and shape[0] == 4 and image_shape is None:
        raise ImageError(
            f"an image of shape {shape} has four channels first, which are RGBA or others. Say "
            f"which are read: {CHOOSE_CHANNELS}; or image_shape={shape} for RGBA."
        )
    return layout


def _layout_of_bands(
    shape: tuple[int, ...], image_shape: ImageShape | None, n_channels: int | None
) -> Layout:
    readings = _of_bands(shape, n_channels)
    if n_channels is not None and not readings:
        raise ImageError(
            f"an image of shape {shape} has no axis of {n_channels} channels, which the network "
            "reads. Choose as many: reader=ImageReader(channels=[...])."
        )
    if image_shape is not None:
        both: list[Layout] = ["HWC", "CHW"]
        agreeing = [layout for layout in both if _agrees(shape, layout, image_shape)]
        # A shape of three numbers may name either axis.
        readings = [layout for layout in agreeing if layout in readings] or agreeing
        if not readings:
            raise ImageError(f"an image of shape {shape} does not match image_shape={image_shape}.")
    if len(readings) == 1:
        return readings[0]
    raise ImageError(
        f"the layout of shape {shape} is unclear: its channels may be the last axis or the first. "
        f"Pass reader=ImageReader(image_shape={shape[:2]}) for channels last or "
        f"image_shape={shape[1:]} for channels first."
    )


def _checked_against(
    shape: tuple[int, ...], readings: list[Layout], image_shape: ImageShape | None
) -> Layout:
    """Return the only possible layout that agrees with `image_shape`."""
    fitting = [layout for layout in readings if _agrees(shape, layout, image_shape)]
    if not fitting:
        raise ImageError(f"an image of shape {shape} does not match image_shape={image_shape}.")
    same_thing = shape == (1, 1, 1)
    said_in_full = image_shape is not None and len(image_shape) == 3
    if len(fitting) > 1 and not (same_thing or said_in_full):
        last, first = (spatial(shape, layout) for layout in ("HWC", "CHW"))
        ways = f"image_shape={last}) for channels last or image_shape={first} for channels first."
        if last == first:
            ways = f"image_shape={shape}), which means channels last; move others there first."
        raise ImageError(
            f"the layout of shape {shape} is ambiguous: its channels may be the last axis or the "
            f"first. Pass reader=ImageReader({ways}"
        )
    return fitting[0]


def _agrees(shape: tuple[int, ...], layout: Layout, image_shape: ImageShape | None) -> bool:
    if image_shape is None:
        return True
    here = spatial(shape, layout)
    if len(image_shape) == 2:
        return here == image_shape
    # `image_shape` may be (H, W, C) or (C, H, W); an item without a channel axis has one channel.
    channels = 1 if layout == "HW" else shape[2] if layout == "HWC" else shape[0]
    return image_shape in ((*here, channels), (channels, *here))


def as_channels_last(item: AnyArray, layout: Layout) -> AnyArray:
    """Return a view of an item as (H, W, C)."""
    if layout == "HW":
        return item[:, :, np.newaxis]
    return np.moveaxis(item, 0, 2) if layout == "CHW" else item
