"""How strong the linear probe's penalty should be, by cross-validation."""

import numpy as np
from sklearn.model_selection import StratifiedKFold

from .._typing import AnyArray
from ._logistic import LOOSE_TOLERANCE, LogisticProblem, Solution
from ._probe_rows import ProbeRows

CANDIDATES = np.logspace(-4, 4, 9)
DEFAULT_C = 1.0
N_FOLDS = 5
# Rises of the loss, one after the other, that end the search.
PATIENCE = 2


def choose_C(rows: ProbeRows, codes: AnyArray) -> float:  # noqa: N802 (scikit-learn's name)
    """Choose C among ``np.logspace(-4, 4, 9)`` by the log loss of a stratified cross-validation.

    There are 5 folds, or as many as the smallest class has rows. Candidates are tried in rising
    order, each from the solution of the one before. The search stops once the loss has risen for
    two candidates in a row.

    Parameters
    ----------
    rows : ProbeRows
        The training rows.
    codes : ndarray of shape (n_rows,)
        Their class codes.

    Returns
    -------
    C : float
        The smallest of the best; 1.0 when a class has a single row, which cannot be set aside.
    """
    classes, codes = np.unique(codes, return_inverse=True)
    n_folds = min(N_FOLDS, int(np.bincount(codes).min()))
    if n_folds < 2 or len(classes) < 2:
        return DEFAULT_C
    # One scale and one basis for all folds: they know rows that are set aside, but no label.
    # Float32, since the loss changes by more from one candidate to the next.
    coordinates = rows.coordinates.astype(np.float32)
    splits = StratifiedKFold(n_folds, shuffle=True, random_state=0).split(coordinates, codes)
    folds = [_Fold(coordinates, codes, rows.sample_weight, *split) for split in splits]
    return _valley(CANDIDATES, folds)


def choose_alpha(rows: ProbeRows, targets: AnyArray) -> float:
    """Choose the ridge penalty by leave-one-out cross-validation, in closed form.

    Candidates are ``np.logspace(-4, 4, 9)``.

    Parameters
    ----------
    rows : ProbeRows
        The training rows.
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Their targets.

    Returns
    -------
    alpha : float
        One value for all targets.
    """
    # Here, since it takes as long to import as the rest of the package.
    from sklearn.linear_model import RidgeCV

    search = RidgeCV(alphas=CANDIDATES)
    search.fit(rows.coordinates, targets, sample_weight=rows.sample_weight)
    return float(search.alpha_)


class _Fold:
    """One split of a cross-validation, whose model goes from C to C."""

    def __init__(
        self,
        features: AnyArray,
        codes: AnyArray,
        sample_weight: AnyArray,
        train: AnyArray,
        test: AnyArray,
    ) -> None:
        self._problem = LogisticProblem(features[train], codes[train], sample_weight[train])
        self._held_out = features[test], codes[test]
        self._held_out_weight = sample_weight[test]
        self._solution: Solution | None = None

    def loss(self, C: float) -> float:
        """Sum the log loss of the held-out rows."""
        self._solution = self._problem.solve(C, tolerance=LOOSE_TOLERANCE, start=self._solution)
        logarithms = self._solution.log_likelihood(*self._held_out)
        return -float(self._held_out_weight @ logarithms)


def _valley(values: AnyArray, folds: list[_Fold]) -> float:
    losses: list[float] = []
    for value in values:
        losses.append(sum(fold.loss(float(value)) for fold in folds))
        if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    return float(values[int(np.argmin(losses))])
