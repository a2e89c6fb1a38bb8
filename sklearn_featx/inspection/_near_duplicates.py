"""Images that are nearly the same, by their features."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .._messages import shown
from .._typing import AnyArray, FloatArray
from ..exceptions import FeatxWarning
from ._model import Model

_ROWS_PER_BLOCK = 1024
# Share of the features' length that is not common to all images. With EfficientNet-Lite0, frames of
# a still scene have 0.02 to 0.06, the digits of one class 0.09 (second stage) to 0.39 (last one).
_LEAST_SPREAD = 0.08


class NearDuplicates(NamedTuple):
    """Result of `near_duplicates`.

    Parameters
    ----------
    groups : ndarray of int, shape (n_images,)
        Number of each image's group, for `GroupKFold`; an image that has no duplicates or cannot be
        read is a group of its own.
    pairs : ndarray of int, shape (n_pairs, 2)
        Rows of each pair of near duplicates, the most similar first.
    similarity : ndarray of shape (n_pairs,)
        Cosine similarity of each pair.
    threshold : float
        The `threshold` that was passed.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx import NearDuplicates
    >>> found = NearDuplicates(
    ...     groups=np.array([0, 0, 1]),
    ...     pairs=np.array([[0, 1]]),
    ...     similarity=np.array([0.98]),
    ...     threshold=0.95,
    ... )
    >>> found.pairs[found.similarity > 0.97]
    array([[0, 1]])
    """

    groups: AnyArray
    pairs: AnyArray
    similarity: FloatArray
    threshold: float


def near_duplicates(estimator: Any, X: Any, *, threshold: float = 0.95) -> NearDuplicates:
    """Find images that are nearly the same: copies, other sizes and qualities, small changes.

    Two images are near duplicates if the cosine similarity of their features, from which the mean
    over all images is subtracted, is at least `threshold`. Groups are connected: two images of one
    group may be similar only through others.

    Parameters
    ----------
    estimator : estimator
        A `PretrainedFeatureExtractor`, fitted or not, or a fitted pipeline with one; features are
        those that its predictor gets.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        The images.
    threshold : float, default=0.95
        Least cosine similarity of a pair, above 0 and at most 1. Other views of one object are
        mostly below 0.95, copies above.

    Returns
    -------
    found : NearDuplicates
        Groups, pairs, similarities.

    Raises
    ------
    ValueError
        If the threshold is not in (0, 1].
    ImageError
        For the first image that cannot be read, unless the extractor has ``on_error="nan"``.

    Warns
    -----
    FeatxWarning
        If there are only two images, or all images are nearly the same. The subtracted mean is
        then that of the copies, and only noise remains. Add other images to X.

    See Also
    --------
    EmbeddingDisplay : A map of the images.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_featx import PretrainedFeatureExtractor, near_duplicates
    >>> images = load_digits().images[:20] / 16
    >>> X = np.concatenate([images, images[:2] * 0.98])
    >>> extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32)
    >>> near_duplicates(extractor, X).pairs.tolist()
    [[0, 20], [1, 21]]
    """
    if not (isinstance(threshold, int | float | np.number) and 0 < threshold <= 1):
        raise ValueError(f"threshold={shown(threshold)}: expected a number above 0, at most 1.")
    rows = Model(estimator, X).rows(X)
    readable = np.flatnonzero(np.isfinite(rows).all(1))
    _warn_of_copies_alone(rows[readable])
    pairs, similarity = _pairs(_directions(rows[readable]), threshold)
    pairs = readable[pairs]
    order = np.argsort(-similarity, kind="stable")
    # int32: SciPy 1.11 finds one single group, without an error, if the indices have 64 bits.
    edges = pairs.T.astype(np.int32)
    graph = coo_array((np.ones(len(pairs), bool), edges), shape=(len(rows), len(rows)))
    groups = connected_components(graph, directed=False)[1]
    return NearDuplicates(groups, pairs[order], similarity[order], float(threshold))


def _warn_of_copies_alone(rows: FloatArray) -> None:
    """Warn if the mean of the rows is no image of another kind; equal rows are found anyway."""
    if len(rows) < 2 or (rows == rows[0]).all():
        return
    spread = float(np.sqrt(((rows - rows.mean(0)) ** 2).sum() / (rows**2).sum()))
    if len(rows) == 2 or spread < _LEAST_SPREAD:
        warnings.warn(
            f"X: the features of {len(rows)} images differ from their mean by {spread:.1%}, and "
            "similarity is that of the differences: among two images, or near copies of one image "
            "alone, only equal ones are found. Add other images to X.",
            FeatxWarning,
            stacklevel=3,
        )


def _directions(rows: FloatArray) -> FloatArray:
    """Rows without their mean, of length 1; of one image, or equal ones, any direction."""
    centered = rows - rows.mean(0)
    lengths = np.linalg.norm(centered, axis=1)
    scale = np.linalg.norm(rows, axis=1).max(initial=0.0)
    same = lengths <= 1e-9 * scale
    centered[same] = 0.0
    centered[same, 0] = 1.0
    directions: FloatArray = centered / np.where(same, 1.0, lengths)[:, np.newaxis]
    return directions


def _pairs(directions: FloatArray, threshold: float) -> tuple[AnyArray, FloatArray]:
    """Similar pairs, found block by block."""
    found, values = [np.zeros((0, 2), int)], [np.zeros(0)]
    for start in range(0, len(directions), _ROWS_PER_BLOCK):
        block = directions[start : start + _ROWS_PER_BLOCK] @ directions[start:].T
        # Rounding must not part copies at a threshold of 1.
        i, j = np.nonzero(block >= threshold - 1e-9)
        later = j > i
        found.append(np.stack([i[later], j[later]], axis=1) + start)
        values.append(block[i[later], j[later]])
    return np.concatenate(found), np.concatenate(values)
