"""ImageCollection: a sequence of images that are read on demand, from any thread.

Implementations: an array of pixels, an array of plain numbers and a list of items in this file;
`_dataset` for the user's datasets, `_lazy` for arrays that are read by slices, `_bags` for rows of
several images, `_views` for variations. A pickled array contains only the selected rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from .._digest import digest, digest_array
from .._preprocess import Preprocess
from .._typing import AnyArray, Levels
from ..exceptions import ImageError
from ._geometry import resize_and_crop
from ._items import (
    ArrayItem,
    BytesItem,
    FileItem,
    Item,
    RemoteItem,
    UnreadableItem,
    load_resized,
    n_pixels,
)
from ._layout import Layout
from ._parts import PartItem
from ._range_use import RangeUse
from ._remote import State
from ._scaling import ValueRange

# A path, the content of a file, a remote file; None for what is no file.
Source: TypeAlias = str | bytes | RemoteItem | None
Positions: TypeAlias = Sequence[int] | slice | npt.NDArray[Any]


class ImageCollection(ABC):
    """A sequence of images that are read on demand.

    Attributes
    ----------
    kind : {"pixels", "values"}
        Whether `load` returns levels from 0 (black) to 255 (white) or plain numbers.
    n_features : int or None
        Number of columns if X was a 2-D numeric table.
    item_shape : tuple of int or None
        Shape of every item if `kind` is "values"; None for pixels.
    range_use : RangeUse or None
        The values that `load` has read in declared ranges; see `RangeUse`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx.images import as_image_collection
    >>> images = as_image_collection(np.zeros((10, 3, 8, 6), dtype=np.uint8))
    >>> len(images), images.kind, images.load(0).shape
    (10, 'pixels', (8, 6, 3))
    >>> len(images.take([0, 5]))
    2
    """

    kind: Literal["pixels", "values"] = "pixels"
    n_features: int | None = None
    item_shape: tuple[int, ...] | None = None
    range_use: RangeUse | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, i: int) -> AnyArray:
        """Read one image.

        Parameters
        ----------
        i : int
            Position of the image.

        Returns
        -------
        image : ndarray of shape (H, W, C), dtype uint8 or float32
            C is 1 for gray and 3 for RGB. Levels are float32 if they are not whole numbers. Plain
            numbers are float32 of `item_shape`. The array may share memory with X and must not be
            changed.

        Raises
        ------
        ImageError
            If the image cannot be read. The error has `row`, which is `i`, and `path`.
        """

    def load_resized(self, i: int, preprocess: Preprocess) -> Levels:
        """Read one image, resize and crop it.

        Parameters
        ----------
        i : int
            Position of the image, which has pixels.
        preprocess : Preprocess
            The preprocessing.

        Returns
        -------
        image : ndarray of shape (h, w, preprocess.channels), dtype uint8 or float32
            The result of `resize_and_crop` for the image that `load` returns.

        Raises
        ------
        ImageError
            As in `load`.
        """
        return resize_and_crop(self.load(i), preprocess)

    @abstractmethod
    def digest(self, i: int) -> str:
        """Return the digest of one image's content, which does not depend on its location.

        Parameters
        ----------
        i : int
            Position of the image.

        Returns
        -------
        digest : str
            Digest of a file's bytes and value range, or of an array's values, shape, dtype and
            value range.

        Raises
        ------
        ImageError
            If the image cannot be read. The error has `row`, which is `i`, and `path`.
        """

    def opened(self, i: int) -> BytesItem:
        """Read the file of one image, where `path` names one: once for its digest and its picture.

        Parameters
        ----------
        i : int
            Position of the image.

        Returns
        -------
        item : BytesItem
            Its `content` depends on the bytes alone, so that it may be kept with the state of the
            file.

        Raises
        ------
        ImageError
            If the file cannot be read. The error has `row`, which is `i`, and `path`.
        """
        raise NotImplementedError

    def digest_of(self, i: int, content: str) -> str:
        """Return the digest of one image from its file's content, without opening the file.

        Parameters
        ----------
        i : int
            Position of the image, which has a file.
        content : str
            That of what `opened` returned.

        Returns
        -------
        digest : str
            The same as `digest` returns.
        """
        raise NotImplementedError

    def path(self, i: int) -> str | None:  # noqa: ARG002 (most collections have no files)
        """Return the path of one image's file.

        Parameters
        ----------
        i : int
            Position of the image.

        Returns
        -------
        path : str or None
            None if the image is in memory.
        """
        return None

    def sources(self, i: int) -> list[Source]:
        """Return where the files of one row are, or their content.

        Parameters
        ----------
        i : int
            Position of the row.

        Returns
        -------
        sources : list of str, bytes, RemoteItem or None
            For each image of the row, of which there is one: path, content or remote file; None if
            it is no file.
        """
        return [self.path(i)]

    def remote_name(self, i: int) -> str | None:  # noqa: ARG002 (most are not remote)
        """Return the name of one image's remote file in the store.

        Parameters
        ----------
        i : int
            Position of the image.

        Returns
        -------
        name : str or None
            A digest of its address; None if the image is in memory or in a local file.
        """
        return None

    def remote_states(self, positions: Sequence[int]) -> list[State | None]:
        """Ask servers for the states of remote files, without fetching the files.

        Parameters
        ----------
        positions : sequence of int
            Positions of images with a remote file.

        Returns
        -------
        states : list of (str, int, int, int, int) or None
            None where the state of a file is not known.
        """
        return [None] * len(positions)

    def reading_ahead(
        self,
        positions: Sequence[int],  # noqa: ARG002
        *,
        with_states: bool,  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Context manager in which remote files are fetched ahead of their use.

        Parameters
        ----------
        positions : sequence of int
            Positions of the images, in the order of their use.
        with_states : bool
            Whether the states of the files are wanted, for the store.
        """
        return nullcontext()

    def n_pixels(self, i: int) -> int | None:  # noqa: ARG002 (a dataset names no sizes)
        """Return the number of pixels of one image, from its header or shape: none is decoded.

        Parameters
        ----------
        i : int
            Position of the image.

        Returns
        -------
        n_pixels : int or None
            None where it is not known before the image is read.
        """
        return None

    @abstractmethod
    def take(self, rows: Positions) -> "ImageCollection":
        """Return a collection of selected images, without reading or copying them.

        Parameters
        ----------
        rows : sequence of int, slice or mask of bool
            Positions of the images, in the wanted order.

        Returns
        -------
        collection : ImageCollection
            The selected images.
        """


