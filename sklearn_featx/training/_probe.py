"""The linear probe: the best linear head on frozen features, in closed form or nearly so.

A head that starts there does not wreck pretrained features in its first steps (LP-FT: Kumar et al.
2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution"). Features
are centered and scaled for the fit (`Scaling`), so that a penalty means the same for every
backbone, and both are then folded into weight and bias: the head takes the features as they are.

A row of weight 0 counts as absent, a row of weight 2 as two rows. All in float64.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning

from .._typing import AnyArray
from ..exceptions import FeatxWarning
from ._scaling import Scaling

# On 1,000 to 2,000 rows of correlated features newton-cg took a third of the time of lbfgs, at a
# tolerance on the gradient with which probabilities agree to 1e-6.
SOLVER = "newton-cg"
TOLERANCE = 1e-8
MAX_ITERATIONS = 1_000
# Logits by which a class without rows starts below the others: a probability of e**-10.
ABSENT_CLASS_MARGIN = 10.0


def fit_linear_probe_classifier(
    features: npt.ArrayLike,
    codes: npt.ArrayLike,
    n_classes: int,
    *,
    C: float,
    sample_weight: npt.ArrayLike | None = None,
    widths: Sequence[int] | None = None,
) -> tuple[AnyArray, AnyArray]:
    """Fit an L2-regularized multinomial logistic regression on features of mean variance 1.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        What goes into the head.
    codes : array-like of shape (n_rows,)
        Class codes from 0.
    n_classes : int
        Number of classes. One without rows gets weight 0 and a bias of 10 below the lowest other.
    C : float
        Inverse of the penalty, as in `sklearn.linear_model.LogisticRegression`.
    sample_weight : array-like of shape (n_rows,), default=None
        Weight of each row, class weights included.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.

    Returns
    -------
    weight : ndarray of shape (n_classes, n_features)
        For two classes one row is minus the other.
    bias : ndarray of shape (n_classes,)
        softmax(features @ weight.T + bias) are the pipeline's probabilities.
    """
    features, codes, sample_weight = weighted_rows(features, codes, sample_weight)
    present = np.unique(codes)
    weight, bias = np.zeros((n_classes, features.shape[1])), np.zeros(n_classes)
    if len(present) > 1:
        scaling = Scaling.of(features, sample_weight, widths)
        coef, intercept = _logistic(scaling.apply(features), codes, sample_weight, C)
        weight[present], bias[present] = _fold(scaling, *_softmax_rows(coef, intercept))
    absent = np.setdiff1d(np.arange(n_classes), present)
    bias[absent] = bias[present].min() - ABSENT_CLASS_MARGIN
    return weight, bias


def fit_linear_probe_multilabel(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    C: float | Sequence[float],
    sample_weight: npt.ArrayLike | None = None,
    widths: Sequence[int] | None = None,
) -> tuple[AnyArray, AnyArray]:
    """Fit a logistic regression for each label.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        What goes into the head.
    labels : array-like of shape (n_rows, n_labels)
        0 and 1.
    C : float or sequence of n_labels floats
        Inverse of the penalty.
    sample_weight : array-like of shape (n_rows,), default=None
        Weight of each row.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.

    Returns
    -------
    weight : ndarray of shape (n_labels, n_features)
        One logistic regression a row.
    bias : ndarray of shape (n_labels,)
        sigmoid(features @ weight.T + bias) are the probabilities.
    """
    # A sigmoid of the difference is the softmax over two classes.
    columns = np.asarray(labels).astype(int).T
    pairs = [
        fit_linear_probe_classifier(
            features, column, 2, C=c, sample_weight=sample_weight, widths=widths
        )
        for column, c in zip(columns, np.broadcast_to(C, len(columns)).tolist(), strict=True)
    ]
    return (
        np.stack([weight[1] - weight[0] for weight, _ in pairs]),
        np.array([bias[1] - bias[0] for _, bias in pairs]),
    )


def fit_linear_probe_regressor(
    features: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    alpha: float,
    sample_weight: npt.ArrayLike | None = None,
    widths: Sequence[int] | None = None,
) -> tuple[AnyArray, AnyArray]:
    """Fit a ridge regression on features of mean variance 1.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        What goes into the head.
    targets : array-like of shape (n_rows,) or (n_rows, n_outputs)
        Regression targets.
    alpha : float
        Penalty, as in `sklearn.linear_model.Ridge`.
    sample_weight : array-like of shape (n_rows,), default=None
        Weight of each row.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.

    Returns
    -------
    weight : ndarray of shape (n_outputs, n_features)
        `n_outputs` is 1 for targets of one dimension.
    bias : ndarray of shape (n_outputs,)
        features @ weight.T + bias are the pipeline's predictions.
    """
    # Here, since it takes as long to import as the rest of the package.
    from sklearn.linear_model import Ridge

    features, targets, sample_weight = weighted_rows(features, targets, sample_weight)
    scaling = Scaling.of(features, sample_weight, widths)
    ridge = Ridge(alpha=alpha, solver="cholesky")
    ridge.fit(scaling.apply(features), _columns(targets), sample_weight=sample_weight)
    coef = np.reshape(ridge.coef_, (-1, features.shape[1]))
    return _fold(scaling, coef, np.reshape(ridge.intercept_, -1))


def weighted_rows(
    features: npt.ArrayLike, targets: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Drop the rows without weight.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        What goes into the head.
    targets : array-like of shape (n_rows, ...)
        Codes, labels or values.
    sample_weight : array-like of shape (n_rows,) or None
        Weight of each row, 1 if None.

    Returns
    -------
    features, targets, sample_weight : ndarray
        Rows with a positive weight; features and weights as float64.
    """
    features, targets = np.asarray(features, dtype=np.float64), np.asarray(targets)
    if sample_weight is None:
        return features, targets, np.ones(len(features))
    weights = np.asarray(sample_weight, dtype=np.float64)
    counted = weights > 0
    return features[counted], targets[counted], weights[counted]


