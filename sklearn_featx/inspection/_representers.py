"""Representer values: a linear score as a sum over training rows.

The weights of an L2-penalized linear model are a sum of training rows, since its gradient is zero
at the optimum [1]_: ``w = sum_i a_i x_i``, where ``a_i`` is the negative derivative of the loss of
row i divided by the penalty. Solvers stop early, so the smallest change of the ``a_i`` that makes
the sum exact is added. It is sought in the directions in which the rows differ by more than the
rounding of float32: in the others, such as that of all ones where rows are centered, noise would
add a large constant to all of them.

.. [1] C.-K. Yeh, J. S. Kim, I. E. H. Yen, P. Ravikumar, "Representer point selection for explaining
   deep neural networks", NeurIPS 2018.
"""

import warnings
from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from .._typing import AnyArray, FloatArray
from ..exceptions import FeatxWarning

# Share of the weights that the change may make up. Targets other than those of the fit need more
# than all of them.
_LARGEST_CHANGE = 0.5
# Weights and rows may be float32.
_PRECISION = 1e-5


def representer_values(final: Any, rows: FloatArray, y: AnyArray) -> FloatArray | None:
    """Coefficients of training rows in the weights of a fitted linear model.

    Parameters
    ----------
    final : estimator
        The fitted model.
    rows : ndarray of shape (n_train, n_features)
        The rows that it was trained on.
    y : ndarray of shape (n_train,)
        Their targets.

    Returns
    -------
    values : ndarray of shape (n_train, n_outputs) or None
        Such that ``rows.T @ values`` are its weights; None if it is no L2-penalized linear model of
        a known loss, or was not trained on these rows.

    Warns
    -----
    FeatxWarning
        If it was not trained on these rows.
    """
    if not hasattr(final, "coef_"):
        return None
    weights = np.atleast_2d(np.asarray(final.coef_, dtype=np.float64)).T
    values = _from_loss(final, rows, y, weights)
    if values is None:
        return None
    gap = weights - rows.T @ values
    change = np.linalg.lstsq(rows.T, gap, rcond=_PRECISION)[0]
    exact = np.linalg.norm(rows.T @ change - gap) <= _PRECISION * np.linalg.norm(weights)
    small = np.linalg.norm(gap) <= _LARGEST_CHANGE * np.linalg.norm(weights)
    if not (exact and small):
        warnings.warn(
            f"y_train: the weights of {type(final).__name__} are no sum of these images, so there "
            "are no representer values. Pass X_train and y_train of its fit, or None as y_train.",
            FeatxWarning,
            stacklevel=3,
        )
        return None
    found: FloatArray = values + change
    return found


def _from_loss(final: Any, rows: FloatArray, y: AnyArray, weights: FloatArray) -> FloatArray | None:
    """Return the derivatives of the loss at the weights; None for unknown losses."""
    scores = rows @ weights + np.ravel(final.intercept_)
    name = type(final).__name__
    if name in ("Ridge", "RidgeCV", "RidgeClassifier", "RidgeClassifierCV"):
        classes = getattr(final, "classes_", None)
        goal = _signs(y, classes) if classes is not None else np.reshape(y, (len(y), -1))
        alpha = final.alpha_ if hasattr(final, "alpha_") else final.alpha
        residuals: FloatArray = (
            (goal - scores) * _row_weights(final, y) / np.asarray(alpha, np.float64)
        )
        return residuals
    if name in ("LogisticRegression", "LogisticRegressionCV"):
        C = np.ravel(final.C_)[0] if hasattr(final, "C_") else final.C
        slopes = _logistic_slopes(final, scores, y)
        return None if not np.isfinite(C) else C * slopes * _row_weights(final, y)
    if name == "LinearSVC" and final.loss == "squared_hinge":
        signs = _signs(y, final.classes_)
        missing = (1 - signs * scores).clip(0)
        pulls: FloatArray = 2 * final.C * signs * missing * _row_weights(final, y)
        return pulls
    return None


def _logistic_slopes(final: Any, scores: FloatArray, y: AnyArray) -> FloatArray:
    """Target minus probability; one column for two classes."""
    goal = (_signs(y, final.classes_) + 1) / 2
    if scores.shape[1] == 1:
        return goal - 0.5 * (1 + np.tanh(scores / 2))
    odds = np.exp(scores - scores.max(1, keepdims=True))
    slopes: FloatArray = goal - odds / odds.sum(1, keepdims=True)
    return slopes


def _signs(y: AnyArray, classes: AnyArray) -> FloatArray:
    """1 for a row's class and -1 for the others; one column for two classes, or for each label."""
    if np.ndim(y) == 2:
        return np.where(y, 1.0, -1.0)
    signs = np.where(np.asarray(y)[:, np.newaxis] == np.asarray(classes), 1.0, -1.0)
    return signs[:, 1:] if len(classes) == 2 else signs


def _row_weights(final: Any, y: AnyArray) -> FloatArray:
    class_weight = getattr(final, "class_weight", None)
    if class_weight is None:
        return np.ones((len(y), 1))
    weights: FloatArray = compute_sample_weight(class_weight, y)
    return weights[:, np.newaxis]
