"""Prefetch: worker threads read and prepare images ahead of the consumer.

The batches are in the order of the rows. The number of images in flight is bounded, so memory does
not grow with the number of images. The threads end with the iteration, also after an error.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from .._messages import cause
from .._parallel import in_threads
from .._preprocess import Preprocess
from .._typing import AnyArray, OnError
from ..exceptions import ImageError
from ._appearance import picture_to_levels
from ._collection import ImageCollection
from ._geometry import as_picture, resize_and_crop
from ._items import Item, load_resized
from ._recognize import is_array_like, is_tensor, tensor_to_array
from ._scaling import to_pixels

Prepare: TypeAlias = Callable[[AnyArray], AnyArray]
_Outcome: TypeAlias = AnyArray | ImageError

# Rows that a reader chooses from at once.
_ROWS_PER_CHOICE = 16


class Chosen(NamedTuple):
    """An image that is to be read.

    Parameters
    ----------
    row : int
        Its position in the collection.
    item : Item, ImageError or None, default=None
        The image if it is already open, or its error if it cannot be opened.
    """

    row: int
    item: Item | ImageError | None = None


# Chooses the rows to read among some, in the thread that reads them.
Choose: TypeAlias = Callable[[Sequence[int]], Iterable[Chosen]]


def choose_all(rows: Sequence[int]) -> Iterator[Chosen]:
    """Choose every row."""
    return (Chosen(int(row)) for row in rows)


class Batch(NamedTuple):
    """Prepared images that pass through the network together.

    Parameters
    ----------
    rows : list of int
        Positions in the collection of the images in `data`.
    data : ndarray of shape (len(rows), ...)
        The prepared images; of shape (0,) if none is readable.
    failures : list of ImageError
        Errors of the unreadable images, with `row` and `path`.
    """

    rows: list[int]
    data: AnyArray
    failures: list[ImageError]


class _Geometry:
    """Resize and crop; `load_resized` of a collection may combine it with decoding."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def __call__(self, pixels: AnyArray) -> AnyArray:
        return resize_and_crop(pixels, self.preprocess)


def prepare_geometry(preprocess: Preprocess) -> Prepare:
    """Return the function that resizes and crops levels (H, W, C)."""
    return _Geometry(preprocess)


def prepare_callable(function: Callable[[Any], Any]) -> Prepare:
    """Return the function that prepares images by a user's callable.

    The callable takes an 8-bit PIL image of mode RGB or L; an array (H, W, C) of levels for other
    numbers of channels; or a float32 array for rows of plain numbers. It returns levels, as a PIL
    image or in uint8, or the network's input in other numbers, which become float32. An exception
    of the callable becomes an `ImageError`.
    """
    return partial(_call, function=function)


def _call(item: AnyArray, function: Callable[[Any], Any]) -> AnyArray:
    # Rows of plain numbers have one or two axes.
    is_picture = item.ndim == 3 and item.shape[2] in (1, 3)
    try:
        returned = function(as_picture(to_pixels(item)) if is_picture else item)
    except Exception as error:
        # The user's function runs here, which may raise anything.
        raise ImageError(f"preprocessing raised {cause(error)}") from error
    return _as_prepared(returned)


def _as_prepared(returned: Any) -> AnyArray:
    if isinstance(returned, Image.Image):
        return to_pixels(picture_to_levels(returned))
    if is_tensor(returned):
        returned = tensor_to_array(returned)
    if is_array_like(returned):
        array = np.asarray(returned)
        if array.ndim and array.dtype.kind in "buif":
            return _levels(array) if array.dtype == np.uint8 else _finite(array.astype(np.float32))
    raise ImageError(
        f"preprocessing returned {type(returned).__name__}: expected an array, a tensor or a PIL "
        "image."
    )


def _levels(array: AnyArray) -> AnyArray:
    """Return levels with channels last; functions of torchvision give them with channels first."""
    if array.ndim == 2:
        return array[:, :, np.newaxis]
    if array.ndim != 3:
        raise ImageError(
            f"preprocessing returned uint8 of shape {array.shape}: expected levels (height, width, "
            "channels), or floats as the network takes them."
        )
    channels_first = array.shape[2] not in (1, 3) and array.shape[0] in (1, 3)
    return np.moveaxis(array, 0, 2) if channels_first else array


def _finite(array: AnyArray) -> AnyArray:
    # A network may turn them into plausible numbers: the maximum of 0 and NaN may be 0.
    if not np.isfinite(array).all():
        raise ImageError("preprocessing returned NaN or infinity.")
    return array


