"""A dry run: what a fit or a search will compute, before hours are spent.

It goes through the calls that the search will make, in their order, and asks the store which rows
are there. It computes no row but those of a timed sample, and writes none. Files whose content the
store does not know are read, and their digests remembered: the run need not read them for that.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    check_cv,
)

from ..flow import Recipe, Tap, activations
from ..store import FeatureStore
from ._candidates import Job, jobs_of

_N_TIMED = 8

Fold: TypeAlias = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a fit or a search will compute; made by `plan_search`.

    Parameters
    ----------
    n_images : int
        Images in X.
    n_distinct : int
        Images of different content.
    n_passes_without_cache : int
        Images that would go through the trunk with ``cache=False``.
    n_passes : int
        Images that will go through it, given what the cache holds already.
    n_bytes : int
        Disk space that new rows will take in the cache.
    decisions : tuple of str
        For each kind of row, whether it will be remembered, and why.
    minutes : float or None
        An estimate of the time for the passes, on this device: the training of tails and of what
        comes after the features is not in it. None when no sample was timed.
    groups : ndarray of shape (n_images,), int
        One number for each image, equal where the content is equal: the `groups` of `GroupKFold`.
    warning : str or None
        What to do where cross-validation would separate images of equal content.
    """

    n_images: int
    n_distinct: int
    n_passes_without_cache: int
    n_passes: int
    n_bytes: int
    decisions: tuple[str, ...]
    minutes: float | None
    groups: npt.NDArray[np.intp]
    warning: str | None

    def __str__(self) -> str:
        lines = [
            f"{self.n_images:,} images, {self.n_distinct:,} distinct",
            f"{self.n_passes:,} passes through the trunk"
            f" ({self.n_passes_without_cache:,} without cache)",
            f"{self.n_bytes / 1e6:,.1f} MB of disk space",
            *self.decisions,
        ]
        if self.minutes is not None:
            lines.append(f"about {self.minutes:.1f} minutes for the passes (an estimate)")
        if self.warning is not None:
            lines.append(f"warning: {self.warning}")
        return "\n".join(lines)


def plan_search(
    search_or_estimator: Any, X: Any, y: Any = None, *, cv: Any = None, timed: bool = True
) -> Plan:
    """Say what a fit or a search will compute, without doing it.

    Parameters
    ----------
    search_or_estimator : estimator
        A `PretrainedFeatureExtractor`, `FineTuneClassifier` or `FineTuneRegressor`, a `Pipeline`
        that begins with one, or a `GridSearchCV` or `RandomizedSearchCV` over one of these.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        As in `fit`.
    y : array-like of shape (n_images,), default=None
        Targets, for folds that are stratified.
    cv : int, splitter or list of folds, default=None
        None: that of the search; for an estimator, one fit to all images. Else a cross-validation.
    timed : bool, default=True
        Whether to put a sample of 8 images through each trunk, to estimate the time.

    Returns
    -------
    plan : Plan
        The numbers of passes are those of a search in one process, with one prediction for each
        fold. A random search whose `random_state` is None will draw other candidates.

    Raises
    ------
    TypeError
        If there is no estimator of this package in it that reads X, or the folds are an iterator,
        which can be used once only.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_featx import FineTuneClassifier, plan_search
    >>> digits = load_digits(n_class=2)
    >>> search = GridSearchCV(FineTuneClassifier(image_size=32), {"lr": [1e-3, 1e-2]}, cv=3)
    >>> planned = plan_search(search, digits.images[:30] / 16, digits.target[:30], timed=False)
    >>> planned.n_images, planned.n_passes_without_cache
    (30, 210)
    """
    search = search_or_estimator
    jobs = jobs_of(search, X, asked_by="plan_search")
    groups = _groups(jobs[0].keys)
    is_search = isinstance(search, GridSearchCV | RandomizedSearchCV)
    folds: list[Fold] = []
    if is_search or cv is not None:
        estimator = search.estimator if is_search else search
        folds = _folds(search.cv if cv is None else cv, y, groups, is_classifier(estimator))
    ledger = _Ledger()
    for call in _calls(jobs, folds, search if is_search else None):
        ledger.enter(call)
    return Plan(
        n_images=len(groups),
        n_distinct=len(np.unique(groups)),
        n_passes_without_cache=ledger.n_passes_without_cache,
        n_passes=sum(ledger.passes.values()),
        n_bytes=ledger.n_bytes,
        decisions=tuple(dict.fromkeys(job.decision_in_words for job in jobs)),
        minutes=_minutes(jobs, ledger) if timed else None,
        groups=groups,
        warning=_warning(groups, folds),
    )


class _Call(NamedTuple):
    """One call of `fit` or `predict`: some images, through one recipe."""

    job: Job
    recipe: Recipe
    rows: Sequence[int] | npt.NDArray[np.intp]


# What the search will do


