"""Rows of views, for training with augmentation.

Epoch e uses view e of each image, or view e modulo the number of fixed views. Fixed views pass
through the trunk once and are cached like any image. Fresh views, one for each epoch, are computed
on demand and never cached. With as many fixed views as epochs, both give the same training, except
for the last bits of float32.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from .._typing import AnyArray
from ..exceptions import InputError
from ..images import Bags, ImageCollection, Variation, Views
from ._activations import (
    Rows,
    activations,
    held_or_stored,
    joined,
    renumbered,
)
from ._recipe import Recipe
from ._settings import Settings

# Returns views, by their numbers.
MakeViews: TypeAlias = Callable[[Sequence[int]], ImageCollection]


class FixedViews:
    """Rows of a fixed number of views of n images; each epoch uses one view.

    Parameters
    ----------
    rows : ndarray, StoredRows, BagRows or JoinedRows of n_views * n rows
        All images in the first view, then all in the second.
    n_views : int
        Number of views.
    """

    def __init__(self, rows: Rows, n_views: int) -> None:
        self._rows = rows
        self.of_bags = getattr(rows, "of_bags", False)
        self._n_views = n_views
        self._view = 0

    def __len__(self) -> int:
        return len(self._rows) // self._n_views

    def __getitem__(self, positions: list[int]) -> AnyArray | tuple[AnyArray, ...]:
        """Read rows of the epoch's view."""
        first = self._view * len(self)
        return self._rows[[first + position for position in positions]]

    def start_epoch(self, epoch: int) -> None:
        """Select the view of an epoch."""
        self._view = epoch % self._n_views


class FreshViews:
    """Rows of n images, in a new view in each epoch, computed on demand.

    Parameters
    ----------
    make_views : callable
        Returns the views with some numbers.
    recipe : Recipe
        Its taps are the parts of a row.
    settings : Settings
        Settings of the computation; nothing is cached.
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
        pools_later = any(recipe.keeps_images_at(tap) for tap in recipe.taps)
        self.of_bags = isinstance(self._views, Bags) and pools_later

    def __len__(self) -> int:
        return self._n_images

    def __getitem__(self, positions: list[int]) -> AnyArray | tuple[AnyArray, ...]:
        """Compute rows of the epoch's view."""
        with renumbered(positions):
            found = activations(self._views.take(positions), self._recipe, self._settings)
        rows = joined(found.taps)
        return rows[list(range(len(rows)))]

    def start_epoch(self, epoch: int) -> None:
        """Select the view of an epoch."""
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
    """Return the rows of views for training.

    Parameters
    ----------
    images : ImageCollection
        n images.
    keys : sequence of str
        Digest of each; of each image of bags.
    variation : Variation
        Makes a view; without a digest, no row is cached.
    recipe : Recipe
        The recipe of the rows; its taps are the parts of a row.
    settings : Settings
        Settings of the computation.
    seed : int
        Seed of all views.
    n_views : int or None
        Number of views of each image; None: a new view in each epoch.

    Raises
    ------
    InputError
        If views have different sizes, and nothing brings them to one.
    """
    if variation.crops and recipe.deterministic and recipe.stated_input_shape(images) is None:
        raise InputError(
            "augment crops each view to a size of its own, and this network takes images as they "
            "are. Pass image_size=, the size that all views are brought to."
        )

    def make_views(numbers: Sequence[int]) -> ImageCollection:
        if not isinstance(images, Bags):
            return Views(images, keys, variation, seed=seed, views=numbers)
        views = Views(
            images.images,
            keys,
            variation,
            seed=seed,
            views=numbers,
            n_channels=images.n_channels,
        )
        return images.over(views, np.tile(images.sizes, len(numbers)))

    if n_views is None:
        return FreshViews(make_views, recipe, settings, len(images))
    # All of these images were readable.
    settings = settings._replace(on_error="raise")
    if variation.digest is None:
        settings = settings._replace(cache=False)
    with renumbered(np.tile(np.arange(len(images)), n_views).tolist()):
        found = held_or_stored(make_views(range(n_views)), recipe, settings)
    return FixedViews(joined(found.taps), n_views)
