"""The adapter: conversion of every supported X to an `ImageCollection`.

A single image or an unsupported object is rejected with a hint. Every other X is reduced to an
array of numbers, a list of items or a dataset, and each of these has its own collection. An error
of X as a whole is an `InputError`; an error of one entry is an `ImageError` with its row.
"""

import os
from typing import Any

import numpy as np
from PIL import Image

from .._messages import said, short, shown
from .._typing import AnyArray
from ..exceptions import InputError
from ._arrays import array_to_collection, refuse_empty, refuse_vector
from ._collection import ImageCollection, ItemList
from ._dataset import DatasetItems, dataset_paths
from ._foreign import is_base64_image
from ._items import as_item, as_item_or_unreadable
from ._options import ReadOptions
from ._range_use import RangeUse
from ._recognize import (
    is_array_like,
    is_dataset,
    is_frame,
    is_missing,
    is_number,
    is_series,
    is_sparse,
    is_tensor,
    tensor_to_array,
)


def as_image_collection(X: Any, options: ReadOptions | None = None) -> ImageCollection:
    """Convert X to a collection of images.

    No file is read; every path is checked to lead to a file.

    Parameters
    ----------
    X : array, tensor, sequence, dataframe, series or dataset of n images
        - Arrays and tensors of shape (n, H, W), (n, H, W, C) or (n, C, H, W), with 1, 3 or 4
          (RGBA) channels; or (n, d) with `image_shape`.
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
    source = _reduce(X)
    if isinstance(source, np.ndarray):
        return array_to_collection(source, options)
    if isinstance(source, list):
        return _from_list(source, options)
    refuse_empty((len(source),))
    if options.of_numbers:
        raise InputError(
            f"image_shape={options.image_shape}: plain numbers are read from arrays, not datasets."
        )
    return DatasetItems(source, np.arange(len(source)), options)


def _refuse_single(X: Any) -> None:
    """Reject a single image, a single path and sparse data."""
    if isinstance(X, str) and is_base64_image(X):
        raise InputError("X is one picture in base64. Pass its bytes: [base64.b64decode(X)].")
    if isinstance(X, str | os.PathLike):
        raise InputError(
            f"X is one path, {shown(os.fspath(X))}, where a list of images is expected. For one "
            'file pass [path]; for a folder pass sorted(Path(folder).rglob("*.jpg")).'
        )
    if isinstance(X, bytes | bytearray | memoryview | Image.Image):
        raise InputError(
            f"X is one image ({type(X).__name__}) where a list of images is expected. Pass [X]."
        )
    if is_sparse(X):
        raise InputError(
            "Sparse data was passed, but dense data is required. Use X.toarray() to convert it."
        )


def _reduce(X: Any) -> Any:
    """Reduce X to an ndarray, a list or a dataset."""
    if is_tensor(X):
        return tensor_to_array(X)
    if is_frame(X):
        return _frame_to_source(X)
    if is_series(X):
        return X.to_list()
    if isinstance(X, list | tuple):
        return _sequence_to_source(X)
    if is_array_like(X):
        return _array_to_source(_unmasked(X))
    if is_dataset(X):
        paths = dataset_paths(X)
        return X if paths is None else paths
    raise _unknown_type(X)


def _unknown_type(X: Any) -> InputError:
    if _is_loader(X):
        return InputError(
            "X is a DataLoader, which gives batches. Pass its images: loader.dataset."
        )
    hint = " Pass list(X)." if hasattr(X, "__iter__") and not hasattr(X, "keys") else ""
    if isinstance(X, set | frozenset):
        # The order of a set differs between processes, so labels would belong to other images.
        hint = " A set has no order: pass sorted(X)."
    return InputError(
        f"X is of type {type(X).__name__}: expected an array, a tensor, a list of images or "
        f"paths, a column of a dataframe, or a dataset.{hint}"
    )


def _is_loader(X: Any) -> bool:
    return hasattr(X, "dataset") and hasattr(X, "batch_size")


def _frame_to_source(X: Any) -> AnyArray | list[Any]:
    columns = [str(name) for name in X.columns]
    table = np.asarray(X.to_numpy())
    # pandas reads a column of missing paths as NaN.
    missing = table.dtype.kind == "f" and table.size > 0 and bool(np.isnan(table).all())
    if table.dtype.kind in "buifc" and not (missing and len(columns) == 1):
        return table
    if len(columns) == 1:
        return list(table[:, 0])
    refuse_empty(table.shape)
    raise InputError(
        f"X is a dataframe of {len(columns)} columns ({short(', '.join(map(repr, columns)))}) "
        "where one column of images or paths is expected. "
        f"Select it, X[{columns[0][:30]!r}], or name it in a ColumnTransformer."
    )


def _unmasked(X: Any) -> AnyArray:
    if np.ma.is_masked(X):
        raise InputError("X is a masked array with masked values. Fill them, X.filled(0).")
    return np.asarray(X)


def _sequence_to_source(X: list[Any] | tuple[Any, ...]) -> AnyArray | list[Any]:
    """Convert nested lists of numbers to an array, any other sequence to a list of items."""
    if len(X) and isinstance(X[0], list | tuple):
        try:
            return _array_to_source(np.asarray(X))
        except ValueError:
            return list(X)
    return list(X)


def _array_to_source(array: AnyArray) -> AnyArray | list[Any]:
    """Return an array of numbers, or convert one column of other objects to a list of items."""
    if array.dtype.kind == "S":
        raise InputError(
            f"X is an array of dtype {array.dtype}, which drops zero bytes. Pass a list of bytes, "
            "or paths as str."
        )
    if array.dtype.kind not in "OUT":
        return array
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
        return list(array.ravel())
    if array.dtype.kind == "O":
        return _objects_to_numbers(array)
    raise InputError(
        f"X is an array of strings of shape {array.shape} where one column of paths is expected."
    )


def _objects_to_numbers(array: AnyArray) -> AnyArray:
    """Convert an array of objects to an array of numbers."""
    numbers = np.array(array.tolist())
    if numbers.dtype.kind in "buifc":
        return numbers
    raise InputError(
        f"X is an array of objects of shape {array.shape} that are not all numbers. Pass one "
        "column of images or paths."
    )


def _from_list(entries: list[Any], options: ReadOptions) -> ImageCollection:
    refuse_empty((len(entries),))
    if is_number(entries[0]) and not is_missing(entries[0]):
        refuse_vector((len(entries),))
    if options.of_numbers:
        return array_to_collection(_stacked(entries), options)
    _refuse_frames_of_one_object(entries)
    make = as_item if options.on_error == "raise" else as_item_or_unreadable
    use = RangeUse()
    items = [make(e, row, options, use.note) for row, e in enumerate(entries)]
    return ItemList(items, use)


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
