"""Choice of the linear probe's penalty by cross-validation."""

import operator
from collections.abc import Iterator

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from .._parallel import in_threads
from .._typing import AnyArray
from ._logistic import LogisticProblem, Solution, blas
from ._probe_rows import ProbeRows

CANDIDATES = np.logspace(-4, 4, 9)
DEFAULT_C = 1.0
N_FOLDS = 5
# Number of consecutive rises of the loss that end the search.
PATIENCE = 2


def choose_C(  # noqa: N802 (scikit-learn's name)
    rows: ProbeRows, codes: AnyArray, groups: AnyArray | None = None
) -> float:
    """Choose C among ``np.logspace(-4, 4, 9)`` by the log loss of a stratified cross-validation.

    There are 5 folds, or as many as the smallest class has rows, or groups. Candidates are fitted
    in increasing order, each starting at the previous solution. The search stops once the loss has
    risen for two candidates in a row; large C are the slowest to fit.

    Parameters
    ----------
    rows : ProbeRows
        The training rows.
    codes : ndarray of shape (n_rows,)
        Their class codes.
    groups : ndarray of shape (n_rows,), default=None
        Equal for rows that no fold separates.

    Returns
    -------
    C : float
        The smallest of the best candidates; 1.0 if a class has only one row, or one group.
    """
    classes, codes = np.unique(codes, return_inverse=True)
    if len(classes) < 2:
        return DEFAULT_C
    # All folds share one scaling and one basis, which depend on held-out rows but on no label.
    # The loss differs between candidates by more than the rounding of float32.
    coordinates = rows.coordinates.astype(np.float32)
    folds = [
        _Fold(coordinates, codes, rows.sample_weight, train, test)
        for train, test in _splits(codes, groups)
    ]
    return _valley(CANDIDATES, folds) if folds else DEFAULT_C


def _splits(codes: AnyArray, groups: AnyArray | None) -> Iterator[tuple[AnyArray, AnyArray]]:
    """Yield training and test rows of stratified folds; none if a class is too small for two.

    Folds of groups may lack a class: test rows of a class without training rows are left out.
    """
    if groups is None:
        n_folds = min(N_FOLDS, int(np.bincount(codes).min()))
        if n_folds > 1:
            folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
            yield from folds.split(codes, codes)
        return
    numbers = np.unique(groups, return_inverse=True)[1]
    pairs = np.unique(np.column_stack([codes, numbers]), axis=0)
    n_folds = min(N_FOLDS, int(np.bincount(pairs[:, 0]).min()))
    if n_folds < 2:
        return
    grouped = StratifiedGroupKFold(n_folds, shuffle=True, random_state=0)
    for train, test in grouped.split(codes, codes, groups):
        known = test[np.isin(codes[test], codes[train])]
        if len(known) and len(np.unique(codes[train])) > 1:
            yield train, known


def choose_alpha(rows: ProbeRows, targets: AnyArray, groups: AnyArray | None = None) -> float:
    """Choose the ridge penalty by cross-validation.

    Candidates are ``np.logspace(-4, 4, 9)``. One row is left out at each time, in closed form; with
    groups, there are 5 folds of whole groups.

    Parameters
    ----------
    rows : ProbeRows
        The training rows.
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Their targets.
    groups : ndarray of shape (n_rows,), default=None
        Equal for rows that no fold separates.

    Returns
    -------
    alpha : float
        One value for all targets; 1.0 for a single row or group.
    """
    if len(targets) < 2:
        return 1 / DEFAULT_C
    if groups is not None:
        return _alpha_of_groups(rows, targets.reshape(len(targets), -1), groups)
    # Imported here, because the import takes as long as that of the whole package.
    from sklearn.linear_model import RidgeCV

    search = RidgeCV(alphas=CANDIDATES)
    search.fit(rows.coordinates, targets, sample_weight=rows.sample_weight)
    return float(search.alpha_)


def _alpha_of_groups(rows: ProbeRows, targets: AnyArray, groups: AnyArray) -> float:
    """Choose the penalty with the smallest squared error on held-out groups."""
    n_folds = min(N_FOLDS, len(np.unique(groups)))
    if n_folds < 2:
        return 1 / DEFAULT_C
    errors = np.zeros(len(CANDIDATES))
    for train, test in GroupKFold(n_folds).split(targets, groups=groups):
        errors += _ridge_errors(rows.coordinates, targets, rows.sample_weight, train, test)
    return float(CANDIDATES[int(np.argmin(errors))])


def _ridge_errors(
    features: AnyArray, targets: AnyArray, weights: AnyArray, train: AnyArray, test: AnyArray
) -> AnyArray:
    """Return the squared error of each candidate on test rows, from one decomposition."""
    center = np.average(features[train], axis=0, weights=weights[train])
    mean = np.average(targets[train], axis=0, weights=weights[train])
    centered, weighted = features[train] - center, weights[train, np.newaxis]
    values, vectors = np.linalg.eigh(centered.T @ (weighted * centered))
    projected = vectors.T @ (centered.T @ (weighted * (targets[train] - mean)))
    held_out = (features[test] - center) @ vectors
    shrunk = [projected / (values.clip(0) + alpha)[:, np.newaxis] for alpha in CANDIDATES]
    residuals = (targets[test] - mean - held_out @ coefficients for coefficients in shrunk)
    return np.array([weights[test] @ (residual**2).sum(axis=1) for residual in residuals])


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
        # Test folds may have fewer classes than training folds, never more.
        classes, train_codes = np.unique(codes[train], return_inverse=True)
        self._problem = LogisticProblem(features[train], train_codes, sample_weight[train])
        self._held_out = features[test]
        self._held_out_codes = np.searchsorted(classes, codes[test])
        self._held_out_weights = sample_weight[test]
        self._solution: Solution | None = None

    def loss(self, C: float) -> float:
        """Sum the log loss of the held-out rows."""
        self._solution = self._problem.solve(C, roughly=True, start=self._solution)
        logarithms = self._solution.logarithms(self._held_out)
        own = logarithms[np.arange(len(self._held_out)), self._held_out_codes]
        return -float(self._held_out_weights @ own)


def _valley(values: AnyArray, folds: list[_Fold]) -> float:
    losses: list[float] = []
    with blas.limited() as n_threads:
        for value in values:
            of_fold = operator.methodcaller("loss", float(value))
            losses.append(sum(in_threads(of_fold, folds, n_threads, len(folds))))
            if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
                break
    return float(values[int(np.argmin(losses))])
