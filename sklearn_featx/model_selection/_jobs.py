"""Jobs: what one of our estimators does to the images that reach it, and where its rows are."""

from typing import Any, NamedTuple

from ..flow import Decision, Recipe, Settings, Tap, decide, open_store, row_keys
from ..images import ImageCollection
from ..store import FeatureStore


class Job(NamedTuple):
    """What one estimator does to the images.

    Parameters
    ----------
    images : ImageCollection
        All images that reach it.
    keys : list of str
        Digest of each image; jobs that read the same images in the same way share the list.
    fitting, predicting : Recipe
        What `fit` and `predict` do to an image.
    settings : Settings
        How.
    store : FeatureStore or None
        Where rows are cached.
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
        verb = "cached" if self.decision.cached else "not cached"
        return f"{layers_in_words(self.fitting)}: {verb}, {self.decision.reason}"

    @property
    def way(self) -> tuple[Any, ...]:
        """Equal for jobs that one pass of the images can serve."""
        return (*self.fitting.pass_key, id(self.keys), self.store and self.store.path)


class Jobs:
    """The jobs of estimators, each made once."""

    def __init__(self) -> None:
        # The estimators and their X are held, so that no other object gets their id.
        self._jobs: dict[tuple[int, int], tuple[Any, Any, Job]] = {}
        self._keys: dict[Any, list[str]] = {}
        self._first: dict[int, list[str]] = {}
        self._inputs: dict[int, ImageCollection] = {}

    def of(self, estimator: Any, X: Any) -> Job:
        """Return the job of an estimator on all of what it gets."""
        name = (id(estimator), id(X))
        if name not in self._jobs:
            self._jobs[name] = (estimator, X, self._made(estimator, X))
        return self._jobs[name][2]

    @property
    def sources(self) -> list[list[str]]:
        """Digests of the images of each input, a column for instance, in their first reading."""
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
            # An unreadable image is no copy of another.
            self._keys[how] = [key or f"unreadable {i}" for i, key in enumerate(keys)]
            self._first.setdefault(id(X), self._keys[how])
            self._inputs.setdefault(id(X), images)
        keys = self._keys[how]
        return Job(images, keys, fitting, predicting, settings, store, decision)


def layers_in_words(recipe: Recipe) -> str:
    """Name the backbone and the layers at which a recipe takes rows."""
    names = list(dict.fromkeys(_layer_name(recipe, tap) for tap in recipe.taps))
    many = "s" if len(names) > 1 else ""
    return f"{recipe.backbone.name}, layer{many} {', '.join(names)}"


def _layer_name(recipe: Recipe, tap: Tap) -> str:
    if tap.layer == 0:
        return "0 (the preprocessed image)"
    return tap.layer if isinstance(tap.layer, str) else recipe.backbone.stages[tap.layer - 1].name
