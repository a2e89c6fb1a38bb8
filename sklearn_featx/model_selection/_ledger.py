"""The ledger: counts of passes and new rows over the calls of a search."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..flow import Recipe, Tap
from ..store import FeatureStore
from ._calls import Call
from ._jobs import Job, layers_in_words


class Load(NamedTuple):
    """Passes of one recipe, for an estimate of time.

    Parameters
    ----------
    job : Job
        The job of the images.
    recipe : Recipe
        The recipe.
    counts : ndarray of shape (n_images,), int
        Number of passes of each image.
    """

    job: Job
    recipe: Recipe
    counts: npt.NDArray[np.intp]


class Ledger:
    """Counts of passes, and the rows in the stores after each call."""

    def __init__(self) -> None:
        self.n_passes_without_cache = 0
        self.n_bytes = 0
        self._loads: dict[Any, Load] = {}
        self._lacking: dict[Any, set[str]] = {}
        self._added: dict[Any, set[str]] = {}
        self._positions: dict[int, dict[str, int]] = {}
        # Images that `precompute` would compute, by the key of their pass.
        self._together: dict[Any, set[str]] = {}
        self._n_uncached = 0

    @property
    def n_passes(self) -> int:
        """Number of images that pass through a network."""
        return sum(int(load.counts.sum()) for load in self._loads.values())

    @property
    def n_passes_after_precompute(self) -> int:
        """Number of images that pass through a network, with all layers in one pass."""
        return self._n_uncached + sum(len(keys) for keys in self._together.values())

    def loads(self) -> list[Load]:
        """Return the passes, grouped by recipe."""
        return list(self._loads.values())

    def by_layers(self) -> Iterator[tuple[str, int]]:
        """Yield the number of passes for each network and its layers."""
        counts: dict[str, int] = {}
        for load in self._loads.values():
            name = layers_in_words(load.recipe)
            counts[name] = counts.get(name, 0) + int(load.counts.sum())
        yield from counts.items()

    def enter(self, call: Call) -> None:
        """Count the passes of a call, and add its rows."""
        recipe, job = call.recipe, call.job
        counts = self._counts(call)
        passes = bool(recipe.network_taps)
        positions = job.images_of(call.rows)
        if passes:
            self.n_passes_without_cache += len(positions)
        if job.decision.cached and job.store is not None:
            new = self._new_rows(call, job.store)
            self._together.setdefault(job.pass_key, set()).update(new)
            places = self._places(job.keys)
            np.add.at(counts, [places[key] for key in new], 1)
        elif passes:
            np.add.at(counts, positions, 1)
            self._n_uncached += len(positions)

    def _counts(self, call: Call) -> npt.NDArray[np.intp]:
        recipe, job = call.recipe, call.job
        name = (recipe.pass_key, recipe.network_taps, id(job.keys))
        if name not in self._loads:
            self._loads[name] = Load(job, recipe, np.zeros(len(job.images), dtype=np.intp))
        return self._loads[name].counts

    def _new_rows(self, call: Call, store: FeatureStore) -> set[str]:
        """Digests of the images that pass through the network for a call."""
        wanted = {call.job.keys[i] for i in call.job.images_of(call.rows)}
        passing: set[str] = set()
        images, settings = call.job.images, call.job.settings
        input_shape = call.recipe.input_shape(images, settings.skip_unreadable)
        sizes = call.recipe.row_bytes(call.recipe.shapes_from(input_shape), store.storage)
        for tap, size in zip(call.recipe.taps, sizes, strict=True):
            new = self._lacking_rows(call, tap, store) & wanted
            name = (store.path, call.recipe.digest(tap))
            new -= self._added.setdefault(name, set())
            self._added[name] |= new
            self.n_bytes += len(new) * size
            if tap.layer != 0:
                passing |= new
        return passing

    def _lacking_rows(self, call: Call, tap: Tap, store: FeatureStore) -> set[str]:
        """Digests of the images whose rows are missing before the first call."""
        digest = call.recipe.digest(tap)
        name = (store.path, digest, id(call.job.keys))
        if name not in self._lacking:
            keys = call.job.keys
            self._lacking[name] = {keys[i] for i in store.rows(digest).missing(keys)}
        return self._lacking[name]

    def _places(self, keys: list[str]) -> dict[str, int]:
        if id(keys) not in self._positions:
            self._positions[id(keys)] = {key: i for i, key in enumerate(keys)}
        return self._positions[id(keys)]
