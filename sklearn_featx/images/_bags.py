"""Bags: a collection whose rows consist of several images each.

The images of all bags are one flat collection. Each is read, computed and cached alone; the flow
pools the rows of a bag. Channels that pass alone are images too: those of an image lie one after
the other, and their rows side by side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._digest import digest
from .._typing import AnyArray
from ..exceptions import ImageError
from ._bag_pooling import n_parts
from ._collection import ImageCollection, Positions, Source, as_index
from ._range_use import RangeUse


class Bags(ImageCollection):
    """Rows of several images.

    Parameters
    ----------
    images : ImageCollection
        The images of all bags, those of a bag one after the other.
    sizes : sequence of int
        Number of images of each bag, at least 1.
    pooling : str or None
        How the rows of a bag become one; see `pool_bag`. None: a bag is the channels of one image.
    n_channels : int, default=None
        Number of channels of an image that are images of the collection; None: images are whole.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx.images import ReadOptions, as_image_collection
    >>> photo = np.zeros((8, 6), dtype=np.uint8)
    >>> options = ReadOptions(bag_pooling="mean")
    >>> bags = as_image_collection([[photo, photo], [photo]], options)
    >>> len(bags), len(bags.images), len(bags.take([1]).images)
    (2, 3, 1)
    """

    def __init__(
        self,
        images: ImageCollection,
        sizes: Sequence[int] | AnyArray,
        pooling: str | None,
        n_channels: int | None = None,
    ) -> None:
        self.images = images
        self.of_channels = n_channels is not None
        self.n_channels = n_channels or 1
        self.sizes: npt.NDArray[np.intp] = np.asarray(sizes, dtype=np.intp)
        self.pooling = pooling
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])
        assert self._starts[-1] == len(images)

    @property
    def kind(self) -> Any:  # type: ignore[override]
        """That of the images."""
        return self.images.kind

    @property
    def n_features(self) -> int | None:  # type: ignore[override]
        """That of the images."""
        return self.images.n_features

    @property
    def item_shape(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """That of the images."""
        return self.images.item_shape

    @property
    def range_use(self) -> RangeUse | None:  # type: ignore[override]
        """That of the images."""
        return self.images.range_use

    @property
    def n_parts(self) -> int:
        """Number of rows that are concatenated to the row of a bag."""
        return n_parts(self.pooling, self.n_channels)

    def __len__(self) -> int:
        return len(self.sizes)

    def members(self, i: int) -> range:
        """Positions of the images of one bag."""
        return range(self._starts[i], self._starts[i + 1])

    def owner(self, image: int) -> int:
        """Position of the bag of an image."""
        return int(np.searchsorted(self._starts, image, side="right")) - 1

    def load(self, i: int) -> AnyArray:
        """Read the first image of a bag, which stands for it in displays."""
        return self.images.load(self.members(i)[0])

    def digest(self, i: int) -> str:
        """Return the digest of the images of a bag, in their order, and of the pooling."""
        return self.digest_of_members([self.images.digest(k) for k in self.members(i)])

    def digest_of_members(self, digests: Sequence[str]) -> str:
        """Return the digest of a bag from those of its images."""
        return digest("bag", str(self.pooling), str(self.n_channels), *digests)

    def path(self, i: int) -> str | None:  # noqa: ARG002
        """None: a bag is no file."""
        return None

    def sources(self, i: int) -> list[Source]:
        """Return the sources of all images of a bag."""
        return [source for k in self.members(i) for source in self.images.sources(k)]

    def n_pixels(self, i: int) -> int | None:
        """Return the number of pixels of all images of a bag."""
        counts = [self.images.n_pixels(k) for k in self.members(i)]
        return None if None in counts else sum(n for n in counts if n is not None)

    def take(self, rows: Positions) -> "Bags":
        chosen = np.arange(len(self))[as_index(rows)]
        images = [k for i in chosen for k in self.members(i)]
        return self.over(self.images.take(images), self.sizes[chosen])

    def over(self, images: ImageCollection, sizes: Sequence[int] | AnyArray) -> "Bags":
        """Return bags of other images, pooled in the same way."""
        n_channels = self.n_channels if self.of_channels else None
        return Bags(images, sizes, self.pooling, n_channels)

    def located(self, error: ImageError) -> ImageError:
        """Return an error of an image with the row of its bag, and its place in it."""
        assert error.row is not None
        row = self.owner(error.row)
        place, size = (
            int(n) // self.n_channels for n in (error.row - self._starts[row], self.sizes[row])
        )
        reason = error.reason if size == 1 else f"image {place} of {size}: {error.reason}"
        return ImageError(reason, row, error.path or self.images.path(error.row))

    def failures(self, errors: Sequence[ImageError]) -> list[ImageError]:
        """Return one error for each bag with an unreadable image: that of its first."""
        first: dict[int | None, ImageError] = {}
        for error in sorted(errors, key=lambda error: error.row or 0):
            located = self.located(error)
            first.setdefault(located.row, located)
        return list(first.values())