class _ArrayCollection(ImageCollection):
    """Rows of one array; a selection copies them only when it is pickled."""

    def __init__(self, array: AnyArray, n_features: int | None = None) -> None:
        self._array = array
        self._rows = np.arange(len(array))
        self.n_features = n_features

    def __len__(self) -> int:
        return len(self._rows)

    def _item(self, i: int) -> AnyArray:
        item: AnyArray = self._array[self._rows[i]]
        return item

    def take(self, rows: Positions) -> Self:
        taken = object.__new__(type(self))
        taken.__dict__.update(self.__dict__, _rows=self._rows[as_index(rows)])
        return taken

    def __getstate__(self) -> dict[str, Any]:
        whole = len(self._rows) == len(self._array) and bool(
            (self._rows == np.arange(len(self._array))).all()
        )
        if whole:
            return self.__dict__
        chosen = self._array[self._rows]
        return {**self.__dict__, "_array": chosen, "_rows": np.arange(len(chosen))}


class PixelArray(_ArrayCollection):
    """Images of one shape in one array.

    Parameters
    ----------
    array : ndarray of shape (n, H, W), (n, H, W, C) or (n, C, H, W)
        Numbers within `value_range`.
    layout : {"HW", "HWC", "CHW"}
        Meaning of the axes of one item.
    value_range : (float, float)
        Values of black and white.
    n_features : int, default=None
        Number of columns if X was a 2-D table.
    use : RangeUse, default=None
        Records the values if `value_range` follows from their type.
    bands : bool, default=False
        Whether none of the channels is alpha.
    """

    def __init__(
        self,
        array: AnyArray,
        layout: Layout,
        value_range: ValueRange,
        n_features: int | None = None,
        use: RangeUse | None = None,
        *,
        bands: bool = False,
    ) -> None:
        super().__init__(array, n_features)
        self.range_use = use
        self._reading = (layout, value_range, use, bands)

    def item(self, i: int) -> ArrayItem:
        """Return one image."""
        return ArrayItem(self._item(i), *self._reading)

    def load(self, i: int) -> Levels:
        return self.item(i).load()

    def digest(self, i: int) -> str:
        return self.item(i).digest()


