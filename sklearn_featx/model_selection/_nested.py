"""Nested cross-validation of the choice among sets of features.

The best of many mean scores is biased upwards, since it was chosen on the same folds. Nested scores
repeat the choice for each fold on its training rows only, and score it on its test rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import KFold, cross_val_score

from .._typing import AnyArray
from ._calls import Fold
from ._folds import make_folds

# Number of inner folds, if the outer folds cannot be used or would need more fits.
_INNER_FOLDS = 3

Scores = npt.NDArray[np.float64]


def nested_scores(
    estimator: Any,
    features: Sequence[AnyArray],
    y: AnyArray,
    folds: Sequence[Fold],
    scores: Scores,
    scoring: Any,
    groups: AnyArray | None = None,
) -> Scores:
    """Return the scores of the choice of the best set of features.

    Parameters
    ----------
    estimator : estimator
        Estimator that is fitted to each set of features.
    features : sequence of ndarray of shape (n_images, n_features)
        The sets to choose from.
    y : ndarray of shape (n_images,)
        Targets.
    folds : sequence of (train, test)
        The outer folds.
    scores : ndarray of shape (n_sets, n_folds)
        Score of each set on each outer test fold.
    scoring : str or callable
        As in `cross_val_score`.
    groups : ndarray of shape (n_images,), default=None
        Equal for images that inner folds do not separate.

    Returns
    -------
    nested : ndarray of shape (n_folds,)
        For each fold, the test score of the set that is best on its training rows.
    """
    inner = np.full(scores.shape, np.nan)
    for k, rows in enumerate(features):
        if 1 < len(folds) - 1 <= 2 * _INNER_FOLDS:
            inner[k] = _of_pairs(estimator, rows, y, folds, scoring)
        for f in np.flatnonzero(np.isnan(inner[k])).tolist():
            train = folds[f][0]
            cv = _inner(estimator, y[train], None if groups is None else groups[train])
            if cv:
                inner[k, f] = cross_val_score(
                    estimator, rows[train], y[train], cv=cv, scoring=scoring
                ).mean()
    chosen = np.argmax(np.where(np.isnan(inner), -np.inf, inner), axis=0)
    nested: Scores = scores[chosen, np.arange(len(folds))]
    return nested


def _inner(estimator: Any, y: AnyArray, groups: AnyArray | None) -> list[Fold]:
    """Inner folds, at most as many as the smallest class has rows; none for a single group."""
    if groups is not None:
        n_folds = min(_INNER_FOLDS, len(np.unique(groups)))
        return make_folds(n_folds, estimator, y, groups) if n_folds > 1 else []
    if not is_classifier(estimator) or y.ndim > 1:
        return make_folds(_INNER_FOLDS, estimator, y, None)
    smallest = int(np.unique(y, return_counts=True)[1].min())
    shuffled = KFold(_INNER_FOLDS, shuffle=True, random_state=0)
    return make_folds(min(_INNER_FOLDS, smallest) if smallest > 1 else shuffled, estimator, y, None)


def _of_pairs(
    estimator: Any, rows: AnyArray, y: AnyArray, folds: Sequence[Fold], scoring: Any
) -> Scores:
    """Mean inner score for each outer fold, with the other outer folds as inner folds.

    A model that is fitted without folds f and g is used twice: its score on g counts for f, and its
    score on f counts for g. Groups and strata of the folds are kept. The mean is NaN if no such
    model can be fitted.
    """
    found: list[list[float]] = [[] for _ in folds]
    scorer = check_scoring(estimator, scoring=scoring)
    for f, (train_f, test_f) in enumerate(folds):
        for g, (train_g, test_g) in list(enumerate(folds))[f + 1 :]:
            train = np.intersect1d(train_f, train_g)
            if not len(train) or (is_classifier(estimator) and len(np.unique(y[train])) < 2):
                continue
            model = clone(estimator).fit(rows[train], y[train])
            for one, test in (
                (f, np.intersect1d(test_g, train_f)),
                (g, np.intersect1d(test_f, train_g)),
            ):
                if len(test):
                    found[one].append(scorer(model, rows[test], y[test]))
    return np.array([np.mean(values) if values else np.nan for values in found])
