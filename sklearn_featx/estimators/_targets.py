"""Validation and encoding of y and sample_weight: class codes, standardized targets, weights."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from .._messages import said, shown
from .._sklearn_compat import _check_sample_weight, _check_y
from .._typing import AnyArray
from ..images import is_missing
from ._wrong_targets import (
    refuse_missing,
    refuse_mixed_labels,
    refuse_one_class,
    refuse_several_labels,
    refuse_text,
    refuse_uneven,
    refuse_unknown_labels,
)


class Standardization(NamedTuple):
    """Mean and scale of regression targets.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_outputs,)
        Of the training targets; a constant target has scale 1.
    """

    mean: AnyArray
    scale: AnyArray


def check_labels(y: Any, *, name: str, n_rows: int) -> AnyArray:
    """Validate class labels, or a multilabel indicator matrix.

    Parameters
    ----------
    y : array-like of shape (n_rows,), array-like or sparse matrix of shape (n_rows, n_labels)
        Discrete labels of any type, none missing; or 0 and 1 in at least two columns.
    name : str
        The estimator's name, for messages.
    n_rows : int
        Number of images.

    Returns
    -------
    labels : ndarray of shape (n_rows,) or (n_rows, n_labels)
        The labels.
    """
    _check_given(y, name)
    refuse_several_labels(y)
    refuse_missing(y)
    with _in_one_line("y"):
        labels = _checked_labels(y, n_rows)
    if is_indicator(labels):
        _check_indicator(labels)
    return labels


def _checked_labels(y: Any, n_rows: int) -> AnyArray:
    if _is_matrix(y):
        kind = type_of_target(y, input_name="y")
        # Sparse matrices have the method `toarray`.
        matrix = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
        if kind == "multilabel-indicator":
            _check_length(matrix, n_rows)
            return matrix.astype(np.int64)
        refuse_unknown_labels(matrix, kind)
    labels = column_or_1d(y, warn=True)
    refuse_mixed_labels(labels)
    _check_y(labels)
    refuse_unknown_labels(labels, type_of_target(labels, input_name="y"))
    check_classification_targets(labels)
    _check_length(labels, n_rows)
    return np.asarray(labels)


def _check_indicator(indicator: AnyArray) -> None:
    """Refuse two other values than 0 and 1, which scikit-learn calls an indicator too."""
    other = np.setdiff1d(indicator, [0, 1])
    if len(other):
        raise ValueError(
            f"y: a matrix of labels must be of 0 and 1; it contains {shown(other[0].item())}. Pass "
            "(y == value).astype(int), or one column of classes."
        )


def is_indicator(labels: AnyArray) -> bool:
    """Whether validated labels are a multilabel indicator matrix."""
    return labels.ndim == 2


def check_targets(y: Any, *, name: str, n_rows: int) -> AnyArray:
    """Validate regression targets: finite numbers, one row for each image."""
    _check_given(y, name)
    refuse_uneven(y)
    refuse_missing(y)
    refuse_text(y)
    with _in_one_line("y"):
        targets = _check_y(y, multi_output=True, y_numeric=True)
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = column_or_1d(targets, warn=True)
        _check_length(targets, n_rows)
        return np.asarray(targets, dtype=np.float64)


def check_groups(groups: Any, n_rows: int) -> AnyArray | None:
    """Check groups, one for each image, of any type; return numbers.

    Parameters
    ----------
    groups : array-like of shape (n_rows,) or None
        Equal for images that belong together.
    n_rows : int
        Number of images.

    Returns
    -------
    groups : ndarray of shape (n_rows,), int, or None
        Positions among the sorted groups.
    """
    if groups is None:
        return None
    with _in_one_line("groups"):
        values = column_or_1d(groups)
        _check_length(values, n_rows)
        missing = next(
            (row for row, value in enumerate(values.tolist()) if is_missing(value)), None
        )
        if missing is not None:
            raise ValueError(f"row {missing} has no group. Name one, or drop the row.")
        return np.asarray(np.unique(values, return_inverse=True)[1])


def encode(labels: AnyArray, classes: AnyArray) -> AnyArray:
    """Return the position of each label in the sorted classes.

    Raises
    ------
    ValueError
        If a label is not among the classes.
    """
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(
            f"y contains labels that are not among the classes: {shown(unknown.tolist())}. "
            f"The classes are {shown(classes.tolist())}."
        )
    return np.searchsorted(classes, labels)


def row_weights(
    sample_weight: Any,
    n_rows: int,
    *,
    codes: AnyArray | None = None,
    classes: AnyArray | None = None,
    class_weight: Mapping[Any, float] | str | None = None,
) -> AnyArray | None:
    """Return the product of sample weights and class weights; None if both are None.

    Parameters
    ----------
    sample_weight : array-like of shape (n_rows,) or None
        Weights of the rows, at least 0.
    n_rows : int
        Number of images.
    codes, classes : ndarray, default=None
        Class codes of the rows, and the classes; only for classifiers.
    class_weight : mapping, "balanced" or None, default=None
        Weight of each label; "balanced": inversely proportional to the total weight of its rows.

    Returns
    -------
    weights : ndarray of shape (n_rows,) or None
        Non-negative, not all zero.
    """
    if sample_weight is None and class_weight is None:
        return None
    rows = np.empty((n_rows, 1))
    with _in_one_line("sample_weight"):
        weights: AnyArray = _check_sample_weight(
            sample_weight, rows, dtype=np.float64, ensure_non_negative=True
        )
    if not np.any(weights):
        raise ValueError("Sample weights must contain at least one non-zero number.")
    if class_weight is None or codes is None or classes is None:
        return weights
    if class_weight == "balanced":
        totals = np.bincount(codes, weights, minlength=len(classes))
        # A class of total weight 0 has no rows that count, so its factor is arbitrary.
        factors = totals.sum() / (len(classes) * np.where(totals > 0, totals, 1))
    else:
        _check_class_weight(class_weight, classes.tolist())
        with _in_one_line("class_weight"):
            factors = compute_class_weight(class_weight, classes=classes, y=classes[codes])
    weighted: AnyArray = weights * factors[codes]
    if not np.any(weighted):
        raise ValueError(
            f"class_weight={shown(class_weight)} leaves no row with a positive weight. Give at "
            "least two classes weights above 0."
        )
    return weighted


def _check_class_weight(class_weight: Any, classes: list[Any]) -> None:
    """Refuse values that are no weights, and labels that y lacks where others have no weight."""
    for label, weight in class_weight.items():
        if not (isinstance(weight, Real) and 0 <= float(weight) < math.inf):
            raise ValueError(
                f"class_weight={shown(class_weight)}: the weight of {shown(label)} is "
                f"{shown(weight)}: expected a finite number, at least 0."
            )
    unknown = [label for label in class_weight if label not in classes]
    if unknown and not set(classes) <= set(class_weight):
        raise ValueError(
            f"class_weight={shown(class_weight)}: y has no label {shown(unknown[0])}. Its labels "
            f"are {shown(classes)}."
        )


def check_two_classes(
    codes: AnyArray, weights: AnyArray | None, classes: AnyArray, *, n_left_out: int = 0
) -> None:
    """Raise an error if fewer than two classes have a positive weight."""
    present = np.unique(codes if weights is None else codes[weights > 0])
    if len(present) < 2:
        refuse_one_class(classes[present[0]], n_left_out)


def standardization(targets: AnyArray, weights: AnyArray | None) -> Standardization:
    """Return the weighted mean and standard deviation of each column, or refuse an overflow."""
    columns = targets.reshape(len(targets), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.average(columns, axis=0, weights=weights)
        scale = np.sqrt(np.average((columns - mean) ** 2, axis=0, weights=weights))
    if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
        largest = columns.flat[np.abs(columns).argmax()].item()
        raise ValueError(
            f"y: targets as large as {shown(largest)} have no finite mean and standard deviation. "
            "Divide them by a constant, or take their logarithm."
        )
    return Standardization(mean, np.where(scale > 0, scale, 1.0))


def check_classes(classes: Any) -> AnyArray:
    """Return the argument `classes` of the first call of `partial_fit` as an array."""
    with _in_one_line("classes"):
        given = column_or_1d(classes)
        np.unique(given)
        return np.asarray(given)


def refuse_other_classes(classes: Any, known: AnyArray) -> None:
    """Refuse an argument `classes` of a later call of `partial_fit` that differs from the first."""
    given = np.unique(check_classes(classes))
    if given.tolist() != known.tolist():
        raise ValueError(
            f"classes={shown(given.tolist())} is not the same as in the first call, which had "
            f"{shown(known.tolist())}. Pass the same or none, or make a new estimator for others."
        )


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Context manager: errors of NumPy and scikit-learn name the argument, in one line."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if str(error).startswith(f"{name}: "):
            # It is a message of this package.
            raise
        raise ValueError(f"{name}: {said(error)}") from error


def _is_matrix(y: Any) -> bool:
    """Whether y has several columns; a single column counts as a vector."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    return len(shape) == 2 and shape[1] > 1


