"""Jobs: the images that reach an estimator of this package, its recipes, and its store."""

from typing import Any, NamedTuple

from ..flow import Decision, Recipe, Settings, Tap, decide, open_store, row_keys
from ..images import ImageCollection
from ..store import FeatureStore


class Job(NamedTuple):
    """The work of one estimator.

    Parameters
    ----------
    images : ImageCollection
        All images that reach the estimator.
    keys : list of str
        Digest of each image; jobs that read the same images in the same way share the list.
    fitting, predicting : Recipe
        Recipes of `fit` and `predict`.
    settings : Settings
        Settings of the computation.
    store : FeatureStore or None
        The store of its rows.
    decision : Decision
        Whether its rows are cached.
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
        """The layers, and whether their rows are cached."""
        verb = "cached" if self.decision.cached else "not cached"
        return f"{layers_in_words(self.fitting)}: {verb}, {self.decision.reason}"

    @property
    def pass_key(self) -> tuple[Any, ...]:
        """Key of the jobs that one pass over the images can serve."""
        return (*self.fitting.pass_key, id(self.keys), self.store and self.store.path)


class Jobs:
    """The jobs of estimators; each job is made once."""

    def __init__(self) -> None:
        # The estimators and their X are kept alive, so that their ids stay unique.
        self._jobs: dict[tuple[int, int], tuple[Any, Any, Job]] = {}
        self._keys: dict[Any, list[str]] = {}
        self._first: dict[int, list[str]] = {}
        self._inputs: dict[int, ImageCollection] = {}

    def of(self, estimator: Any, X: Any) -> Job:
        """Return the job of an estimator on all of its X."""
        name = (id(estimator), id(X))
        if name not in self._jobs:
            self._jobs[name] = (estimator, X, self._made(estimator, X))
        return self._jobs[name][2]

    @property
    def sources(self) -> list[list[str]]:
        """Digests of the images of each input, such as a column, as first read."""
        return list(self._first.values())

    @property
    def inputs(self) -> list[ImageCollection]:
        """The images of each input, in their first reading."""
        return list(self._inputs.values())

    def _made(self, estimator: Any, X: Any) -> Job:
        images, fitting, predicting, settings = estimator.work(X)
        store = open_store(settings.cache)
        decision = decide(fitting, fitting.row_shapes(images), len(images), store)
        reading = (estimator.reader, estimator.on_error)
        how = (id(X), store and store.path, repr(reading))
        if how not in self._keys:
            keys = row_keys(images, store, settings.on_error, settings.n_jobs)
            # Unreadable images are distinct.
            self._keys[how] = [key or f"unreadable {i}" for i, key in enumerate(keys)]
            self._first.setdefault(id(X), self._keys[how])
            self._inputs.setdefault(id(X), images)
        keys = self._keys[how]
        return Job(images, keys, fitting, predicting, settings, store, decision)


def layers_in_words(recipe: Recipe) -> str:
    """Return the names of the backbone and of the layers of a recipe."""
    names = list(dict.fromkeys(_layer_name(recipe, tap) for tap in recipe.taps))
    many = "s" if len(names) > 1 else ""
    return f"{recipe.backbone.name}, layer{many} {', '.join(names)}"


def _layer_name(recipe: Recipe, tap: Tap) -> str:
    if tap.layer == 0:
        return "0 (the preprocessed image)"
    return tap.layer if isinstance(tap.layer, str) else recipe.backbone.stages[tap.layer - 1].name
