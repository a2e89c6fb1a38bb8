"""Calls: the fits and predictions of a search and of the estimators in it, in their order.

Only calls that reach an estimator of this package count. In an estimator of unknown type, each
inner estimator is assumed to be fitted once to all rows, and called once for each prediction.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedShuffleSplit, TunedThresholdClassifierCV, check_cv

from .._messages import shown
from .._sklearn_compat import _safe_indexing
from ..estimators._image_estimator import ImageEstimator
from ..flow import Recipe
from ._candidates import candidates, is_search
from ._composition import Composition, holds_ours, is_estimator
from ._jobs import Job, Jobs

Positions: TypeAlias = npt.NDArray[np.intp]
Fold: TypeAlias = tuple[Positions, Positions]
_STACKING = StackingClassifier | StackingRegressor
_WITH_FOLDS = StackingClassifier | StackingRegressor | CalibratedClassifierCV


class Call(NamedTuple):
    """A call of `fit` or `predict` of an estimator of this package: a job, a recipe, some rows."""

    job: Job
    recipe: Recipe
    rows: Positions


class Calls:
    """Fits and predictions of estimators, as calls of the estimators of this package.

    Parameters
    ----------
    X : array-like
        X of the outermost estimator.
    y : array-like or None
        Targets.
    asked_by : str
        Name of the function that the user called, for messages.
    """

    def __init__(self, X: Any, y: Any, *, asked_by: str) -> None:
        self._X, self._y, self._asked_by = X, y, asked_by
        self.jobs = Jobs()
        self.groups: Positions | None = None
        self._composition = Composition(y)
        self._searches: dict[int, tuple[Any, list[Any]]] = {}

    def all_jobs(self, estimator: Any) -> list[Job]:
        """Return the jobs of an estimator and of the estimators in it.

        Raises
        ------
        TypeError
            If it contains no estimator of this package.
        """
        ours = is_estimator(estimator) and holds_ours(estimator)
        jobs = list(self._jobs_in(estimator, self._X)) if ours else []
        if not jobs:
            what = type(estimator).__name__ if is_estimator(estimator) else shown(estimator)
            raise TypeError(
                f"{self._asked_by}: {what} holds no estimator of sklearn_featx: expected a "
                "PretrainedFeatureExtractor, a fine-tuner, or a Pipeline, ColumnTransformer, "
                "search or other estimator with one in it."
            )
        return jobs

    def _jobs_in(self, estimator: Any, X: Any) -> Iterator[Job]:
        if isinstance(estimator, ImageEstimator):
            yield self.jobs.of(estimator, X)
        elif is_search(estimator):
            for candidate in self._candidates(estimator):
                yield from self._jobs_in(candidate, X)
        else:
            for inner, part in self._composition.parts(estimator, X):
                yield from self._jobs_in(inner, part)

    def fit(self, estimator: Any, rows: Positions, X: Any = None) -> Iterator[Call]:
        """Yield the calls of `fit`, or `fit_transform`, with some rows."""
        X = self._X if X is None else X
        if isinstance(estimator, ImageEstimator):
            job = self.jobs.of(estimator, X)
            # With normalize="layer", `fit` computes the features, and so does `transform`.
            for _ in range(1 + (getattr(estimator, "normalize", None) == "layer")):
                yield Call(job, job.fitting, rows)
        elif is_search(estimator):
            yield from self._fit_search(estimator, rows, X)
        elif not isinstance(estimator, FrozenEstimator):
            yield from self._fit_parts(estimator, rows, X)
        elif hasattr(estimator, "transform") and not hasattr(estimator, "predict"):
            # A frozen step of a pipeline is not fitted, but transforms.
            yield from self.predict(estimator, rows, X)

    def predict(self, estimator: Any, rows: Positions, X: Any = None) -> Iterator[Call]:
        """Yield the calls of one prediction, or `transform`, of some rows."""
        X = self._X if X is None else X
        if isinstance(estimator, ImageEstimator):
            job = self.jobs.of(estimator, X)
            yield Call(job, job.predicting, rows)
        elif is_search(estimator):
            yield from self.predict(self._candidates(estimator)[0], rows, X)
        else:
            n_copies = 1
            if _keeps_folds(estimator):
                n_copies = len(self.folds(estimator.cv, rows, estimator))
            for inner, part in self._composition.parts(estimator, X):
                for _ in range(n_copies):
                    yield from self.predict(inner, rows, part)

    def cross_validated(
        self, estimator: Any, folds: Sequence[Fold], X: Any = None, *, train_score: bool = False
    ) -> Iterator[Call]:
        """Yield the calls of a cross-validation."""
        for train, test in folds:
            yield from self.fit(estimator, train, X)
            yield from self.predict(estimator, test, X)
            if train_score:
                yield from self.predict(estimator, train, X)

    def folds(self, cv: Any, rows: Positions, estimator: Any) -> list[Fold]:
        """Return the folds that some rows are split into."""
        if hasattr(cv, "__next__"):
            raise TypeError(
                f"{self._asked_by}: cv is an iterator, which can be used only once. Pass a list."
            )
        y = None if self._y is None else _safe_indexing(self._y, rows)
        if isinstance(cv, float):
            cv = StratifiedShuffleSplit(1, test_size=cv, random_state=0)
        splitter = check_cv(copy.deepcopy(cv), y, classifier=is_classifier(estimator))
        zeros = np.zeros(len(rows))
        try:
            folds = list(splitter.split(zeros, y))
        except ValueError as error:
            if "groups" not in str(error) or self.groups is None:
                raise
            folds = list(splitter.split(zeros, y, self.groups[rows]))
        return [(rows[train], rows[test]) for train, test in folds]

    def _fit_search(self, search: Any, rows: Positions, X: Any) -> Iterator[Call]:
        found = self._candidates(search)
        folds = self.folds(search.cv, rows, search.estimator)
        train_score = bool(getattr(search, "return_train_score", False))
        for candidate in found:
            yield from self.cross_validated(candidate, folds, X, train_score=train_score)
        if getattr(search, "refit", True):
            # The best candidate is unknown: the first one stands for it.
            yield from self.fit(found[0], rows, X)

    def _fit_parts(self, estimator: Any, rows: Positions, X: Any) -> Iterator[Call]:
        parts = self._composition.parts(estimator, X)
        folds: list[Fold] = []
        if isinstance(estimator, _WITH_FOLDS | TunedThresholdClassifierCV):
            if isinstance(estimator.cv, str):
                # "prefit"
                return
            folds = self.folds(estimator.cv, rows, estimator)
        if isinstance(estimator, _STACKING) or not folds:
            for inner, part in parts:
                yield from self.fit(inner, rows, part)
        for inner, part in parts:
            yield from self.cross_validated(inner, folds, part)
        if folds and not isinstance(estimator, _STACKING) and not _keeps_folds(estimator):
            for inner, part in parts:
                yield from self.fit(inner, rows, part)

    def _candidates(self, search: Any) -> list[Any]:
        if id(search) not in self._searches:
            n_rows = len(self._X) if self._y is None else len(self._y)
            found = candidates(search, self._y, n_rows, self.groups)
            self._searches[id(search)] = (search, found)
        return self._searches[id(search)][1]


def _keeps_folds(estimator: Any) -> bool:
    """Whether an estimator predicts with one model for each fold."""
    if not isinstance(estimator, CalibratedClassifierCV) or isinstance(estimator.cv, str):
        return False
    frozen = isinstance(estimator.estimator, FrozenEstimator)
    return bool(not frozen if estimator.ensemble == "auto" else estimator.ensemble)
