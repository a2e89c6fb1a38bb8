"""Pillow's resize, compiled: the same levels in a fraction of the time, where numba is installed.

Pillow weighs neighbouring pixels by whole numbers and rounds after rows and after columns. Whole
numbers give the same sum in every order, hence on every processor and in vectors of any length.
"""

import functools
import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from .._typing import AnyArray, FloatArray, Pixels

# To import numba and to load what it compiled takes half a second (the first time, when it
# compiles, two to three), about as much as is saved on this many pixels read and written: some
# eight hundred photographs of 500 x 375, or sixteen of 12 megapixels.
_LOADED_AFTER = 200_000_000
# How many bits of a weight are after the point, as in Pillow.
WEIGHT_BITS = 22
# At a time, so that no second picture is in memory beside a large one.
_COPIED_PIXELS = 2**18
# Of an axis; 1,024 such axes are remembered.
_MOST_WEIGHTS = 2**16
# Closer to a half, Pillow's own fractions might be rounded to the other side.
_DOUBT = 1e-6


def _triangle(distance: FloatArray) -> FloatArray:
    return np.maximum(1 - distance, 0)


def _cubic(distance: FloatArray) -> FloatArray:
    """Keys' kernel with a = -1/2 (Keys, 1981), as Pillow's."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))


_FILTERS: dict[Image.Resampling, tuple[Callable[[FloatArray], FloatArray], int]] = {
    Image.Resampling.BILINEAR: (_triangle, 1),
    Image.Resampling.BICUBIC: (_cubic, 2),
}


class Taps(NamedTuple):
    """Which pixels of an axis each of the wanted ones is made of.

    Parameters
    ----------
    starts : ndarray of shape (n,), dtype int64
        The first of them.
    weights : ndarray of shape (n, n_taps), dtype int32
        Their weights, on a scale of ``2**WEIGHT_BITS``.
    """

    starts: AnyArray
    weights: AnyArray

    @property
    def taken(self) -> tuple[int, int]:
        """The first pixel that is weighed, and the one after the last."""
        return int(self.starts[0]), int(self.starts[-1]) + self.weights.shape[1]


@functools.lru_cache(maxsize=1024)
def find_taps(
    old: int, new: int, first: int, length: int, resample: Image.Resampling
) -> Taps | None:
    """Return Pillow's weights for a part of an axis that is resized.

    Parameters
    ----------
    old, new : int
        Length of the axis before and after.
    first, length : int
        The part of the new axis.
    resample : PIL.Image.Resampling
        BILINEAR or BICUBIC.

    Returns
    -------
    taps : Taps or None
        None where the last bit of a processor's fractions could decide how a weight is rounded,
        and for axes that shrink by so much that their weights take as much memory as a picture.
    """
    weight, radius = _FILTERS[resample]
    scale = old / new
    stretch = max(scale, 1.0)
    n_taps = min(math.ceil(2 * radius * stretch), old)
    if length * n_taps > _MOST_WEIGHTS:
        return None
    centres = (np.arange(first, first + length) + 0.5) * scale
    starts = np.floor(centres - radius * stretch + 0.5).astype(np.int64).clip(0, old - n_taps)
    pixels = starts[:, np.newaxis] + np.arange(n_taps)
    weights = weight(abs(pixels + 0.5 - centres[:, np.newaxis]) / stretch)
    scaled = weights / weights.sum(1, keepdims=True) * 2**WEIGHT_BITS
    whole = np.copysign(np.floor(abs(scaled) + 0.5), scaled)
    if (abs(abs(scaled - whole) - 0.5) < _DOUBT).any():
        return None
    return Taps(starts, whole.astype(np.int32))


def resample_compiled(
    picture: Image.Image,
    new: tuple[int, int],
    part: tuple[tuple[int, int], tuple[int, int]],
    resample: Image.Resampling,
) -> Pixels | None:
    """Resize a picture, rows first, and compute no more than a part of the result.

    Parameters
    ----------
    picture : PIL.Image.Image
        An image of mode L or RGB.
    new : (int, int)
        Height and width of the whole result.
    part : (int, int), (int, int)
        First row and number of rows, and first column and number of columns.
    resample : PIL.Image.Resampling
        The filter.

    Returns
    -------
    pixels : ndarray of shape (n_rows, n_columns, 1 or 3), dtype uint8
        The levels that Pillow computes. None where that cannot be promised, without numba, and
        for the first pictures of a process.
    """
    global _n_pixels
    # Threads may lose some of each other's counts, which does not matter.
    _n_pixels += picture.width * picture.height + new[0] * new[1]
    if resample not in _FILTERS or _n_pixels < _LOADED_AFTER:
        return None
    kernels = _load_kernels()
    return None if kernels is None else _resample(kernels, picture, new, part, resample)


_n_pixels = 0


def _resample(
    kernels: ModuleType,
    picture: Image.Image,
    new: tuple[int, int],
    part: tuple[tuple[int, int], tuple[int, int]],
    resample: Image.Resampling,
) -> Pixels | None:
    down = find_taps(picture.height, new[0], *part[0], resample)
    across = find_taps(picture.width, new[1], *part[1], resample)
    if down is None or across is None:
        return None
    picture.load()
    n_channels = len(picture.getbands())
    top, bottom = down.taken
    left, right = across.taken
    rows = np.empty((bottom - top, part[1][1], n_channels), np.uint8)
    step = max(1, _COPIED_PIXELS // (right - left))
    for first in range(top, bottom, step):
        last = min(first + step, bottom)
        words = _words(picture, (left, first, right, last))
        strip = rows[first - top : last - top]
        kernels.weigh_columns(words, across.starts - left, across.weights, strip)
    result = np.empty((part[0][1], *rows.shape[1:]), np.uint8)
    lines = rows.reshape(len(rows), -1)
    kernels.weigh_lines(lines, down.starts - top, down.weights, result.reshape(len(result), -1))
    return result


def _words(picture: Image.Image, box: tuple[int, int, int, int]) -> AnyArray:
    """Return a part of a picture with each pixel as one number.

    By the encoder behind `tobytes`: to crop and then call that would copy the pixels three times.
    """
    layout, word = ("L", np.uint8) if picture.mode == "L" else ("RGBX", np.uint32)
    left, top, right, bottom = box
    shape = (bottom - top, right - left)
    encoder = Image._getencoder(picture.mode, "raw", (layout, 0, 1))
    encoder.setimage(picture.im, box)
    _, _, data = encoder.encode(math.prod(shape) * np.dtype(word).itemsize)
    return np.frombuffer(data, word).reshape(shape)


@functools.cache
def _load_kernels() -> ModuleType | None:
    """Return the loops, if they are compiled and what they compute is what Pillow computes."""
    try:
        from . import _kernels

        return _kernels if _kernels.IS_COMPILED and _are_exact(_kernels) else None
    except Exception:
        # No numba, one that does not go with this numpy, no place to keep what it compiled, another
        # encoder in Pillow, ...: the result is the same without.
        return None


def _are_exact(kernels: ModuleType) -> bool:
    # Higher than what is weighed at a time, and no multiple of it: whole tiles and a part of one.
    noise = np.random.default_rng(0).integers(0, 256, (140, 40, 3), np.uint8)
    for pixels, resample in itertools.product((noise, noise[:, :, 0]), _FILTERS):
        picture = Image.fromarray(pixels)
        found = _resample(kernels, picture, (130, 24), ((0, 130), (0, 24)), resample)
        wanted = np.asarray(picture.resize((24, 130), resample)).reshape(130, 24, -1)
        if found is None or not np.array_equal(found, wanted):
            return False
    return True
