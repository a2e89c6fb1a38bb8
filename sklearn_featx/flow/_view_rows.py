"""Rows of views, for training: which view an epoch sees, and which views are remembered.

Epoch e sees view e of each image; of a fixed number of views, it sees view e modulo that number.
Fixed views go through the trunk once and are remembered like any image; fresh ones, a new view in
each epoch, are computed when a batch asks for them and never remembered. Which of the two it is
changes no row: with as many views as epochs they give the same training, but for the last bits of
float32.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from .._typing import AnyArray
from ..images import ImageCollection, Variation, Views
from ._activations import (
    JoinedRows,
    StoredRows,
    activations,
    held_or_stored,
    joined,
    renumbered,
)
from ._recipe import Recipe
from ._settings import Settings

TrainingRows: TypeAlias = "AnyArray | StoredRows | JoinedRows | FixedViews | FreshViews"
# Gives views, by their numbers.
MakeViews: TypeAlias = Callable[[Sequence[int]], ImageCollection]


class FixedViews:
    """Rows of some views of n images; each epoch sees one view.

    Parameters
    ----------
    rows : ndarray, StoredRows or JoinedRows of n_views * n rows
        All images in the first view, then all in the second.
    n_views : int
        Number of views.
    """

    def __init__(self, rows: AnyArray | StoredRows | JoinedRows, n_views: int) -> None:
        self._rows = rows
        self._n_views = n_views
        self._view = 0

    def __len__(self) -> int:
        return len(self._rows) // self._n_views

    def __getitem__(self, positions: list[int]) -> AnyArray | tuple[AnyArray, ...]:
        """Read rows of the epoch's view."""
        first = self._view * len(self)
        return self._rows[[first + position for position in positions]]

    def start_epoch(self, epoch: int) -> None:
        """Turn to the view that an epoch sees."""
        self._view = epoch % self._n_views


class FreshViews:
    """Rows of n images, of a new view in each epoch, computed when they are asked for.

    Parameters
    ----------
    make_views : callable
        Gives the views with some numbers.
    recipe : Recipe
        Its taps are the parts of a row.
    settings : Settings
        Without a cache.
    n_images : int
        Number of images.
    """

    def __init__(
        self, make_views: MakeViews, recipe: Recipe, settings: Settings, n_images: int
    ) -> None:
        self._make_views = make_views
        self._recipe = recipe
        self._settings = settings._replace(cache=False, verbose=0)
        self._n_images = n_images
        self._views = make_views([0])

    def __len__(self) -> int:
        return self._n_images

    def __getitem__(self, positions: list[int]) -> AnyArray | tuple[AnyArray, ...]:
        """Compute rows of the epoch's view."""
        with renumbered(positions):
            found = activations(self._views.take(positions), self._recipe, self._settings)
        return found.taps[0] if len(found.taps) == 1 else tuple(found.taps)

    def start_epoch(self, epoch: int) -> None:
        """Turn to the view that an epoch sees."""
        self._views = self._make_views([epoch])


def rows_of_views(
    images: ImageCollection,
    keys: Sequence[str],
    variation: Variation,
    recipe: Recipe,
    settings: Settings,
    *,
    seed: int,
    n_views: int | None,
) -> FixedViews | FreshViews:
    """Give the rows of views that training sees.

    Parameters
    ----------
    images : ImageCollection
        n images.
    keys : sequence of str
        Digest of each.
    variation : Variation
        Makes a view; where it has no digest, no row is remembered.
    recipe : Recipe
        What is done to a view; its taps are the parts of a row.
    settings : Settings
        How.
    seed : int
        Seed of all views.
    n_views : int or None
        Number of views of each image; None: a fresh one in each epoch.
    """

    def make_views(numbers: Sequence[int]) -> Views:
        return Views(images, keys, variation, seed=seed, views=numbers)

    if n_views is None:
        return FreshViews(make_views, recipe, settings, len(images))
    # These images have been read once.
    settings = settings._replace(on_error="raise")
    if variation.digest is None:
        settings = settings._replace(cache=False)
    with renumbered(np.tile(np.arange(len(images)), n_views).tolist()):
        found = held_or_stored(make_views(range(n_views)), recipe, settings)
    return FixedViews(joined(found.taps), n_views)
