"""Choice of the linear probe's penalty by cross-validation."""

import numpy as np
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

from .._typing import AnyArray
from ._logistic import LOOSE_TOLERANCE, logistic_regression, step_from
from ._probe_rows import ProbeRows

CANDIDATES = np.logspace(-4, 4, 9)
DEFAULT_C = 1.0
N_FOLDS = 5
# Number of consecutive rises of the loss that end the search.
PATIENCE = 2


def choose_C(rows: ProbeRows, codes: AnyArray) -> float:  # noqa: N802 (scikit-learn's name)
    """Choose C among ``np.logspace(-4, 4, 9)`` by the log loss of a stratified cross-validation.

    There are 5 folds, or as many as the smallest class has rows. Candidates are fitted in
    increasing order, each starting at the previous solution. The search stops once the loss has
    risen for two candidates in a row; large C are the slowest to fit.

    Parameters
    ----------
    rows : ProbeRows
        The training rows.
    codes : ndarray of shape (n_rows,)
        Their class codes.

    Returns
    -------
    C : float
        The smallest of the best candidates; 1.0 if a class has only one row.
    """
    classes, codes = np.unique(codes, return_inverse=True)
    n_folds = min(N_FOLDS, int(np.bincount(codes).min()))
    if n_folds < 2 or len(classes) < 2:
        return DEFAULT_C
    # All folds share one scaling and one basis, which depend on held-out rows but on no label.
    # The loss differs between candidates by more than the rounding of float32.
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
    # Imported here, because the import takes as long as that of the whole package.
    from sklearn.linear_model import RidgeCV

    search = RidgeCV(alphas=CANDIDATES)
    search.fit(rows.coordinates, targets, sample_weight=rows.sample_weight)
    return float(search.alpha_)


class _Fold:
    """One split of a cross-validation; each fit starts at the solution of the previous C."""

    def __init__(
        self,
        features: AnyArray,
        codes: AnyArray,
        sample_weight: AnyArray,
        train: AnyArray,
        test: AnyArray,
    ) -> None:
        self._rows, self._codes, self._weights = features[train], codes[train], sample_weight[train]
        self._held_out, self._held_out_codes = features[test], codes[test]
        self._held_out_weights = sample_weight[test]
        self._model = logistic_regression(LOOSE_TOLERANCE)

    def loss(self, C: float) -> float:
        """Sum the log loss of the held-out rows."""
        step_from(self._model.set_params(C=C), self._rows, self._codes, self._weights)
        scores = self._model.decision_function(self._held_out)
        if scores.ndim == 1:
            scores = np.column_stack([np.zeros_like(scores), scores])
        # Not `predict_log_proba`: the logarithm of a probability that is rounded to 0 is infinite.
        logarithms = log_softmax(scores, axis=1)
        own = logarithms[np.arange(len(self._held_out)), self._held_out_codes]
        return -float(self._held_out_weights @ own)


def _valley(values: AnyArray, folds: list[_Fold]) -> float:
    losses: list[float] = []
    for value in values:
        losses.append(sum(fold.loss(float(value)) for fold in folds))
        if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    return float(values[int(np.argmin(losses))])
