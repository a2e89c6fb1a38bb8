"""What an estimator, or each candidate of a search, will do to the images of X."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
)
from sklearn.pipeline import Pipeline

from ..estimators._extractor import PretrainedFeatureExtractor
from ..estimators._finetune_base import FineTuneEstimator
from ..flow import Decision, Recipe, Settings, decide, open_store, row_keys
from ..images import ImageCollection
from ..store import FeatureStore


class Job(NamedTuple):
    """What one candidate does to the images.

    Parameters
    ----------
    images : ImageCollection
        All of X.
    keys : list of str
        Digest of each image; candidates that read X alike share the list.
    fitting, predicting : Recipe
        What `fit` and `predict` do to an image.
    settings : Settings
        How.
    store : FeatureStore or None
        Where rows are remembered.
    decision : Decision
        Whether they are.
    """

    images: ImageCollection
    keys: list[str]
    fitting: Recipe
    predicting: Recipe
    settings: Settings
    store: FeatureStore | None
    decision: Decision

    @property
    def decision_in_words(self) -> str:
        """The decision, with the layers that it is about."""
        layers = ", ".join(str(tap.layer) for tap in self.fitting.taps)
        verb = "remembered" if self.decision.remember else "not remembered"
        name = self.fitting.backbone.name
        return f"{name}, layer {layers}: {verb}, {self.decision.reason}"


def jobs_of(search: Any, X: Any, *, asked_by: str) -> list[Job]:
    """Return the jobs of an estimator, or of each candidate of a search.

    Parameters
    ----------
    search : estimator
        As in `plan_search`.
    X : array-like, list, Series, DataFrame or Dataset
        The images.
    asked_by : str
        Name of the function that the user called, for messages.

    Raises
    ------
    TypeError
        If no estimator of this package in it reads X.
    """
    keys: dict[Any, list[str]] = {}
    estimators = [_reader(candidate) for candidate in _candidates(search)]
    jobs = [_job(estimator, X, keys) for estimator in estimators if estimator is not None]
    if not jobs:
        raise TypeError(
            f"{asked_by}: {type(search).__name__} holds no estimator of sklearn_featx that reads "
            "X: expected one, a Pipeline that begins with one, or a search over one of these."
        )
    return jobs


def _candidates(search: Any) -> Iterator[Any]:
    if isinstance(search, GridSearchCV):
        grid: Iterable[Any] = ParameterGrid(search.param_grid)
    elif isinstance(search, RandomizedSearchCV):
        # The search's own generator is left where it is.
        seed = copy.deepcopy(search.random_state)
        grid = ParameterSampler(search.param_distributions, search.n_iter, random_state=seed)
    elif not hasattr(search, "get_params") or isinstance(search, type):
        # The caller says what was expected.
        return
    else:
        yield clone(search)
        return
    for parameters in grid:
        yield clone(search.estimator).set_params(**clone(parameters, safe=False))


def _reader(estimator: Any) -> Any:
    """Return the estimator of this package that gets X; None where another one gets it."""
    while isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
        estimator = steps[0] if steps else None
    ours = isinstance(estimator, PretrainedFeatureExtractor | FineTuneEstimator)
    return estimator if ours else None


def _job(estimator: Any, X: Any, known: dict[Any, list[str]]) -> Job:
    images, fitting, predicting, settings = estimator.work(X)
    store = open_store(settings.cache)
    decision = decide(fitting, fitting.row_shapes(images), len(images), store)
    how = repr((estimator.image_shape, estimator.value_range, estimator.on_error))
    if how not in known:
        keys = row_keys(images, store, failures=settings.failures)
        # What cannot be read is no copy of anything.
        known[how] = [key or f"unreadable {i}" for i, key in enumerate(keys)]
    return Job(images, known[how], fitting, predicting, settings, store, decision)
