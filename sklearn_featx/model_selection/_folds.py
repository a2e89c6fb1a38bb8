"""Folds of a cross-validation that keeps groups together."""

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv
from sklearn.utils.multiclass import type_of_target

from .._typing import AnyArray
from ._calls import Fold

_DEFAULT_FOLDS = 5


def make_folds(cv: Any, estimator: Any, y: Any, groups: AnyArray | None) -> list[Fold]:
    """Return the folds of a cross-validation.

    Parameters
    ----------
    cv : int, splitter, iterable or None
        As in `cross_val_score`; but a number of folds, or None, keeps groups together.
    estimator : estimator
        Classifiers have stratified folds.
    y : array-like of shape (n_images,)
        Targets.
    groups : ndarray of shape (n_images,) or None
        Equal for images that belong together.

    Returns
    -------
    folds : list of (train, test)
        Positions of images.
    """
    classifier = is_classifier(estimator)
    if groups is not None and (cv is None or isinstance(cv, Integral)):
        stratified = classifier and type_of_target(y) in ("binary", "multiclass")
        make = StratifiedGroupKFold if stratified else GroupKFold
        cv = make(_DEFAULT_FOLDS if cv is None else int(cv))
    splitter = check_cv(cv, y, classifier=classifier)
    return list(splitter.split(np.zeros(len(y)), y, groups))