def _check_given(y: Any, name: str) -> None:
    if y is None:
        raise ValueError(
            f"This {name} estimator requires y to be passed, but the target y is None."
        )


def _check_length(y: AnyArray, n_rows: int) -> None:
    check_consistent_length(np.empty((n_rows, 1)), y)


def codes_and_weights(
    estimator: Any, labels: AnyArray, sample_weight: Any
) -> tuple[AnyArray, AnyArray | None]:
    """Return class codes, or the indicator matrix, and weights for a classifier."""
    if estimator.multilabel_:
        return _indicator_and_weights(estimator, labels, sample_weight)
    return encode(labels, estimator.classes_), row_weights(sample_weight, len(labels))


def _indicator_and_weights(
    estimator: Any, labels: AnyArray, sample_weight: Any
) -> tuple[AnyArray, AnyArray | None]:
    if labels.ndim != 2 or labels.shape[1] != estimator.n_outputs_:
        raise ValueError(
            f"y: expected an indicator matrix of {estimator.n_outputs_} labels, as in the first "
            f"call; its shape is {labels.shape}."
        )
    if estimator.class_weight is not None:
        raise ValueError(
            "class_weight needs one label for each image, and y is a multilabel indicator matrix. "
            "Set class_weight=None, and weight the images with sample_weight."
        )
    return labels.astype(np.float32), row_weights(sample_weight, len(labels))


def refuse_balanced(class_weight: Any) -> None:
    """Raise a ValueError for weights of classes that `partial_fit` cannot compute.

    Parameters
    ----------
    class_weight : object
        Parameter of the classifier.
    """
    if class_weight == "balanced":
        raise ValueError(
            "class_weight='balanced' needs all images, and partial_fit sees a part of them. Pass "
            "the weights of the classes as a dict, class_weight={label: weight}."
        )
