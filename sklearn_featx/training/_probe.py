"""The linear probe: the best linear head on frozen features.

A head that starts at the probe does not distort pretrained features in its first steps (LP-FT:
Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform
out-of-distribution"). Features are centered and scaled for the fit (`Scaling`), so that a penalty
has the same effect for every backbone. The scaling is then folded into weight and bias, so that the
head reads unscaled features.

A row of weight 0 is ignored, a row of weight 2 counts as two rows. The solution is float64.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .._messages import user_level
from .._typing import AnyArray
from ..exceptions import FeatxWarning
from ._logistic import LogisticProblem
from ._probe_penalty import choose_alpha, choose_C
from ._probe_rows import ProbeRows

# Margin of logits between the other classes and a class without rows: a probability of e**-10.
ABSENT_CLASS_MARGIN = 10.0


class LinearModel(NamedTuple):
    """A linear function of unscaled embeddings.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, n_features)
        Coefficients.
    bias : ndarray of shape (n_outputs,)
        Intercepts.
    C : float or tuple of float
        Inverse penalty, given or chosen; of several labels one for each.
    """

    weight: AnyArray
    bias: AnyArray
    C: float | tuple[float, ...]


def fit_linear_probe_classifier(
    features: npt.ArrayLike,
    codes: npt.ArrayLike,
    n_classes: int,
    *,
    C: float | Literal["auto"],
    sample_weight: npt.ArrayLike | None = None,
    widths: Sequence[int] | None = None,
    groups: npt.ArrayLike | None = None,
) -> LinearModel:
    """Fit an L2-regularized multinomial logistic regression on features of mean variance 1.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        Input of the head.
    codes : array-like of shape (n_rows,)
        Class codes from 0.
    n_classes : int
        Number of classes. A class without rows has weight 0, and a bias 10 below the lowest other.
    C : float or "auto"
        Inverse penalty, as in `sklearn.linear_model.LogisticRegression`. "auto": see `choose_C`.
    sample_weight : array-like of shape (n_rows,), default=None
        Weight of each row, class weights included.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.
    groups : array-like of shape (n_rows,), default=None
        Equal for rows that the choice of the penalty does not separate.

    Returns
    -------
    weight : ndarray of shape (n_classes, n_features)
        For two classes, one row is the negative of the other.
    bias : ndarray of shape (n_classes,)
        The probabilities are softmax(features @ weight.T + bias).
    C : float
        The inverse penalty.
    """
    rows = ProbeRows(features, sample_weight, widths)
    codes = rows.counted(codes)
    C = choose_C(rows, codes, _counted(rows, groups)) if C == "auto" else C
    present, codes = np.unique(codes, return_inverse=True)
    weight, bias = np.zeros((n_classes, np.shape(features)[1])), np.zeros(n_classes)
    if len(present) > 1:
        coef, intercept = _softmax_rows(*_logistic(rows, codes, C))
        weight[present], bias[present] = rows.fold(coef, intercept)
    absent = np.setdiff1d(np.arange(n_classes), present)
    bias[absent] = bias[present].min() - ABSENT_CLASS_MARGIN
    return LinearModel(weight, bias, C)


def fit_linear_probe_multilabel(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    C: float | Literal["auto"],
    sample_weight: npt.ArrayLike | None = None,
    widths: Sequence[int] | None = None,
    groups: npt.ArrayLike | None = None,
) -> LinearModel:
    """Fit a logistic regression for each label.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        Input of the head.
    labels : array-like of shape (n_rows, n_labels)
        0 and 1.
    C : float or "auto"
        Inverse penalty. "auto": chosen for each label.
    sample_weight : array-like of shape (n_rows,), default=None
        Weight of each row.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.
    groups : array-like of shape (n_rows,), default=None
        Equal for rows that the choice of the penalty does not separate.

    Returns
    -------
    weight : ndarray of shape (n_labels, n_features)
        One row for each logistic regression.
    bias : ndarray of shape (n_labels,)
        The probabilities are sigmoid(features @ weight.T + bias).
    C : tuple of float
        The inverse penalty of each label.
    """
    rows = ProbeRows(features, sample_weight, widths)
    columns, kept = rows.counted(labels).astype(int).T, _counted(rows, groups)
    penalties = [choose_C(rows, column, kept) if C == "auto" else C for column in columns]
    models = [_label(rows, *of_label) for of_label in zip(columns, penalties, strict=True)]
    coef, intercept = (np.concatenate(parts) for parts in zip(*models, strict=True))
    return LinearModel(*rows.fold(coef, intercept), tuple(penalties))


def fit_linear_probe_regressor(
    features: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    alpha: float | Literal["auto"],
    sample_weight: npt.ArrayLike | None = None,
    widths: Sequence[int] | None = None,
    groups: npt.ArrayLike | None = None,
) -> LinearModel:
    """Fit a ridge regression on features of mean variance 1.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        Input of the head.
    targets : array-like of shape (n_rows,) or (n_rows, n_outputs)
        Regression targets.
    alpha : float or "auto"
        Penalty, as in `sklearn.linear_model.Ridge`. "auto": see `choose_alpha`.
    sample_weight : array-like of shape (n_rows,), default=None
        Weight of each row.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.
    groups : array-like of shape (n_rows,), default=None
        Equal for rows that the choice of the penalty does not separate.

    Returns
    -------
    weight : ndarray of shape (n_outputs, n_features)
        `n_outputs` is 1 for targets of one dimension.
    bias : ndarray of shape (n_outputs,)
        The predictions are features @ weight.T + bias.
    C : float
        The inverse of the penalty.
    """
    # Imported here, because the import takes as long as that of the whole package.
    from sklearn.linear_model import Ridge

    rows = ProbeRows(features, sample_weight, widths)
    targets = rows.counted(targets).astype(np.float64)
    alpha = choose_alpha(rows, targets, _counted(rows, groups)) if alpha == "auto" else alpha
    ridge = Ridge(alpha=alpha, solver="cholesky")
    columns = targets.reshape(len(targets), -1)
    ridge.fit(rows.coordinates, columns, sample_weight=rows.sample_weight)
    folded = rows.fold(np.atleast_2d(ridge.coef_), np.reshape(ridge.intercept_, -1))
    return LinearModel(*folded, 1 / alpha if alpha else math.inf)


def _counted(rows: ProbeRows, groups: npt.ArrayLike | None) -> AnyArray | None:
    return None if groups is None else rows.counted(groups)


def _label(rows: ProbeRows, column: AnyArray, C: float) -> tuple[AnyArray, AnyArray]:
    """Coefficients and intercept of one label; only an intercept if the label is constant."""
    if column.min() == column.max():
        margin = ABSENT_CLASS_MARGIN if column[0] else -ABSENT_CLASS_MARGIN
        return np.zeros((1, rows.coordinates.shape[1])), np.array([margin])
    return _logistic(rows, column, C)


def _logistic(rows: ProbeRows, codes: AnyArray, C: float) -> tuple[AnyArray, AnyArray]:
    solution = LogisticProblem(rows.coordinates, codes, rows.sample_weight).solve(C)
    if not solution.converged:
        warnings.warn(
            f"the linear probe did not converge in {solution.n_steps} steps with C={C:g}. A "
            "smaller C (a stronger penalty) converges faster.",
            FeatxWarning,
            stacklevel=user_level(),
        )
    return solution.weight, solution.bias


def _softmax_rows(coef: AnyArray, intercept: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Convert the one row of two classes to two rows."""
    if len(coef) > 1:
        return coef, intercept
    return np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
