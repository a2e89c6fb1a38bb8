"""Geometry: resize and center crop of levels, bit for bit as torchvision.

The engine applies the arithmetic on values (scale, mean, std) to whole batches.
"""

import numpy as np
from PIL import Image

from .._preprocess import Preprocess
from .._typing import AnyArray, Levels
from ..exceptions import ImageError
from ._channels import not_of_network

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

# With `Preprocess.fast`, the decoder and means over whole blocks of pixels first reduce an image to
# at least this multiple of the target size.
FAST_GAP = 2.0
# Above this number of pixels (128 MiB in Pillow), only the crop of the resized picture is computed:
# a strip of 30000 x 10 pixels would become 768000 x 256 before its crop.
_MAX_RESIZED_PIXELS = 2**25


def resize_and_crop(pixels: Levels, preprocess: Preprocess) -> Levels:
    """Convert levels (H, W, C) to the size and channels that a backbone was trained on.

    1. RGB is converted to gray if one channel is wanted; of other channels, gray is the mean.
    2. The shorter side is resized to ``preprocess.resize``, the longer to
       ``int(resize * longer / shorter)``; or both sides, if (height, width) is given; or, with
       ``preprocess.border``, the side that fills the crop.
    3. The center is cropped, from ``round((height - crop_height) / 2)``; smaller images are
       padded with ``preprocess.fill``.
    4. Gray is repeated if three channels are wanted. Other numbers must be equal: `ImageError`.

    The result equals that of ``torchvision.transforms.v2`` and of torchvision's classification
    presets for a PIL image, bit for bit. (If the resized picture would have more than 2**25 pixels,
    only the crop is computed, and levels may differ by 1.) Levels in float32 are processed in the
    same way without rounding. With ``preprocess.fast``, images of at least twice the target size
    differ by a few levels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx._preprocess import Preprocess
    >>> from sklearn_featx.images._geometry import resize_and_crop
    >>> photo = np.zeros((480, 640, 3), dtype=np.uint8)
    >>> resize_and_crop(photo, Preprocess(resize=256, crop=(224, 224))).shape
    (224, 224, 3)
    """
    size = (pixels.shape[0], pixels.shape[1])
    wanted = preprocess.channels
    if pixels.shape[2] not in (1, 3, wanted):
        pixels = _mean_of_many(pixels, wanted)
    if resized_size(*size, preprocess) == size and pixels.shape[2] <= wanted:
        return _with_channels(_crop(pixels, preprocess), wanted)
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        return resize_picture(as_picture(pixels), preprocess)
    if pixels.shape[2] == 3 and wanted == 1:
        # Pillow's weights of mode L (ITU-R 601-2).
        pixels = pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)
    planes = [as_picture(pixels[:, :, i : i + 1]) for i in range(pixels.shape[2])]
    resized = np.concatenate([_resize(plane, preprocess) for plane in planes], axis=2)
    if resized.dtype != np.uint8:
        # Some filters overshoot; 8-bit pixels are clipped to black and white as well. Floats that
        # enter a network as they are may lie beyond these.
        resized = resized.clip(min(0, pixels.min()), max(255, pixels.max()))
    return _with_channels(_crop(resized, preprocess), wanted)


def _mean_of_many(pixels: Levels, wanted: int) -> Levels:
    """Return the mean of the channels, where one is wanted."""
    if wanted != 1:
        raise ImageError(not_of_network(pixels.shape[2], wanted))
    mean: Levels = pixels.mean(axis=2, dtype=np.float32, keepdims=True)
    return mean


def resize_picture(picture: Image.Image, preprocess: Preprocess) -> Levels:
    """Apply `resize_and_crop` to a Pillow image of mode L or RGB."""
    if picture.mode == "RGB" and preprocess.channels == 1:
        picture = picture.convert("L")
    pixels = _crop(_resize(picture, preprocess), preprocess)
    return _with_channels(pixels, preprocess.channels)


def _with_channels(pixels: Levels, channels: int) -> Levels:
    if pixels.shape[2] == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] != channels:
        raise ImageError(not_of_network(pixels.shape[2], channels))
    return np.ascontiguousarray(pixels)


def as_picture(pixels: AnyArray) -> Image.Image:
    """Convert uint8 (H, W, 1 or 3) to a Pillow image of mode L or RGB, float32 (H, W, 1) to F."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def as_pixels(picture: Image.Image) -> Levels:
    """Convert a Pillow image of mode L, F or RGB to levels (H, W, 1 or 3)."""
    pixels: Levels = np.asarray(picture)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def resized_size(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """Return (height, width) after the resize."""
    resize = preprocess.resize
    if preprocess.border and preprocess.crop is not None:
        share = min(preprocess.crop[0] / height, preprocess.crop[1] / width)
        return max(1, round(height * share)), max(1, round(width * share))
    if resize is None:
        return height, width
    if isinstance(resize, tuple):
        return resize
    # The same float division and truncation as in torchvision.
    longer = int(resize * max(height, width) / min(height, width))
    return (resize, longer) if height <= width else (longer, resize)


def seen_part(height: int, width: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """Return (top, left, bottom, right) of the part that the crop keeps, in pixels of the image.

    A crop that pads reaches beyond the image.
    """
    new = resized_size(height, width, preprocess)
    if preprocess.crop is None:
        return 0.0, 0.0, float(height), float(width)
    ends = []
    for old, size, wanted in zip((height, width), new, preprocess.crop, strict=True):
        first = _span(size, wanted)[0] if wanted < size else -((wanted - size) // 2)
        ends.append((first * old / size, (first + wanted) * old / size))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def _resize(picture: Image.Image, preprocess: Preprocess) -> Levels:
    """Resize a picture; if the result would be huge, compute only its crop."""
    old = (picture.height, picture.width)
    new = resized_size(*old, preprocess)
    if new == old:
        return as_pixels(picture)
    resample = _RESAMPLING[preprocess.interpolation]
    if preprocess.crop is not None and new[0] * new[1] > _MAX_RESIZED_PIXELS:
        return as_pixels(_resize_crop(picture, new, preprocess.crop, resample))
    gap = FAST_GAP if preprocess.fast else None
    return as_pixels(picture.resize(new[::-1], resample, reducing_gap=gap))


def _resize_crop(
    picture: Image.Image, new: tuple[int, int], crop: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    """Compute the center crop of a resize to `new` (height, width), rows before columns."""
    (top, height), (left, width) = map(_span, new, crop)
    down, across = picture.height / new[0], picture.width / new[1]
    rows = (left * across, 0, (left + width) * across, picture.height)
    picture = picture.resize((width, picture.height), resample, rows)
    columns = (0, top * down, width, (top + height) * down)
    return picture.resize((width, height), resample, columns)


def _span(size: int, wanted: int) -> tuple[int, int]:
    """Return (first, length) of the part of an axis that a center crop keeps."""
    return (0, size) if wanted >= size else (round((size - wanted) / 2.0), wanted)


def _crop(pixels: Levels, preprocess: Preprocess) -> Levels:
    crop = preprocess.crop
    if crop is None:
        return pixels
    missing = [max(0, wanted - size) for wanted, size in zip(crop, pixels.shape[:2], strict=True)]
    if any(missing):
        around = [(n // 2, (n + 1) // 2) for n in missing]
        pixels = np.pad(pixels, [*around, (0, 0)], constant_values=preprocess.fill)
    top, height = _span(pixels.shape[0], crop[0])
    left, width = _span(pixels.shape[1], crop[1])
    return pixels[top : top + height, left : left + width]
