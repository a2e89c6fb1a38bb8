"""Pictures to draw: an image as the network sees it, or as its file is."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from .._messages import shown
from .._preprocess import Preprocess
from .._typing import AnyArray
from ..estimators._image_estimator import read_images
from ..estimators._image_reader import ImageReader
from ..flow import Recipe
from ..images import Bags, ImageCollection, seen_part


class Picture(NamedTuple):
    """A picture with the place of a heat map in it.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), float
        From 0 to 1.
    extent : tuple of float
        (left, right, bottom, top) of what the network sees, in pixels of the picture.
    """

    pixels: AnyArray
    extent: tuple[float, float, float, float]


def network_view(images: ImageCollection, recipe: Recipe, i: int) -> Picture:
    """Return an image as the network sees it; of a bag, the mean of its images."""
    if isinstance(images, Bags):
        each = [network_view(images.images, recipe, k) for k in images.members(i)]
        return each[0]._replace(pixels=np.mean([picture.pixels for picture in each], axis=0))
    if isinstance(recipe.preprocess, Preprocess) and images.kind == "pixels":
        pixels = _drawable(images.load_resized(i, recipe.preprocess))
    else:
        # A function's result has its own scale and the channels first.
        values = np.asarray(recipe.prepare(images)(images.load(i)), dtype=float)
        low, high = values.min(), values.max()
        scaled = (values - low) / ((high - low) or 1.0) * 255
        pixels = _drawable(np.moveaxis(np.atleast_3d(scaled), 0, -1))
    height, width = pixels.shape[:2]
    return Picture(pixels, (0.0, width, height, 0.0))


def file_view(images: ImageCollection, recipe: Recipe, i: int) -> Picture:
    """Return an image as it was given; bags as the network sees them."""
    if (
        isinstance(images, Bags)
        or not isinstance(recipe.preprocess, Preprocess)
        or images.kind != "pixels"
    ):
        return network_view(images, recipe, i)
    pixels = _drawable(images.load(i))
    top, left, bottom, right = seen_part(pixels.shape[0], pixels.shape[1], recipe.preprocess)
    return Picture(pixels, (left, right, bottom, top))


def images_of(X: Any, reader: ImageReader | None) -> ImageCollection:
    """Return the images of X."""
    if reader is not None and not isinstance(reader, ImageReader):
        raise ValueError(f"reader={shown(reader)}: expected an ImageReader, or None.")
    return read_images(BaseEstimator(), X, reader or ImageReader(), reset=True)


def thumbnail(images: ImageCollection, i: int, side: int) -> AnyArray:
    """Return the center of an image, (side, side, 3) uint8."""
    small = Preprocess(resize=side, crop=(side, side), interpolation="bilinear")
    if images.kind == "pixels":
        colors = _drawable(images.load_resized(i, small))
        return (colors * 255).round().astype(np.uint8)
    return np.full((side, side, 3), 128, np.uint8)


def _drawable(levels: AnyArray) -> AnyArray:
    """Levels (H, W, C) as colors from 0 to 1; of other numbers of channels, their mean."""
    colors = levels.astype(float).clip(0, 255) / 255
    if colors.shape[2] != 3:
        colors = np.repeat(colors.mean(2, keepdims=True), 3, axis=2)
    return colors
