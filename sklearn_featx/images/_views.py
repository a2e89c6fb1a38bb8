"""Views: a collection of seeded variations of images, for augmentation.

A view is a function of the image's content, the variation and a seed. It is the same in every
thread, order, fold and process, and it has its own digest, so its rows are cached like those of any
image.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Self

import numpy as np

from .._digest import digest
from .._typing import Levels
from ..exceptions import InputError
from ._collection import ImageCollection, Positions, as_index, errors_at


class Variation(Protocol):
    """A function from an image and a seed to a view."""

    @property
    def digest(self) -> str | None:
        """Digest of the function; None if it is unknown."""

    @property
    def crops(self) -> bool:
        """Whether the views of one image have different sizes."""

    def __call__(self, pixels: Levels, seed: int) -> Levels:
        """Return one view, levels (H, W, C) like the image, determined by the two arguments."""


class Views(ImageCollection):
    """Views of images, in order: all images in the first view, then all in the second.

    Parameters
    ----------
    images : ImageCollection
        n images of pixels.
    keys : sequence of str
        Digest of each image.
    variation : Variation
        The variation.
    seed : int
        Seed of all views.
    views : sequence of int
        Numbers of the views.
    n_channels : int, default=1
        Number of channels of a picture that are images of their own, one after the other. They vary
        together, by the key of the first one.

    Raises
    ------
    InputError
        If the items are plain numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx.images import Views, as_image_collection
    >>> class Shift:
    ...     digest = "shift"
    ...
    ...     def __call__(self, pixels, seed):
    ...         return np.roll(pixels, seed % 3, axis=0)
    >>> images = as_image_collection(np.zeros((10, 8, 8), dtype=np.uint8))
    >>> keys = [images.digest(i) for i in range(10)]
    >>> views = Views(images, keys, Shift(), seed=0, views=range(4))
    >>> len(views), views.load(39).shape
    (40, (8, 8, 1))
    """

    def __init__(
        self,
        images: ImageCollection,
        keys: Sequence[str],
        variation: Variation,
        *,
        seed: int,
        views: Sequence[int],
        n_channels: int = 1,
    ) -> None:
        if images.kind != "pixels":
            raise InputError("augment varies images, but the rows of X are plain numbers.")
        self._images = images
        self._keys = keys
        self._variation = variation
        self._seed = seed
        self._n_channels = n_channels
        # One row per item: number of the image, number of the view.
        self._items = np.array([(i, view) for view in views for i in range(len(images))], np.intp)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, i: int) -> Levels:
        position, view = self._items[i].tolist()
        with errors_at(i):
            levels = self._images.load(position)
        return self._variation(levels, self._seed_of(position, view))

    def digest(self, i: int) -> str:
        position, view = self._items[i].tolist()
        what = digest("view-1", self._variation.digest, self._seed, view)
        first = self._first_channel(position)
        also = () if first == position else (self._keys[first],)
        return digest(self._keys[position], what, *also)

    def reading_ahead(
        self, positions: Sequence[int], *, with_states: bool
    ) -> AbstractContextManager[None]:
        images = [int(self._items[i][0]) for i in positions]
        return self._images.reading_ahead(images, with_states=with_states)

    # `path` stays None, because the digest of a view is not that of its file.

    def take(self, rows: Positions) -> Self:
        taken = object.__new__(type(self))
        taken.__dict__.update(self.__dict__, _items=self._items[as_index(rows)])
        return taken

    def _seed_of(self, position: int, view: int) -> int:
        """Return the seed of one view, which depends on the image's content, not its position."""
        key = self._keys[self._first_channel(position)]
        return int(digest(key, self._seed, view).rpartition(":")[2][:15], 16)

    def _first_channel(self, position: int) -> int:
        return position - position % self._n_channels
