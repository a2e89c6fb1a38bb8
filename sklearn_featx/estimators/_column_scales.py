"""Scales of the extractor's columns: unit rows, and the scales that `fit` learns."""

import math
from collections.abc import Sequence

import numpy as np
from sklearn.preprocessing import normalize as scale_to_unit_norm

from .._digest import digest
from .._preprocess import Preprocess
from .._typing import AnyArray, FloatArray
from ..flow import Recipe

NO_SCALE = (
    "normalize='layer' scales columns by their variance in 'fit', and this %(name)s is not fitted: "
    "call 'fit' on the training images first."
)


def unit_norm(features: FloatArray) -> FloatArray:
    """Scale each row to unit Euclidean norm.

    Parameters
    ----------
    features : ndarray of shape (n_images, ...)
        The rows.
    """
    flat = features.reshape(len(features), -1)
    unit: FloatArray = scale_to_unit_norm(flat).reshape(features.shape)
    return unit


def learn_scales(layers: Sequence[AnyArray]) -> tuple[FloatArray, FloatArray]:
    """Return mean and divisor of each column, of the shape of a row of `transform`.

    Parameters
    ----------
    layers : sequence of ndarray of shape (n_images, ...)
        Rows of each layer.
    """
    # Imported here, because the import of skorch is slow.
    from ..training import Scaling

    widths = [math.prod(layer.shape[1:]) for layer in layers]
    flat = [layer.reshape(len(layer), -1) for layer in layers]
    scaling = Scaling.of(np.concatenate(flat, axis=1), None, widths)
    shape = layers[0].shape[1:] if len(layers) == 1 else (-1,)
    return scaling.mean.reshape(shape), scaling.spread.reshape(shape)


def digest_columns(recipe: Recipe) -> str:
    """Digest what the columns are computed by, whatever the versions of packages.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    """
    taps = [digest(recipe.backbone.digest(tap.layer), str(tap.pooling)) for tap in recipe.taps]
    preprocess = recipe.preprocess
    return digest(*taps, preprocess.digest if isinstance(preprocess, Preprocess) else "")
