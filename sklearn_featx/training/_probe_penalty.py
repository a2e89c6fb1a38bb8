"""How strong the linear probe's penalty should be, by cross-validation."""

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from .._typing import AnyArray
from ._probe import MAX_ITERATIONS, row_space, weighted_rows
from ._scaling import Scaling

CANDIDATES = np.logspace(-4, 4, 9)
DEFAULT_C = 1.0
N_FOLDS = 5
# Candidates are compared in float32, and by solutions that are nearly there: the loss of a fold
# changes by less than from one candidate to the next.
SOLVER = "lbfgs"
TOLERANCE = 1e-3
# Rises of the loss, one after the other, that end the search.
PATIENCE = 2


def choose_C(  # noqa: N802 (scikit-learn's name of the parameter)
    features: npt.ArrayLike,
    codes: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    widths: Sequence[int] | None = None,
) -> float:
    """Choose C among ``np.logspace(-4, 4, 9)`` by the log loss of a stratified cross-validation.

    There are 5 folds, or as many as the smallest class has rows. Candidates are tried in rising
    order, each from the solution of the one before. The search stops once the loss has risen for
    two candidates in a row; large C are the slowest to fit.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        What goes into the head.
    codes : array-like of shape (n_rows,)
        Class codes.
    sample_weight : array-like of shape (n_rows,), default=None
        Weight of each row, in the fits and in the loss.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.

    Returns
    -------
    C : float
        The smallest of the best; 1.0 when a class has a single row, which cannot be set aside.
    """
    features, codes, sample_weight = weighted_rows(features, codes, sample_weight)
    classes, codes = np.unique(codes, return_inverse=True)
    n_folds = min(N_FOLDS, int(np.bincount(codes).min()))
    if n_folds < 2 or len(classes) < 2:
        return DEFAULT_C
    # One scale and one basis for all folds: they know rows that are set aside, but no label.
    scaled = Scaling.of(features, sample_weight, widths).apply(features)
    reduced = row_space(scaled)[0].astype(np.float32)
    splits = StratifiedKFold(n_folds, shuffle=True, random_state=0).split(features, codes)
    folds = [_Fold(reduced, codes, sample_weight, train, test) for train, test in splits]
    return _valley(CANDIDATES, folds)


def choose_alpha(
    features: npt.ArrayLike,
    targets: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    widths: Sequence[int] | None = None,
) -> float:
    """Choose the ridge penalty by leave-one-out cross-validation, in closed form.

    Candidates are ``np.logspace(-4, 4, 9)``.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        What goes into the head.
    targets : array-like of shape (n_rows,) or (n_rows, n_outputs)
        Regression targets.
    sample_weight : array-like of shape (n_rows,), default=None
        Weight of each row.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.

    Returns
    -------
    alpha : float
        One value for all targets.
    """
    # Here, since it takes as long to import as the rest of the package.
    from sklearn.linear_model import RidgeCV

    features, targets, sample_weight = weighted_rows(features, targets, sample_weight)
    scaled = Scaling.of(features, sample_weight, widths).apply(features)
    search = RidgeCV(alphas=CANDIDATES)
    search.fit(scaled, targets, sample_weight=sample_weight)
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
        from sklearn.linear_model import LogisticRegression

        self._rows, self._held_out = features[train], features[test]
        self._train = codes[train], sample_weight[train]
        self._test = codes[test], sample_weight[test]
        self._model = LogisticRegression(
            solver=SOLVER, tol=TOLERANCE, max_iter=MAX_ITERATIONS, warm_start=True
        )

    def loss(self, C: float) -> float:
        """Sum the log loss of the held-out rows."""
        codes, sample_weight = self._train
        with warnings.catch_warnings():
            # A solution that is not quite there is good enough to compare candidates.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.set_params(C=C).fit(self._rows, codes, sample_weight=sample_weight)
        probabilities = self._model.predict_proba(self._held_out)
        codes, sample_weight = self._test
        labels = self._model.classes_
        loss = log_loss(
            codes, probabilities, sample_weight=sample_weight, normalize=False, labels=labels
        )
        return float(loss)


def _valley(values: AnyArray, folds: list[_Fold]) -> float:
    losses: list[float] = []
    for value in values:
        losses.append(sum(fold.loss(float(value)) for fold in folds))
        if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    return float(values[int(np.argmin(losses))])
