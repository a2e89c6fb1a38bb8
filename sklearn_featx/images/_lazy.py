"""Lazy arrays: arrays on disk or elsewhere, read by slices and never as a whole.

Whatever has a shape, a dtype and slicing: datasets of h5py, arrays of zarr, dask and tensorstore,
memory maps. Values are checked when they are read.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .._messages import cause
from .._parallel import ForkSafeLock
from .._typing import AnyArray, Levels
from ..exceptions import ImageError
from ._collection import ImageCollection, Positions, as_index, errors_at
from ._items import ArrayItem
from ._layout import as_channels_last
from ._options import ReadOptions
from ._range_use import RangeUse

# The largest block of rows that is read at once, if the storage has chunks of several rows.
_MOST_BLOCK_BYTES = 2**25


def is_lazy(value: Any) -> bool:
    """Whether a value is an array that is not in memory, or may not be."""
    if isinstance(value, np.ndarray):
        return isinstance(value, np.memmap)
    has_rows = all(hasattr(type(value), name) for name in ("shape", "dtype", "__getitem__"))
    return has_rows and isinstance(getattr(value, "shape", None), tuple)


class LazyArray(ImageCollection):
    """Images of one shape in an array that is read by slices.

    Parameters
    ----------
    array : object with `shape`, `dtype` and `__getitem__`
        Of shape (n, H, W), (n, H, W, C) or (n, C, H, W).
    options : ReadOptions
        How a row becomes an image.

    Raises
    ------
    ImageError
        If shape or dtype is not that of images.
    """

    def __init__(self, array: Any, options: ReadOptions) -> None:
        self._array = array
        self._rows: npt.NDArray[np.intp] = np.arange(array.shape[0])
        self._options = options
        self._layout = options.layout(array.shape[1:])
        self._dtype = _dtype(array)
        self._value_range = options.range_of(self._dtype)
        self.range_use = None if options.limits is not None else RangeUse()
        if options.picks is not None:
            # An image that lacks a channel is an error of X.
            options.picked(np.empty(self.n_channels, dtype=bool))
        self._block_rows = _rows_of_block(array, self._dtype)
        self._lock = ForkSafeLock()
        # The first row of a block, and the block.
        self._block: tuple[int, AnyArray] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_channels(self) -> int:
        """Number of channels of each image."""
        shape = self._array.shape
        return int({"HW": 1, "HWC": shape[-1], "CHW": shape[1]}[self._layout])

    def item(self, i: int) -> ArrayItem:
        """Read one image."""
        array, layout, options = self._item(i), self._layout, self._options
        if options.picks is not None:
            array, layout = options.picked(as_channels_last(array, layout)), "HWC"
        return ArrayItem(array, layout, self._value_range, self.range_use, options.bands)

    def load(self, i: int) -> Levels:
        with errors_at(i):
            return self.item(i).load()

    def digest(self, i: int) -> str:
        with errors_at(i):
            return self.item(i).digest()

    def n_pixels(self, i: int) -> int | None:  # noqa: ARG002
        return int(np.prod(self._array.shape[1:]))

    def take(self, rows: Positions) -> Self:
        taken = object.__new__(type(self))
        taken.__dict__.update(
            self.__dict__, _rows=self._rows[as_index(rows)], _block=None, _lock=ForkSafeLock()
        )
        return taken

    def _item(self, i: int) -> AnyArray:
        row = int(self._rows[i])
        start = row - row % self._block_rows
        block = self._block
        if block is None or block[0] != start:
            # One thread reads a block; others that need the same block wait for it.
            with self._lock:
                block = self._block
                if block is None or block[0] != start:
                    block = self._block = (start, self._read(start))
        item: AnyArray = block[1][row - start]
        return item

    def _read(self, start: int) -> AnyArray:
        stop = min(start + self._block_rows, self._array.shape[0])
        try:
            return np.asarray(self._array[start:stop])
        except Exception as error:
            # Damaged chunks, closed files and servers raise errors of any type.
            raise ImageError(
                f"rows {start} to {stop - 1} of the {type(self._array).__name__} cannot be read: "
                f"{cause(error)}"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_block": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=ForkSafeLock())


def _dtype(array: Any) -> np.dtype[Any]:
    """Return the dtype; tensorstore has its own type of it."""
    dtype: Any = getattr(array.dtype, "numpy_dtype", array.dtype)
    try:
        numpy_dtype: np.dtype[Any] = np.dtype(dtype)
        return numpy_dtype
    except TypeError as error:
        raise ImageError(f"an array of dtype {array.dtype} does not hold pixels.") from error


def _rows_of_block(array: Any, dtype: np.dtype[Any]) -> int:
    """Return how many rows the storage reads at once; 1 if that is too large or unknown."""
    chunks = getattr(array, "chunks", None)
    rows = chunks[0] if isinstance(chunks, tuple) and chunks else 1
    # dask lists the lengths of all chunks.
    rows = rows[0] if isinstance(rows, tuple) and rows else rows
    if not isinstance(rows, int) or rows < 1:
        return 1
    row_bytes = max(1, int(np.prod(array.shape[1:])) * dtype.itemsize)
    return rows if rows * row_bytes <= _MOST_BLOCK_BYTES else 1
