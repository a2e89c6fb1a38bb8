"""Predictions of classes, in any of the forms that scikit-learn gives them."""

from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.utils.validation import column_or_1d

from .._arguments import check_length
from .._messages import shown
from .._typing import AnyArray, FloatArray


class Predictions(NamedTuple):
    """True and predicted classes.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The classes.
    true, predicted : ndarray of int, shape (n_images,)
        Positions in `classes`.
    confidence : ndarray of shape (n_images,)
        Probability or score of the predicted class, ahead of the true one where these are scores;
        0 where only labels are known.
    unit : {"probability", "score", "label"}
        Kind of `confidence`.
    """

    classes: AnyArray
    true: AnyArray
    predicted: AnyArray
    confidence: FloatArray
    unit: Literal["probability", "score", "label"]


def predictions_of(
    y: Any, predicted: Any, classes: Any = None, name: str = "predicted"
) -> Predictions:
    """Return predictions from labels, probabilities or scores.

    Parameters
    ----------
    y : array-like of shape (n_images,)
        True labels.
    predicted : array-like of shape (n_images,) or (n_images, n_classes)
        Labels, probabilities or scores.
    classes : array-like of shape (n_classes,), default=None
        Classes of the columns. None: the labels of `y`, sorted.
    name : str, default="predicted"
        Name of `predicted` in messages.

    Returns
    -------
    predictions : Predictions
        Classes and confidence.

    Raises
    ------
    ValueError
        If numbers of rows or columns do not fit, a label is unknown, a score is NaN, or the
        probabilities are of one class of two.
    """
    labels, found = column_or_1d(y), np.asarray(predicted)
    check_length(found, name, labels, "y")
    given = np.unique(labels) if classes is None else np.asarray(classes)
    if given.ndim != 1:
        raise ValueError(f"classes={shown(classes)}: expected a list of them, one for each column.")
    if found.ndim == 1 and not _is_score(found, given):
        given = np.unique(np.concatenate([given, found])) if classes is None else given
        codes = _codes(found, given, name)
        return Predictions(given, _codes(labels, given, "y"), codes, np.zeros(len(codes)), "label")
    scores = np.stack([-found, found], axis=1) if found.ndim == 1 else found.astype(float)
    if scores.shape[1] != len(given):
        raise ValueError(
            f"{name} has {scores.shape[1]} columns, and there are {len(given)} classes: "
            f"{shown(given.tolist())}. Pass classes=, in the order of the columns."
        )
    missing = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(missing):
        raise ValueError(
            f"{name}, row {missing[0]}: NaN, in {len(missing)} of {len(scores)} rows. Leave "
            "out these images, or predict them."
        )
    if found.ndim == 1 and ((found >= 0) & (found <= 1)).all():
        raise ValueError(
            f"{name}: one column from 0 to 1 looks like the probabilities of one class, and one "
            "column is a decision function. Pass both columns of predict_proba."
        )
    true, codes = _codes(labels, given, "y"), scores.argmax(1)
    if _is_probability(scores):
        return Predictions(given, true, codes, scores.max(1), "probability")
    ahead = scores.max(1) - scores[np.arange(len(true)), true]
    return Predictions(given, true, codes, np.where(codes == true, scores.max(1), ahead), "score")


def _is_probability(scores: FloatArray) -> bool:
    """Whether rows are probabilities of classes."""
    return bool((scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3))


def _is_score(found: AnyArray, classes: AnyArray) -> bool:
    """Whether one column is the decision function of two classes."""
    return len(classes) == 2 and found.dtype.kind == "f" and not np.isin(found, classes).all()


def _codes(labels: AnyArray, classes: AnyArray, name: str) -> AnyArray:
    order = np.argsort(classes)
    places = np.searchsorted(classes, labels, sorter=order).clip(0, len(classes) - 1)
    codes: AnyArray = order[places]
    wrong = np.flatnonzero(classes[codes] != labels)
    if len(wrong):
        raise ValueError(
            f"{name}, row {wrong[0]}: {shown(labels[wrong[0]])} is none of the classes "
            f"{shown(classes.tolist())}."
        )
    return codes