def iterate_batches(
    collection: ImageCollection,
    rows: Sequence[int],
    prepare: Prepare,
    *,
    batch_size: int,
    n_threads: int,
    on_error: OnError = "raise",
    choose: Choose = choose_all,
) -> Generator[Batch]:
    """Yield batches of prepared images, in order, read ahead of the consumer.

    Parameters
    ----------
    collection : ImageCollection
        The images.
    rows : sequence of int
        Positions of the images, in order.
    prepare : callable
        Applied in the worker threads to the result of `collection.load`.
    batch_size : int
        Number of rows per batch; the last may be smaller.
    n_threads : int
        Number of worker threads; 0 uses the caller's thread. Rows of plain numbers are always read
        in the caller's thread.
    on_error : {"raise", "nan"}, default="raise"
        Whether the first image that cannot be read ends the iteration, or is left out of its
        batch and reported in `Batch.failures`.
    choose : callable, default=choose_all
        Chooses the rows to read among some, in the thread that reads them.

    Yields
    ------
    batch : Batch
        The next `batch_size` chosen rows, without the unreadable ones.

    Raises
    ------
    ImageError
        For the first unreadable image, if `on_error` is "raise", and if two prepared images of a
        batch differ in shape. The error has `row` and `path`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx._preprocess import Preprocess
    >>> from sklearn_featx.images import as_image_collection, iterate_batches, prepare_geometry
    >>> images = as_image_collection(np.zeros((5, 32, 32, 3), dtype=np.uint8))
    >>> prepare = prepare_geometry(Preprocess(resize=16))
    >>> for batch in iterate_batches(images, range(5), prepare, batch_size=2, n_threads=1):
    ...     print(batch.rows, batch.data.shape)
    [0, 1] (2, 16, 16, 3)
    [2, 3] (2, 16, 16, 3)
    [4] (1, 16, 16, 3)
    """
    with closing(_outcomes(collection, rows, prepare, choose, batch_size, n_threads)) as outcomes:
        for first in outcomes:
            yield _batch(collection, chain([first], islice(outcomes, batch_size - 1)), on_error)


def _outcomes(
    collection: ImageCollection,
    rows: Sequence[int],
    prepare: Prepare,
    choose: Choose,
    batch_size: int,
    n_threads: int,
) -> Generator[tuple[int, _Outcome]]:
    """Read the chosen rows, in order."""

    def read(group: Sequence[int]) -> Iterator[tuple[int, _Outcome]]:
        return ((c.row, _outcome(collection, prepare, c)) for c in choose(group))

    if n_threads == 0 or collection.kind == "values":
        for start in range(0, len(rows), batch_size):
            yield from read(rows[start : start + batch_size])
        return
    # A choice may cost as much for one row as for several; every thread is to have some.
    most = 1 if choose is choose_all else _ROWS_PER_CHOICE
    step = max(1, min(most, batch_size, len(rows) // n_threads))
    groups = (rows[start : start + step] for start in range(0, len(rows), step))
    # One batch for the consumer's next step, and work for every thread while it is collected.
    in_flight = batch_size // step + 2 * n_threads
    with closing(
        in_threads(lambda group: list(read(group)), groups, n_threads, in_flight=in_flight)
    ) as parts:
        for part in parts:
            yield from part


def _outcome(collection: ImageCollection, prepare: Prepare, chosen: Chosen) -> _Outcome:
    """Read and prepare one image; an error is an outcome too."""
    row, item = chosen
    try:
        if isinstance(item, ImageError):
            raise item
        if isinstance(prepare, _Geometry):
            if item is not None:
                return load_resized(item, prepare.preprocess)
            return collection.load_resized(row, prepare.preprocess)
        return prepare(collection.load(row) if item is None else item.load())
    except ImageError as error:
        path = error.path if error.path is not None else collection.path(row)
        located = ImageError(error.reason, row=int(row), path=path)
        located.__cause__ = error.__cause__
        return located


def _batch(
    collection: ImageCollection, outcomes: Iterable[tuple[int, _Outcome]], on_error: OnError
) -> Batch:
    good: list[int] = []
    items: list[AnyArray] = []
    failures: list[ImageError] = []
    for row, outcome in outcomes:
        if isinstance(outcome, ImageError):
            if on_error == "raise":
                raise outcome
            # The cause is dropped, because its traceback keeps the bytes of the file alive.
            failures.append(ImageError(outcome.reason, outcome.row, outcome.path))
            continue
        if items and outcome.shape != items[0].shape:
            raise ImageError(
                f"the image has shape {outcome.shape}, but that of row {good[0]} in the same "
                f"batch has {items[0].shape}. Pass image_size= to bring all to one size.",
                row=row,
                path=collection.path(row),
            )
        good.append(row)
        items.append(outcome)
    data = np.stack(items) if items else np.empty(0, dtype=np.uint8)
    return Batch(good, data, failures)
