"""Appearance: a loaded Pillow image of any mode becomes grey or RGB of 8 bits, as a person sees it.

1. Grey of more than 8 bits is scaled to 8 (see `_grey_levels`).
2. Transparency, wherever it is stated, is composited over white.
3. Other colour spaces become RGB; grey stays one channel.
4. The picture is turned upright as its EXIF orientation says.
"""

from typing import Any

import numpy as np
from PIL import Image

from .._typing import AnyArray, Pixels
from ..exceptions import ImageError
from ._geometry import as_picture, as_pixels
from ._scaling import over_white

_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_GREY_MODES = ("1", "L", "LA", "La")

# EXIF 2.32, tag 274: what turns the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def as_seen(image: Image.Image) -> Image.Image:
    """Return a loaded picture as a person sees it, of mode L or RGB; it may be the picture itself.

    `ImageError` if the values are not finite, or LAB is to be converted without ImageCms.
    """
    turn = _UPRIGHT.get(_orientation(image))
    picture = _opaque(image)
    return picture if turn is None else picture.transpose(turn)


def picture_to_pixels(image: Image.Image) -> Pixels:
    """Return what `as_seen` does as pixels (H, W, C): C is 1 for grey images and 3 for RGB."""
    return as_pixels(as_seen(image))


def _orientation(image: Image.Image) -> Any:
    """Return the EXIF orientation; a damaged EXIF block does not make a picture unreadable."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Warning:
        raise
    except Exception:
        return 1


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return as_picture(_deep_grey(image))
    # By mode, by one transparent colour, or by a palette with alpha.
    if image.has_transparency_data:
        return as_picture(_over_white(image))
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in _GREY_MODES:
        return image.convert("L")
    return _lab_to_rgb(image) if image.mode == "LAB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Pixels:
    mode = "LA" if image.mode in _GREY_MODES else "RGBA"
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


def _deep_grey(image: Image.Image) -> Pixels:
    values = np.asarray(image)
    levels = _grey_levels(image, values)[:, :, np.newaxis]
    hidden = image.info.get("transparency")
    if not isinstance(hidden, int):
        return levels
    alpha = np.where(values == hidden, 0, 255).astype(np.uint8)
    return over_white(levels, alpha[:, :, np.newaxis])


def _grey_levels(image: Image.Image, values: AnyArray) -> Pixels:
    """Scale grey values of more than 8 bits to 0..255, rounded to nearest."""
    if not np.isfinite(values).all():
        raise ImageError("the picture contains NaN or infinity.")
    low, high = _black_and_white(image, values)
    # One level alone, neither black nor white: shown as black.
    span = high - low if high > low else np.inf
    if values.dtype.itemsize == 2 and values.size > 2**16:
        # More pixels than values of 16 bits: each value is scaled once.
        return _levels(np.arange(int(values.max()) + 1), low, span)[values]
    return _levels(values, low, span)


def _levels(values: AnyArray, low: float, span: float) -> Pixels:
    levels: Pixels = np.rint((values.astype(np.float64) - low) * 255 / span).astype(np.uint8)
    return levels


def _black_and_white(image: Image.Image, values: AnyArray) -> tuple[float, float]:
    """Decide which values are shown as black and as white.

    ==========================================  ==================================
    picture                                     black, white
    ==========================================  ==================================
    16-bit grey, TIFF of 9 to 15 bits           0, the largest value of its bits
    16-bit grey, TIFF with no value over 4095   0, 4095: 12 bits in a 16-bit file
    16-bit grey otherwise; int from PNG, PPM    0, 65535
    int within 0..255                           0, 255
    int within 0..65535                         0, 65535
    float within 0..1                           0, 1
    any other int or float                      smallest value, largest value
    ==========================================  ==================================
    """
    smallest, largest = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        return 0.0, _sixteen_bit_white(image, largest)
    if image.mode == "F":
        return (0.0, 1.0) if smallest >= 0 and largest <= 1 else (smallest, largest)
    if smallest < 0 or largest > 65535:
        return smallest, largest
    # Pillow reads 16-bit PNG (before 10.3) and PPM files as 32-bit integers on a 16-bit scale.
    from_file = image.format in ("PNG", "PPM")
    return 0.0, 255.0 if largest <= 255 and not from_file else 65535.0


def _sixteen_bit_white(image: Image.Image, largest: float) -> float:
    if image.format != "TIFF":
        return 65535.0
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0]
    if 8 < bits < 16:
        return float(2**bits - 1)
    return 4095.0 if largest <= 4095 else 65535.0
