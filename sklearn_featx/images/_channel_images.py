"""Channels as images: a collection of the channels of other images, each a gray image."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from .._preprocess import Preprocess
from .._typing import Levels, OnError
from ..exceptions import ImageError
from ._collection import ImageCollection, Positions, Source, as_index, errors_at
from ._items import Item, UnreadableItem, load_resized
from ._range_use import RangeUse


class Images(Protocol):
    """A collection whose images have channels."""

    range_use: RangeUse | None

    def __len__(self) -> int:
        """Count the images."""
        ...

    def item(self, i: int) -> Item:
        """Return one image with all its channels; raise `ImageError` if it cannot be read."""

    def sources(self, i: int) -> list[Source]:
        """Return the sources of one image."""

    def take(self, rows: Positions) -> Any:
        """Return a collection of selected images."""


class ChannelImages(ImageCollection):
    """The channels of images, those of an image one after the other.

    Parameters
    ----------
    images : Images
        Images of `n_channels` each; another number is an error of the image.
    n_channels : int
        Number of channels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx.images import ReadOptions, as_image_collection
    >>> stacks = np.zeros((4, 5, 8, 8), dtype=np.uint8)
    >>> bags = as_image_collection(stacks, ReadOptions(channels="each"))
    >>> len(bags), len(bags.images), bags.images.load(19).shape
    (4, 20, (8, 8, 1))
    """

    def __init__(self, images: Images, n_channels: int) -> None:
        self._images = images
        self._rows: npt.NDArray[np.intp] = np.arange(len(images) * n_channels)
        self.n_channels = n_channels
        self.range_use = images.range_use

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, i: int) -> Levels:
        with errors_at(i):
            return self._item(i).load()

    def load_resized(self, i: int, preprocess: Preprocess) -> Levels:
        with errors_at(i):
            return load_resized(self._item(i), preprocess)

    def digest(self, i: int) -> str:
        with errors_at(i):
            return self._item(i).digest()

    def sources(self, i: int) -> list[Source]:
        return self._images.sources(int(self._rows[i]) // self.n_channels)

    def take(self, rows: Positions) -> Self:
        taken = object.__new__(type(self))
        taken.__dict__.update(self.__dict__, _rows=self._rows[as_index(rows)])
        return taken

    def _item(self, i: int) -> Item:
        row, channel = divmod(int(self._rows[i]), self.n_channels)
        item = self._images.item(row)
        check_equal(item.n_channels(), self.n_channels)
        return item.channel(channel)

    def __getstate__(self) -> dict[str, Any]:
        rows, channels = np.divmod(self._rows, self.n_channels)
        kept, places = np.unique(rows, return_inverse=True)
        return {
            **self.__dict__,
            "_images": self._images.take(kept),
            "_rows": places * self.n_channels + channels,
        }


def check_equal(n_channels: int, wanted: int) -> None:
    """Raise an `ImageError` if an image has another number of channels than the others."""
    if n_channels != wanted:
        raise ImageError(
            f"the image has {n_channels} channel{'s' if n_channels != 1 else ''}, and others have "
            f"{wanted}: channels='each' needs as many in all. Choose some with "
            "reader=ImageReader(channels=[...])."
        )


def with_each_channel(images: Images, n_channels: int | None = None) -> ChannelImages:
    """Return the channels of images; None: as many as the first readable one has."""
    if n_channels is None:
        counts = (_counted(images.item, i) for i in range(len(images)))
        n_channels = next((count for count in counts if isinstance(count, int)), 1)
    return ChannelImages(images, n_channels)


def split(
    rows: Sequence[Sequence[Item]], on_error: OnError, n_channels: int | None = None
) -> tuple[list[list[Item]], int]:
    """Return the channels of the images of each row, and the number of channels of an image.

    `n_channels` is that number; None: that of most images. An image that cannot be read, or has
    another number, raises its `ImageError` with the row, or is an unreadable item for each channel.
    """
    counts = [[_counted(items.__getitem__, i) for i in range(len(items))] for items in rows]
    if n_channels is None:
        known = Counter(n for of_row in counts for n in of_row if isinstance(n, int))
        n_channels = known.most_common(1)[0][0] if known else 1
    found = []
    for row, (items, of_row) in enumerate(zip(rows, counts, strict=True)):
        parts: list[Item] = []
        for item, count in zip(items, of_row, strict=True):
            try:
                if isinstance(count, ImageError):
                    raise count
                check_equal(count, n_channels)
                parts += [item.channel(number) for number in range(n_channels)]
            except ImageError as error:
                path = error.path or item.path
                if on_error == "raise":
                    raise ImageError(error.reason, row, path) from error.__cause__
                parts += [UnreadableItem(error.reason, path)] * n_channels
        found.append(parts)
    return found, n_channels


def _counted(item: Callable[[int], Item], i: int) -> int | ImageError:
    try:
        return item(i).n_channels()
    except ImageError as error:
        return error