class ValueArray(_ArrayCollection):
    """Rows of plain numbers.

    Parameters
    ----------
    array : ndarray of shape (n, d) or (n, C, L), dtype float32
        Numbers; `load` refuses rows that are not finite.
    n_features : int, default=None
        Number of columns if X was a 2-D table.
    """

    kind = "values"

    def __init__(self, array: AnyArray, n_features: int | None = None) -> None:
        super().__init__(array, n_features)
        self.item_shape = array.shape[1:]

    def load(self, i: int) -> AnyArray:
        values = self._item(i)
        if not np.isfinite(values).all():
            raise ImageError(not_finite(values), row=int(i))
        return values

    def digest(self, i: int) -> str:
        return digest("values", digest_array(self._item(i)))


class ItemList(ImageCollection):
    """Images of any size: files, bytes, pictures and arrays.

    Parameters
    ----------
    items : list of Item
        One item per image.
    use : RangeUse, default=None
        The record of values that the items write to.
    """

    def __init__(self, items: list[Item], use: RangeUse | None = None) -> None:
        self._items = items
        self.range_use = use

    def __len__(self) -> int:
        return len(self._items)

    def load(self, i: int) -> Levels:
        with errors_at(i):
            return self._items[i].load()

    def load_resized(self, i: int, preprocess: Preprocess) -> Levels:
        with errors_at(i):
            return load_resized(self._items[i], preprocess)

    def opened(self, i: int) -> BytesItem:
        with errors_at(i):
            return self._file(i).opened()

    def digest_of(self, i: int, content: str) -> str:
        return self._file(i).digest_of(content)

    def digest(self, i: int) -> str:
        with errors_at(i):
            return self._items[i].digest()

    def remote_name(self, i: int) -> str | None:
        item = self._items[i]
        return item.name if isinstance(item, RemoteItem) else None

    def remote_states(self, positions: Sequence[int]) -> list[State | None]:
        items = self._remote(positions)
        return items[0].options.remote.states([item.address for item in items]) if items else []

    def reading_ahead(
        self, positions: Sequence[int], *, with_states: bool
    ) -> AbstractContextManager[None]:
        items = self._remote(positions)
        if not items:
            return nullcontext()
        pairs = [(item, item.address) for item in items]
        return items[0].options.remote.reading_ahead(pairs, with_state=with_states)

    def _remote(self, positions: Sequence[int]) -> list[RemoteItem]:
        # All have the options of one X.
        return [item for i in positions if isinstance(item := self._items[i], RemoteItem)]

    def _file(self, i: int) -> FileItem | RemoteItem | UnreadableItem:
        item = self._items[i]
        assert isinstance(item, FileItem | RemoteItem | UnreadableItem)
        return item

    def path(self, i: int) -> str | None:
        return self._items[i].path

    def sources(self, i: int) -> list[Source]:
        item = self._items[i]
        if isinstance(item, PartItem):
            return [item.part.path]
        if isinstance(item, RemoteItem):
            return [item]
        return [item.data if isinstance(item, BytesItem) else item.path]

    def n_pixels(self, i: int) -> int | None:
        return n_pixels(self._items[i])

    def take(self, rows: Positions) -> "ItemList":
        chosen = np.arange(len(self))[as_index(rows)]
        return ItemList([self._items[i] for i in chosen], self.range_use)


def not_finite(values: AnyArray) -> str:
    """Return the reason why plain numbers are refused, in scikit-learn's words."""
    what = "NaN" if np.isnan(values).any() else "infinity (inf)"
    return f"Input X contains {what} or a value too large for dtype('float32')."


@contextmanager
def errors_at(row: int) -> Iterator[None]:
    """Context manager that adds the row to an `ImageError`."""
    try:
        yield
    except ImageError as error:
        raise ImageError(error.reason, row=int(row), path=error.path) from error.__cause__


def as_index(rows: Positions) -> Any:
    """Convert positions to an index for numpy; an empty list becomes an integer array."""
    if isinstance(rows, slice):
        return rows
    index = np.asarray(rows)
    return index if index.size else index.astype(np.intp)