def _logistic(
    scaled: AnyArray, codes: AnyArray, sample_weight: AnyArray, C: float
) -> tuple[AnyArray, AnyArray]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, solver=SOLVER, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    reduced, basis = row_space(scaled)
    with warnings.catch_warnings():
        # Also raised when the line search ends at the precision of float64, short of the tolerance.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(reduced, codes, sample_weight=sample_weight)
    if model.n_iter_.max() >= MAX_ITERATIONS:
        warnings.warn(
            f"the linear probe stopped after {MAX_ITERATIONS} steps short of its optimum at "
            f"C={C:g}: a smaller C (a stronger penalty) converges faster",
            FeatxWarning,
            stacklevel=3,
        )
    return model.coef_ @ basis, model.intercept_


def row_space(scaled: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Express features in an orthonormal basis of the rows' span, where rows are fewer.

    An L2 penalty keeps the solution inside the span, so nothing is lost, and 50 rows of 1280
    features are solved in 50 dimensions.

    Parameters
    ----------
    scaled : ndarray of shape (n_rows, n_features)
        Scaled features.

    Returns
    -------
    reduced : ndarray of shape (n_rows, k)
        k = min(n_rows, n_features).
    basis : ndarray of shape (k, n_features)
        Orthonormal rows; `reduced @ basis` are the features.
    """
    if len(scaled) >= scaled.shape[1]:
        return scaled, np.eye(scaled.shape[1])
    basis, reduced = np.linalg.qr(scaled.T)
    return reduced.T, basis.T


def _softmax_rows(coef: AnyArray, intercept: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Two rows in place of scikit-learn's one for two classes."""
    if len(coef) > 1:
        return coef, intercept
    return np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2


def _fold(scaling: Scaling, coef: AnyArray, intercept: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Weight and bias on features as they are: coef @ (x - mean) / spread + intercept."""
    weight = coef / scaling.spread
    return weight, intercept - weight @ scaling.mean


def _columns(targets: AnyArray) -> AnyArray:
    return targets.astype(np.float64).reshape(len(targets), -1)


class LinearModel(NamedTuple):
    """A linear function of embeddings as they are.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, n_features)
        Coefficients.
    bias : ndarray of shape (n_outputs,)
        Intercepts.
    """

    weight: AnyArray
    bias: AnyArray
