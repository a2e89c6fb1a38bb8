"""Appearance: conversion of a Pillow image of any mode to gray or RGB levels, as displayed.

1. Values of more than 8 bits, or with a given range, are scaled to levels (see `_scaling`).
2. Transparency of every kind is composited over white.
3. Other color spaces are converted to RGB; gray keeps one channel.
4. The EXIF orientation is applied.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from .._typing import AnyArray, Levels, Pixels
from ..exceptions import ImageError
from ._declared import declared_range, white_is_zero
from ._geometry import as_picture, as_pixels
from ._scaling import Note, ValueRange, effective_range, over_white, to_shown
from ._window import Window

_EXIF_ORIENTATION = 0x0112
_GRAY_MODES = ("1", "L", "LA", "La")
_WITH_ALPHA = ("LA", "RGBA")

# EXIF 2.32, tag 274: the transposition that displays the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_plain(image: Image.Image, value_range: ValueRange | None = None) -> bool:
    """Whether a picture has 8 bits, with 0 as black and 255 as white."""
    if image.mode.startswith("I") or image.mode == "F":
        return False
    if isinstance(value_range, Window):
        # A picture of 8 bits shows a window already.
        return True
    return value_range in (None, (0.0, 255.0)) or image.mode == "1"


def as_seen(image: Image.Image) -> Image.Image:
    """Convert a loaded plain picture to its appearance, of mode L or RGB.

    The result may be the picture itself. Raises `ImageError` if LAB cannot be converted because
    ImageCms is missing.
    """
    method = _UPRIGHT.get(_orientation(image))
    picture = _opaque(image)
    return picture if method is None else picture.transpose(method)


def picture_to_levels(
    image: Image.Image, value_range: ValueRange | None = None, note: Note | None = None
) -> Levels:
    """Convert a loaded picture to levels (H, W, C): C is 1 for gray images and 3 for RGB.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture.
    value_range : (float, float), default=None
        Values of black and white. None: the range that its type or file declares.
    note : callable, default=None
        Called with the values and their range if the range is the declared one.
    """
    if is_plain(image, value_range):
        return as_pixels(as_seen(image))
    if image.mode.startswith("I") or image.mode == "F":
        levels = _deep_gray(image, value_range, note)
    else:
        levels = _shallow(image, value_range)
    return np.ascontiguousarray(_turned(levels, _orientation(image)))


def picture_to_bands(
    image: Image.Image,
    pick: Callable[[AnyArray], AnyArray],
    value_range: ValueRange | None = None,
    note: Note | None = None,
) -> Levels:
    """Convert channels of a loaded picture of any mode to levels (H, W, C).

    Alpha in a channel of its own is a channel like the others. Other pictures have the channels of
    their appearance, gray or RGB.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture.
    pick : callable
        Returns the wanted channels of values (H, W, C).
    value_range, note
        As in `picture_to_levels`.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return np.ascontiguousarray(pick(picture_to_levels(image, value_range, note)))
    stored = np.asarray(image) if image.mode in _WITH_ALPHA else as_pixels(_opaque(image))
    numbers = pick(stored)
    if not is_plain(image, value_range):
        numbers = to_shown(numbers, effective_range(numbers.dtype, value_range), bands=True)
    return np.ascontiguousarray(_turned(numbers, _orientation(image)))


def n_bands(image: Image.Image) -> int:
    """Return the number of channels of an opened picture, as `picture_to_bands` counts them."""
    if image.mode in _WITH_ALPHA:
        return len(image.getbands())
    is_gray = image.mode in ("1", "L", "La", "F") or image.mode.startswith("I")
    return 1 if is_gray else 3


def refuse_reduced(image: Image.Image, value_range: ValueRange | None) -> None:
    """Reject `value_range` if Pillow reduces 16 bits to 8; `image` is opened but not loaded."""
    stored = str(getattr(image, "tile", ""))
    if (
        value_range is None
        or isinstance(value_range, Window)
        or image.mode.startswith("I")
        or ";16" not in stored
    ):
        return
    raise ImageError(
        f"value_range={value_range}: Pillow reads 8 of this file's 16 bits per channel (mode "
        f"{image.mode}). Read it with another library, and pass arrays."
    )


def _orientation(image: Image.Image) -> Any:
    """Return the EXIF orientation; 1 (upright) if the EXIF block is damaged."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Warning:
        raise
    except Exception:
        # Pillow raises errors of many types for damaged blocks.
        return 1


def _opaque(image: Image.Image) -> Image.Image:
    # Transparency by mode, by one transparent color, or by a palette with alpha.
    if image.has_transparency_data:
        return as_picture(_over_white(image))
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in _GRAY_MODES:
        return image.convert("L")
    return _lab_to_rgb(image) if image.mode == "LAB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Levels:
    mode = "LA" if image.mode in _GRAY_MODES else "RGBA"
    pixels: Pixels = np.asarray(image.convert(mode))
    return over_white(pixels[:, :, :-1], pixels[:, :, -1:])


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    try:
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    except ImportError as error:
        raise ImageError(
            "a LAB image needs a Pillow with LittleCMS (PIL.ImageCms) to become RGB."
        ) from error
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # None only with inPlace=True
    return converted


def _shallow(image: Image.Image, value_range: ValueRange | None) -> Levels:
    """Scale a picture of 8 bits; the range is that of the numbers in the file."""
    numbers = _numbers(image)
    limits = effective_range(numbers.dtype, value_range)
    if image.mode == "L" and white_is_zero(image):
        # Pillow has inverted it.
        return 255 - to_shown(255 - numbers, limits)
    return to_shown(numbers, limits)


def _deep_gray(image: Image.Image, value_range: ValueRange | None, note: Note | None) -> Levels:
    values = np.asarray(image)
    limits = declared_range(image) if value_range is None else value_range
    levels = to_shown(values[:, :, np.newaxis], limits, note if value_range is None else None)
    if white_is_zero(image):
        levels = 255 - levels
    hidden = image.info.get("transparency")
    if not isinstance(hidden, int):
        return levels
    alpha = np.where(values == hidden, 0, 255).astype(np.uint8)
    return over_white(levels, alpha[:, :, np.newaxis])


def _numbers(image: Image.Image) -> AnyArray:
    """Return an 8-bit picture as an array (H, W, C), with its alpha channel if it has one."""
    if image.has_transparency_data:
        return np.asarray(image.convert("LA" if image.mode in _GRAY_MODES else "RGBA"))
    return as_pixels(_opaque(image))


def _turned(levels: Levels, orientation: Any) -> Levels:
    """Apply an EXIF orientation to levels, as `_UPRIGHT` does to a picture."""
    if orientation in (5, 6, 7, 8):
        levels = levels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        levels = levels[::-1]
    if orientation in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    return levels