def _folds(cv: Any, y: Any, groups: npt.NDArray[np.intp], classifier: bool) -> list[Fold]:
    if hasattr(cv, "__next__"):
        raise TypeError("plan_search: cv is an iterator, which can be used once only; give a list.")
    splitter = check_cv(copy.deepcopy(cv), y, classifier=classifier)
    rows = np.zeros(len(groups))
    try:
        return list(splitter.split(rows, y))
    except ValueError as error:
        if "groups" not in str(error):
            raise
        return list(splitter.split(rows, y, groups))


def _calls(jobs: Sequence[Job], folds: Sequence[Fold], search: Any) -> Iterator[_Call]:
    for job in jobs:
        for train, test in folds:
            yield _Call(job, job.fitting, train)
            yield _Call(job, job.predicting, test)
            if search is not None and search.return_train_score:
                yield _Call(job, job.predicting, train)
    if not folds or (search is not None and search.refit):
        # Which candidate will be the best is not known: any, as if it were the first.
        yield _Call(jobs[0], jobs[0].fitting, range(len(jobs[0].images)))


class _Ledger:
    """What is in the stores, as the calls go by."""

    def __init__(self) -> None:
        self.n_passes_without_cache = 0
        self.n_bytes = 0
        # By what decides how long a pass takes.
        self.passes: dict[Any, int] = {}
        self._lacking: dict[Any, set[str]] = {}

    def enter(self, call: _Call) -> None:
        """Count the passes of a call, and note the rows that it adds."""
        recipe, job = call.recipe, call.job
        if recipe.network_taps:
            self.n_passes_without_cache += len(call.rows)
        n_passes = len(call.rows) if recipe.network_taps else 0
        if job.decision.remember and job.store is not None:
            n_passes = self._new_rows(call, job.store)
        key = _timing_key(recipe)
        self.passes[key] = self.passes.get(key, 0) + n_passes

    def _new_rows(self, call: _Call, store: FeatureStore) -> int:
        wanted = {call.job.keys[i] for i in call.rows}
        passing: set[str] = set()
        shapes = _row_shapes(call.recipe, call.job)
        for tap, shape in zip(call.recipe.taps, shapes, strict=True):
            lacking = self._lacking_rows(call, tap, store)
            new = lacking & wanted
            lacking -= new
            self.n_bytes += len(new) * math.prod(shape) * _item_bytes(tap, call.job, store)
            if tap.layer != 0:
                passing |= new
        return len(passing)

    def _lacking_rows(self, call: _Call, tap: Tap, store: FeatureStore) -> set[str]:
        digest = call.recipe.digest(tap)
        name = (store, digest, id(call.job.keys))
        if name not in self._lacking:
            keys = call.job.keys
            self._lacking[name] = {keys[i] for i in store.rows(digest).missing(keys)}
        return self._lacking[name]


def _timing_key(recipe: Recipe) -> Any:
    return (recipe.backbone, recipe.network_taps, repr(recipe.preprocess), recipe.arithmetic)


def _row_shapes(recipe: Recipe, job: Job) -> list[tuple[int, ...]]:
    input_shape = recipe.input_shape(job.images, job.settings.skip_unreadable)
    inside = iter(recipe.output_shapes(input_shape) if recipe.network_taps else ())
    return [input_shape if tap.layer == 0 else next(inside) for tap in recipe.taps]


def _item_bytes(tap: Tap, job: Job, store: FeatureStore) -> int:
    if tap.layer == 0 and job.images.kind == "pixels":
        return 1
    return 4 if store.storage == "float32" else 2


def _minutes(jobs: Sequence[Job], ledger: _Ledger) -> float:
    """Estimate the time of all passes from that of a few, the first of which warms up."""
    recipes = {
        _timing_key(recipe): (job, recipe)
        for job in jobs
        for recipe in (job.predicting, job.fitting)
    }
    seconds = 0.0
    for key, n_passes in ledger.passes.items():
        if n_passes:
            job, recipe = recipes[key]
            sample = job.images.take(slice(0, _N_TIMED))
            settings = job.settings._replace(cache=False)
            activations(sample, recipe, settings.for_another_call())
            start = time.perf_counter()
            activations(sample, recipe, settings.for_another_call())
            seconds += n_passes * (time.perf_counter() - start) / len(sample)
    return seconds / 60


# Duplicates


def _groups(keys: Sequence[str]) -> npt.NDArray[np.intp]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)


def _warning(groups: npt.NDArray[np.intp], folds: Sequence[Fold]) -> str | None:
    separated: set[int] = set()
    for train, test in folds:
        separated |= set(groups[train].tolist()) & set(groups[test].tolist())
    if not separated:
        return None
    return (
        f"copies of one image are in training and test folds at once ({len(separated)} images), "
        "which makes scores too high. Keep them together: cv=GroupKFold() and "
        "fit(X, y, groups=groups), with the groups of this plan."
    )
