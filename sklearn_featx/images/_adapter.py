"""The adapter: conversion of every supported X to an `ImageCollection`.

A single image or an unsupported object is rejected with a hint. Every other X is reduced to an
array of numbers, a list of items or a dataset, and each of these has its own collection. An error
of X as a whole is an `InputError`; an error of one entry is an `ImageError` with its row.
"""

import os
from typing import Any, cast

import numpy as np
from PIL import Image

from .._messages import said, shown
from .._typing import AnyArray
from ..exceptions import ImageError, InputError
from ._addresses import Address
from ._arrays import array_to_collection, refuse_empty, refuse_vector
from ._bags import Bags
from ._channel_images import check_equal, split, with_each_channel
from ._collection import ImageCollection, ItemList
from ._containers import reduced
from ._dataset import DatasetItems
from ._encoded import is_encoded
from ._entries import as_items
from ._lazy import LazyArray, is_lazy
from ._options import ReadOptions
from ._range_use import RangeUse
from ._recognize import is_missing, is_number, is_sparse, is_tensor, tensor_to_array


def as_image_collection(X: Any, options: ReadOptions | None = None) -> ImageCollection:
    """Convert X to a collection of images.

    Every path is checked to lead to a file. Files are read only to count their frames, if several
    are wanted.

    Parameters
    ----------
    X : array, tensor, sequence, dataframe, series or dataset of n images
        - Arrays and tensors of shape (n, H, W), (n, H, W, C) or (n, C, H, W), with 1, 3 or 4
          (RGBA) channels, or any number with `channels`; or (n, d) with `image_shape`.
        - Lists, tuples, 1-D arrays, series and one-column dataframes of paths, bytes (the content
          of a file), PIL images, arrays of one image, or tensors, also mixed.
        - torch datasets whose items are images or (image, target). The files of a torchvision
          `ImageFolder` without a transform, or of a `Subset` of one, are read directly.
    options : ReadOptions, default=None
        How entries become images; None: the defaults.

    Returns
    -------
    collection : ImageCollection
        The images, which are read later.

    Raises
    ------
    InputError
        If X as a whole cannot be read as images.
    ImageError
        If an entry is missing, is no image, has no file, or has values out of range. The error has
        the row and the path.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_featx.images import ReadOptions, as_image_collection
    >>> digits = load_digits().data
    >>> options = ReadOptions(image_shape=(8, 8), value_range=(0, 16))
    >>> images = as_image_collection(digits, options)
    >>> images.load(0).shape, images.load(0).dtype, images.n_features
    ((8, 8, 1), dtype('float32'), 64)
    """
    options = ReadOptions() if options is None else options
    if isinstance(X, ImageCollection):
        return X
    _refuse_single(X)
    source = reduced(X, options)
    if isinstance(source, list):
        return _from_list(source, options)
    is_array = isinstance(source, np.ndarray) or is_lazy(source)
    refuse_empty(source.shape if is_array else (len(source),))
    if options.of_numbers and not isinstance(source, np.ndarray):
        raise InputError(
            f"image_shape={options.image_shape}: plain numbers are read from arrays in memory, not "
            f"from a {type(source).__name__}."
        )
    if is_array:
        return _from_array(source, options)
    if options.bag_pooling is not None:
        return _from_list([source[i] for i in range(len(source))], options)
    return _rows(DatasetItems(source, np.arange(len(source)), options), options)


def _from_array(X: Any, options: ReadOptions) -> ImageCollection:
    """Convert an array, in memory or not; with five axes, each row is a bag."""
    n_images = 1
    if options.bag_pooling is not None and isinstance(X, np.ndarray) and X.ndim == 5:
        n_images = X.shape[1]
        X = X.reshape(-1, *X.shape[2:])
    try:
        images = LazyArray(X, options) if is_lazy(X) else array_to_collection(X, options)
        if options.channels == "each" and options.n_channels is not None:
            check_equal(cast("Any", images).item(0).n_channels(), options.n_channels)
    except ImageError as error:
        if error.row is None:
            raise InputError(f"X of shape {tuple(X.shape)}: {error.reason}") from error
        raise ImageError(error.reason, error.row // n_images, error.path) from error
    return _rows(images, options, n_images)


def _rows(images: Any, options: ReadOptions, n_images: int = 1) -> ImageCollection:
    """Return rows of some images each, of all their channels if these pass alone."""
    n_rows, n_channels = len(images) // n_images, None
    if options.channels == "each":
        images = with_each_channel(images, options.n_channels)
        n_channels = images.n_channels
    elif options.bag_pooling is None:
        return cast("ImageCollection", images)
    size = len(images) // n_rows
    return Bags(images, [size] * n_rows, options.bag_pooling, n_channels)


def _refuse_single(X: Any) -> None:
    """Reject a single image, a single path and sparse data."""
    if isinstance(X, str) and is_encoded(X):
        raise InputError("X is one picture in base64. Pass [X].")
    address = Address.of(X)
    if isinstance(X, str | os.PathLike) or address is not None:
        raise InputError(
            f"X is one path, {shown(str(address or os.fspath(X)))}, where a list of images is "
            "expected. For one file pass [path]; for a folder pass "
            'sorted(Path(folder).rglob("*.jpg")).'
        )
    if isinstance(X, bytes | bytearray | memoryview | Image.Image):
        raise InputError(
            f"X is one image ({type(X).__name__}) where a list of images is expected. Pass [X]."
        )
    if is_sparse(X):
        raise InputError(
            "Sparse data was passed, but dense data is required. Use X.toarray() to convert it."
        )


def _from_list(entries: list[Any], options: ReadOptions) -> ImageCollection:
    refuse_empty((len(entries),))
    if is_number(entries[0]) and not is_missing(entries[0]):
        refuse_vector((len(entries),))
    if options.of_numbers:
        return array_to_collection(_stacked(entries), options)
    _refuse_frames_of_one_object(entries)
    use = RangeUse()
    rows = [as_items(entry, row, options, use) for row, entry in enumerate(entries)]
    n_channels = None
    if options.channels == "each":
        rows, n_channels = split(rows, options.on_error, options.n_channels)
    images = ItemList([item for items in rows for item in items], use)
    if options.bag_pooling is None and options.channels != "each":
        return images
    return Bags(images, [len(items) for items in rows], options.bag_pooling, n_channels)


def _refuse_frames_of_one_object(entries: list[Any]) -> None:
    """Reject an opened file with several frames that occurs several times in a list.

    All entries of ``list(ImageSequence.Iterator(picture))`` show the last frame.
    """
    seen: dict[int, int] = {}
    for row, entry in enumerate(entries):
        if not isinstance(entry, Image.Image) or not getattr(entry, "is_animated", False):
            continue
        first = seen.setdefault(id(entry), row)
        if first != row and entry.tell() > 0:
            raise InputError(
                f"rows {first} and {row} are one opened file, which shows its frame {entry.tell()} "
                "in both. Pass copies: [frame.copy() for frame in ImageSequence.Iterator(picture)]."
            )


def _stacked(entries: list[Any]) -> AnyArray:
    """Stack rows of plain numbers into one array."""
    try:
        return np.stack([tensor_to_array(e) if is_tensor(e) else np.asarray(e) for e in entries])
    except ValueError as error:
        raise InputError(f"rows of plain numbers must have one shape ({said(error)}).") from error
