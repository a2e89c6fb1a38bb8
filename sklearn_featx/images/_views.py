"""Views: seeded variations of images, as a collection that is read like any other.

A view is a function of the image's content, of the variation and of a seed. So it is the same from
any thread, in any order, in another fold or process, and it has a digest of its own: what a network
computes for it may be remembered like that of any image.
"""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np

from .._digest import combine, digest
from .._typing import Levels
from ..exceptions import InputError
from ._collection import ImageCollection, Rows, as_index, errors_at


class Variation(Protocol):
    """What makes views of an image."""

    @property
    def digest(self) -> str | None:
        """Digest of what it does; None where that is not known."""

    def __call__(self, pixels: Levels, seed: int) -> Levels:
        """Return one view, levels (H, W, C) like the image; a function of the two arguments."""


class Views(ImageCollection):
    """Views of images, in order: all images in the first view, then all in the second.

    Parameters
    ----------
    images : ImageCollection
        n images of pixels.
    keys : sequence of str
        Digest of each image.
    variation : Variation
        Makes a view.
    seed : int
        Seed of all views.
    views : sequence of int
        Numbers of the views.

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
    ) -> None:
        if images.kind != "pixels":
            raise InputError("augment varies images, but the rows of X are plain numbers.")
        self._images = images
        self._keys = keys
        self._variation = variation
        self._seed = seed
        # One line for each item: number of the image, number of the view.
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
        return combine([self._keys[position], what])

    # `path` stays None: the digest of a file is not that of its view.

    def take(self, rows: Rows) -> Self:
        taken = object.__new__(type(self))
        taken.__dict__.update(self.__dict__, _items=self._items[as_index(rows)])
        return taken

    def _seed_of(self, position: int, view: int) -> int:
        """Seed of one view, which depends on the image's content and not on its place."""
        return int(digest(self._keys[position], self._seed, view).rpartition(":")[2][:15], 16)
