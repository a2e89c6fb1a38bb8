"""Training images that are near an image, and what they add to its score."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from .._arguments import check_length
from .._messages import shown
from .._typing import AnyArray, FloatArray
from ._model import Model
from ._representers import representer_values


class NearestImages(NamedTuple):
    """Result of `nearest_images`.

    Parameters
    ----------
    indices : ndarray of shape (n_images, n_neighbors)
        Positions in X_train, the nearest first.
    distances : ndarray of shape (n_images, n_neighbors)
        Their Euclidean distances.
    values : ndarray of shape (n_images, n_train) or None
        Contribution of each training image to the score; None without `y_train`, or where the
        predictor is no L2-penalized linear model.
    intercept : ndarray of shape (n_images,) or None
        The sum of an image's values plus its intercept is its score.
    target : ndarray of shape (n_images,) or None
        Class or output that the score is of.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx import NearestImages
    >>> near = NearestImages(np.array([[4, 2]]), np.array([[0.5, 0.75]]), None, None, None)
    >>> int(near.indices[0, 0]), float(near.distances.max())
    (4, 0.75)
    """

    indices: AnyArray
    distances: FloatArray
    values: FloatArray | None
    intercept: FloatArray | None
    target: AnyArray | None


def nearest_images(
    estimator: Any,
    X: Any,
    X_train: Any,
    y_train: Any = None,
    *,
    target: Any = None,
    n_neighbors: int = 5,
) -> NearestImages:
    """Find the training images that are nearest, and those that a score comes from.

    Distances are between the features that the predictor gets, after the extractor and all steps
    between the two. The score of an L2-penalized linear model is exactly the intercept plus a sum
    over its training images, of their representer values [1]_. A positive value speaks for the
    target.

    Parameters
    ----------
    estimator : estimator
        Fitted: a pipeline with a `PretrainedFeatureExtractor` and a predictor, or a search over
        one.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        Input of its `predict`.
    X_train : array-like, list, Series, DataFrame or Dataset of n_train images
        Its training images; for the nearest images alone, any images.
    y_train : array-like of shape (n_train,), default=None
        Their targets. None: no representer values.
    target : label or int, default=None
        As in `heat_maps`, one for all images.
    n_neighbors : int, default=5
        Number of nearest images.

    Returns
    -------
    found : NearestImages
        With `indices`, `distances`, `values`, `intercept`, `target`.

    Raises
    ------
    TypeError
        If there is no extractor, or no score, in the estimator.
    ValueError
        If there are fewer training images than neighbors, `y_train` has another length than
        `X_train`, `target` is none of the classes, or the features of an image are NaN or infinite.

    Warns
    -----
    FeatxWarning
        If a linear model was not trained on `X_train` and `y_train`: there are no representer
        values.

    See Also
    --------
    NeighborsDisplay : Draws them.
    heat_maps : Where in an image its score comes from.

    References
    ----------
    .. [1] C.-K. Yeh, J. S. Kim, I. E. H. Yen, P. Ravikumar, "Representer point selection for
       explaining deep neural networks", NeurIPS 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_featx import PretrainedFeatureExtractor, nearest_images
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images[:30] / 16, digits.target[:30]
    >>> extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32)
    >>> model = make_pipeline(extractor, LogisticRegression()).fit(X[:20], y[:20])
    >>> found = nearest_images(model, X[20:], X[:20], y[:20])
    >>> scores = found.values.sum(axis=1) + found.intercept
    >>> bool(abs(scores - model.decision_function(X[20:])).max() < 1e-5)
    True
    """
    model, train = Model(estimator, X), Model(estimator, X_train)
    if y_train is not None:
        check_length(y_train, "y_train", train.images, "X_train")
    if not (isinstance(n_neighbors, int | np.integer) and 1 <= n_neighbors <= len(train.images)):
        raise ValueError(
            f"n_neighbors={shown(n_neighbors)}: expected 1 to {len(train.images)}, the number of "
            "training images."
        )
    rows, seen = _readable(model.rows(X), "X"), _readable(train.rows(X_train), "X_train")
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(seen)
    distances, indices = search.kneighbors(rows)
    final = model.after[-1] if model.after else None
    values = None if y_train is None else representer_values(final, seen, np.asarray(y_train))
    if values is None:
        return NearestImages(indices, distances, None, None, None)
    return NearestImages(indices, distances, *_of_target(model, final, values, rows, seen, target))


def _readable(rows: FloatArray, name: str) -> FloatArray:
    """Refuse rows of images that cannot be read."""
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
        raise ValueError(
            f"{name}, row {bad}: an image that cannot be read has no neighbors. Leave it out."
        )
    return rows


def _of_target(
    model: Model, final: Any, values: FloatArray, rows: FloatArray, seen: FloatArray, target: Any
) -> tuple[FloatArray, FloatArray, AnyArray]:
    """Contributions, intercepts and targets of images."""
    score = model.scores()[0]
    intercepts = np.broadcast_to(np.ravel(final.intercept_), values.shape[1:])
    if values.shape[1] == 1 and score.unit == "decision function":
        values, intercepts = np.hstack([-values, values]), np.hstack([-intercepts, intercepts])
    if target is not None:
        chosen = np.full(len(rows), score.place(target))
    elif score.unit == "value" or len(score.labels) == 2:
        chosen = np.full(len(rows), 0 if score.unit == "value" else 1)
    else:
        chosen = ((rows @ seen.T) @ values + intercepts).argmax(1)
    found: FloatArray = (rows @ seen.T) * values.T[chosen]
    return found, intercepts[chosen], score.labels[chosen]
