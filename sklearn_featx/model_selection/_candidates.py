"""Candidates of a search: the estimators that it compares, in its order."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterGrid, ParameterSampler, check_cv


def is_search(estimator: Any) -> bool:
    """Whether an estimator has the parameters of scikit-learn's searches."""
    parameters = _parameters(estimator)
    grid = "param_grid" in parameters or "param_distributions" in parameters
    return grid and "estimator" in parameters


def candidates(search: Any, y: Any, n_rows: int, groups: Any = None) -> list[Any]:
    """Return a clone for each candidate of a search.

    Parameters
    ----------
    search : estimator
        One for which `is_search` is true.
    y : array-like of shape (n_rows,) or None
        Targets.
    n_rows : int
        Number of rows that the search is fitted to.
    groups : ndarray of shape (n_rows,), default=None
        Groups of the rows, which some splitters count.
    """
    parameters = _parameters(search)
    grid: Iterable[Mapping[str, Any]]
    if "param_grid" in parameters:
        grid = ParameterGrid(search.param_grid)
    else:
        # The state of the search's own generator does not change.
        seed = copy.deepcopy(getattr(search, "random_state", None))
        n_iter = _n_drawn(search, parameters, y, n_rows, groups)
        grid = ParameterSampler(search.param_distributions, n_iter, random_state=seed)
    return [clone(search.estimator).set_params(**clone(p, safe=False)) for p in grid]


def _n_drawn(search: Any, parameters: Mapping[str, Any], y: Any, n_rows: int, groups: Any) -> int:
    if "n_iter" in parameters:
        return int(search.n_iter)
    n_candidates = parameters.get("n_candidates", 1)
    if isinstance(n_candidates, int | np.integer):
        return int(n_candidates)
    # Halving: as many candidates as can start with the smallest number of images.
    smallest = parameters.get("min_resources")
    if not isinstance(smallest, int | np.integer):
        classifier = is_classifier(search.estimator)
        n_classes = len(np.unique(y)) if classifier and y is not None else 1
        splitter = check_cv(search.cv, y, classifier=classifier)
        smallest = 2 * splitter.get_n_splits(groups=groups) * n_classes
    return max(1, n_rows // int(smallest))


def _parameters(estimator: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = estimator.get_params(deep=False)
    return found
