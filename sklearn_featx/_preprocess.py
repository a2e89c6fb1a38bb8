"""The preprocessing of a backbone as plain data: geometry, mean and standard deviation.

`images` applies the geometry (resize, crop) to decoded pixels; the engine applies the arithmetic
(scale, mean, std) to whole batches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Self

import numpy as np

from ._digest import digest
from ._messages import shown
from .exceptions import InputError

# The words of timm, for the geometry between the image and the network.
CropMode = Literal["center", "squash", "border"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
# Beyond it, memory ends before an error is raised.
_MOST_PIXELS = 2**26


@dataclass(frozen=True)
class Preprocess:
    """The steps from an image to the tensor that a backbone was trained on.

    Parameters
    ----------
    resize : int or (int, int), default=None
        Length of the shorter side in pixels, or (height, width). None: no resizing.
    crop : (int, int), default=None
        (height, width) of the center crop in pixels. None: no cropping.
    interpolation : str, default="bilinear"
        Resampling filter of the resize, with antialiasing.
    channels : int, default=3
        1 for a grayscale backbone, 3 for RGB; others read no pictures.
    mean, std : tuple of float, default=None
        Per channel, on the scale where pixels run from 0 to 1. None: not applied.
    border : bool, default=False
        Whether an image is resized to fit into `crop`, and the rest is filled with the mean gray;
        `resize` is None.
    fast : bool, default=False
        Whether large images may be reduced by a faster method with nearly the same pixels.

    Examples
    --------
    >>> from sklearn_featx._preprocess import Preprocess
    >>> larger = Preprocess(resize=256, crop=(224, 224)).with_image_size(320)
    >>> larger.resize, larger.crop
    (366, (320, 320))
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    border: bool = False
    fast: bool = False

    @property
    def fill(self) -> int:
        """Level of the padding: black, or with a border the mean gray."""
        if not self.border or self.mean is None:
            return 0
        return round(255 * sum(self.mean) / len(self.mean))

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of every preprocessed image; None if it varies with the image."""
        if self.crop is not None:
            return self.crop
        return self.resize if isinstance(self.resize, tuple) else None

    @property
    def digest(self) -> str:
        """Digest of every field."""
        return digest(*(repr(getattr(self, field.name)) for field in fields(self)))

    def with_image_size(self, size: int | Sequence[int]) -> Self:
        """Return the same preprocessing for another image size.

        Parameters
        ----------
        size : int or (int, int)
            Side, or (height, width), of the backbone's input, in pixels. The crop keeps its share
            of the image; preprocessing without a crop resizes to `size`.
        """
        height, width = checked_size(size)
        if self.crop is None or not isinstance(self.resize, int):
            return replace(self, resize=(height, width), crop=None)
        kept = min(self.crop) / self.resize
        # Rounded to nearest: 224 of 256 at 320 is 365.7, and cropping needs at least 320.
        shorter = max(round(min(height, width) / kept), height, width)
        return replace(self, resize=shorter, crop=(height, width))

    def with_crop_mode(self, mode: CropMode) -> Self:
        """Return the same preprocessing with another geometry.

        Parameters
        ----------
        mode : {"center", "squash", "border"}
            "center": this one. "squash": both sides are resized to those of the output. "border":
            the image is resized to fit into the output.
        """
        if mode == "center":
            return self
        size = self.output_size
        if size is None:
            raise InputError(
                f"crop_mode={mode!r} needs the size of the network's input. Pass image_size=."
            )
        if mode == "squash":
            return replace(self, resize=size, crop=None)
        return replace(self, resize=None, crop=size, border=True)

    def with_channels(self, channels: int) -> Self:
        """Return the same preprocessing for other channels, which get the mean over the colors.

        Parameters
        ----------
        channels : int
            Number of channels of the network's input.
        """
        if channels == self.channels or self.mean is None or self.std is None:
            return replace(self, channels=channels)
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, channels=channels, mean=(mean,) * channels, std=(std,) * channels)


def checked_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of `image_size`; raise `InputError` if it is no size."""
    sides = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(sides) != 2 or not all(isinstance(s, int | np.integer) and s >= 1 for s in sides):
        raise InputError(
            f"image_size={shown(size)}: expected a side or (height, width), in pixels."
        )
    if math.prod(map(int, sides)) > _MOST_PIXELS:
        raise InputError(
            f"image_size={shown(size)}: more than {_MOST_PIXELS:,} pixels, for which there is no "
            "network. Networks were trained at about 224."
        )
    return int(sides[0]), int(sides[1])
