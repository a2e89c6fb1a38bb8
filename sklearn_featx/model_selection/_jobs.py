"""Jobs: the images that reach an estimator of this package, its recipes, and its store."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..flow import Decision, Recipe, Settings, Tap, decide, open_store, row_keys
from ..images import Bags, ImageCollection
from ..store import FeatureStore


class Job(NamedTuple):
    """The work of one estimator.

    Parameters
    ----------
    rows : ImageCollection
        All rows that reach the estimator, each an image or a bag of images.
    images : ImageCollection
        The images of the rows, which pass through the network one by one.
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

    rows: ImageCollection
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

    def images_of(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return the positions of the images of some rows."""
        if not isinstance(self.rows, Bags):
            return np.asarray(rows, dtype=np.intp)
        members = [np.asarray(self.rows.members(int(row)), dtype=np.intp) for row in rows]
        return np.concatenate([np.empty(0, dtype=np.intp), *members])

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
        self._contents: dict[int, list[str]] = {}
        self._inputs: dict[int, ImageCollection] = {}

    def of(self, estimator: Any, X: Any) -> Job:
        """Return the job of an estimator on all of its X."""
        name = (id(estimator), id(X))
        if name not in self._jobs:
            self._jobs[name] = (estimator, X, self._made(estimator, X))
        return self._jobs[name][2]

    @property
    def sources(self) -> list[list[str]]:
        """Digests of the rows of each input, such as a column, as first read."""
        return list(self._first.values())

    @property
    def contents(self) -> list[list[str]]:
        """Digests of the images of each input, as first read."""
        return list(self._contents.values())

    @property
    def inputs(self) -> list[ImageCollection]:
        """The images of each input, in their first reading."""
        return list(self._inputs.values())

    def _made(self, estimator: Any, X: Any) -> Job:
        rows, fitting, predicting, settings = estimator.work(X)
        images = rows.images if isinstance(rows, Bags) else rows
        store = open_store(settings.cache)
        decision = decide(fitting, fitting.row_shapes(images), len(images), store)
        reading = (estimator.reader, estimator.on_error)
        how = (id(X), store and store.path, repr(reading))
        if how not in self._keys:
            keys = row_keys(images, store, settings.on_error, settings.n_jobs)
            # Unreadable images are distinct.
            self._keys[how] = [key or f"unreadable {i}" for i, key in enumerate(keys)]
        job = Job(rows, images, self._keys[how], fitting, predicting, settings, store, decision)
        self._note_input(id(X), job)
        return job

    def _note_input(self, name: int, job: Job) -> None:
        """Keep the first reading of an input."""
        if name not in self._inputs:
            members = (job.images_of([row]) for row in range(len(job.rows)))
            self._first[name] = [" ".join(job.keys[i] for i in images) for images in members]
            self._contents[name], self._inputs[name] = job.keys, job.rows


def layers_in_words(recipe: Recipe) -> str:
    """Return the names of the backbone and of the layers of a recipe."""
    names = list(dict.fromkeys(_layer_name(recipe, tap) for tap in recipe.taps))
    many = "s" if len(names) > 1 else ""
    return f"{recipe.backbone.name}, layer{many} {', '.join(names)}"


def _layer_name(recipe: Recipe, tap: Tap) -> str:
    if tap.layer == 0:
        return "0 (the preprocessed image)"
    return tap.layer if isinstance(tap.layer, str) else recipe.backbone.stages[tap.layer - 1].layer
