"""Containers: what X as a whole may be, reduced to an array, a list, a lazy array or a dataset.

===========================================  =================================================
X                                            is read as
===========================================  =================================================
array or tensor in memory                    an array; or a list, if it holds objects or text
h5py, zarr, dask, tensorstore, memory map    a lazy array: by slices
list, tuple                                  a list of entries; nested numbers: an array
pandas or polars Series, pyarrow Array       a list of entries
DataFrame or Table of one column             a list of entries
DataFrame of several columns                 numbers: an array; images: bags, if there is a
                                             `bag_pooling`
datasets.Dataset                             its column of images
mapping of columns                           its column of images
torch dataset                                a dataset; a list of files for an `ImageFolder`
===========================================  =================================================

A new kind of container is a line of `reduced`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, TypeAlias

import numpy as np

from .._messages import listed, shown
from .._typing import AnyArray
from ..exceptions import InputError
from ._arrays import refuse_empty
from ._dataset import dataset_paths
from ._lazy import is_lazy
from ._options import ReadOptions
from ._recognize import (
    is_array_like,
    is_arrow,
    is_dataset,
    is_frame,
    is_missing,
    is_number,
    is_series,
    is_sliced_dataset,
    is_tensor,
    is_vector,
    tensor_to_array,
)

# An ndarray, a list of entries, a lazy array or a dataset.
Source: TypeAlias = Any

_IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo")


def reduced(X: Any, options: ReadOptions) -> Source:
    """Reduce X to an ndarray, a list, a lazy array or a dataset.

    Raises `InputError` if it is none of these.
    """
    if is_tensor(X):
        return tensor_to_array(X)
    if is_frame(X):
        return _of_frame(X, options)
    if is_series(X) or is_arrow(X) or isinstance(X, list | tuple | Mapping):
        return _of_columns(X)
    if is_lazy(X) and len(X.shape) > 2:
        return X
    if is_array_like(X) and not is_sliced_dataset(X):
        return _of_array(_unmasked(X), options)
    if is_dataset(X):
        if hasattr(type(X), "column_names") and hasattr(type(X), "features"):
            return _of_hub_dataset(X)
        paths = dataset_paths(X)
        return X if paths is None else paths
    raise _unknown_type(X)


def _of_columns(X: Any) -> Source:
    if is_series(X):
        entries: list[Any] = X.to_list()
        if X.name not in (None, ""):
            _refuse_column_of_numbers(X.name, entries)
        return entries
    if is_arrow(X):
        return _of_arrow(X)
    return _of_mapping(X) if isinstance(X, Mapping) else _of_sequence(X)


def _unknown_type(X: Any) -> InputError:
    if hasattr(X, "dataset") and hasattr(X, "batch_size"):
        return InputError(
            "X is a DataLoader, which gives batches. Pass its images: loader.dataset."
        )
    hint = " Pass list(X)." if hasattr(X, "__iter__") and not hasattr(X, "keys") else ""
    if callable(getattr(X, "read", None)):
        hint = " For one open file pass [X]."
    for name in ("compute", "collect"):
        if callable(getattr(X, name, None)):
            hint = f" Pass X.{name}()."
    if isinstance(X, set | frozenset):
        # The order of a set differs between processes, so labels would belong to other images.
        hint = " A set has no order: pass sorted(X)."
    return InputError(
        f"X is of type {type(X).__name__}: expected an array, a tensor, a list of images or "
        f"paths, a column of a dataframe, or a dataset.{hint}"
    )


def _of_frame(X: Any, options: ReadOptions) -> AnyArray | list[Any]:
    columns = [str(name) for name in X.columns]
    try:
        table = np.asarray(X.to_numpy())
    except ValueError:
        if len(columns) != 1:
            raise
        # A column of arrays of a datasets.Dataset, whose shape pandas does not know.
        return list(X[X.columns[0]].to_list())
    # pandas reads a column of missing paths as NaN.
    missing = table.dtype.kind == "f" and table.size > 0 and bool(np.isnan(table).all())
    if len(columns) == 1 and options.image_shape is None and not missing:
        _refuse_column_of_numbers(columns[0], table[:, 0])
    if table.dtype.kind in "buifc" and not (missing and len(columns) == 1):
        return table
    if len(columns) == 1:
        # polars converts a column of structs to arrays.
        return list(X[X.columns[0]].to_list() if _is_polars(X) else table[:, 0])
    refuse_empty(table.shape)
    if options.bag_pooling is not None:
        return _rows_as_bags(table)
    raise _several_columns("dataframe", columns)


def _refuse_column_of_numbers(name: Any, column: Iterable[Any]) -> None:
    """Raise an error for numbers or dates where images are expected."""
    first = next((value for value in column if not is_missing(value)), None)
    # Dates and periods with a time zone are objects of pandas.
    of_pandas = type(first).__module__.partition(".")[0] == "pandas" and not is_vector(first)
    if first is not None and (is_number(first) or of_pandas or isinstance(first, date | timedelta)):
        raise InputError(
            f"column {shown(name)} holds values such as {shown(str(first))}, and images are "
            "expected. Choose the column of paths or images."
        )


def _is_polars(X: Any) -> bool:
    return type(X).__module__.partition(".")[0] == "polars"


def _rows_as_bags(table: AnyArray) -> list[Any]:
    """Return the entries of each row; rows with fewer images have missing values."""
    return [[entry for entry in row if not is_missing(entry)] for row in table.tolist()]


def _several_columns(what: str, columns: Sequence[str]) -> InputError:
    return InputError(
        f"X is a {what} of {len(columns)} columns ({listed(map(repr, columns))}) "
        "where one column of images or paths is expected. "
        f"Select it, X[{columns[0][:30]!r}], or name it in a ColumnTransformer."
    )


def _of_arrow(X: Any) -> list[Any]:
    """Return the entries of a pyarrow Array, or of the only column of a Table."""
    names = getattr(X, "column_names", None)
    if names is not None and len(names) != 1:
        raise _several_columns("table", names)
    column = X if names is None else X.column(0)
    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
    if hasattr(type(column), "to_numpy_ndarray"):
        # A FixedShapeTensorArray, whose list has no shape.
        images = zip(column.to_numpy_ndarray(), column.is_valid().to_pylist(), strict=True)
        return [image if valid else None for image, valid in images]
    return list(column.to_pylist())


def _of_mapping(X: Mapping[Any, Any]) -> Source:
    """Return the column of images of a mapping of columns: rows of a `datasets.Dataset`."""
    columns = {str(name): column for name, column in X.items() if _is_column(column)}
    chosen = _image_column(list(columns))
    if columns and all(hasattr(type(column), "column_names") for column in columns.values()):
        raise InputError(
            f"X is a {type(X).__name__} of the splits {listed(map(repr, columns))}. "
            f"Select one, X[{next(iter(columns))[:30]!r}]."
        )
    if chosen is None:
        raise _unknown_type(X)
    return list(columns[chosen])


def _is_column(value: Any) -> bool:
    is_sequence = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return is_sequence and not isinstance(value, str | bytes)


def _image_column(names: Sequence[str]) -> str | None:
    if len(names) == 1:
        return names[0]
    return next((name for name in _IMAGE_COLUMNS if name in names), None)


def _of_hub_dataset(X: Any) -> Source:
    """Return the images of a `datasets.Dataset`: its undecoded column, or its formatted items."""
    kinds = {name: type(feature).__name__ for name, feature in X.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    name = images[0] if len(images) == 1 else _image_column(list(kinds))
    if name is None:
        raise InputError(
            f"X is a dataset of the columns {listed(map(repr, kinds))}. Select the one "
            f"with images, X[{next(iter(kinds))!r}]."
        )
    column = X.select_columns([name])
    if X.format["type"] in ("pandas", "polars", "arrow"):
        # Their items are tables of one row.
        column = column.with_format(None)
    if kinds[name] == "Image" and column.format["type"] is None:
        # The bytes of the file, which need no decoding for their digest.
        undecoded = type(X.features[name])(decode=False)
        column = column.cast_column(name, undecoded)
    return _Column(column, name)


class _Column:
    """One column of a `datasets.Dataset`, as a dataset of its entries."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset
        self._name = name

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: int) -> Any:
        return self._dataset[row][self._name]


def _unmasked(X: Any) -> AnyArray:
    if np.ma.is_masked(X):
        raise InputError("X is a masked array with masked values. Fill them, X.filled(0).")
    return np.asarray(X)


def _of_sequence(X: list[Any] | tuple[Any, ...]) -> AnyArray | list[Any]:
    """Convert nested lists of numbers to an array, any other sequence to a list of entries."""
    first = X[0] if len(X) else None
    while isinstance(first, list | tuple) and len(first):
        first = first[0]
    if len(X) and isinstance(X[0], list | tuple) and is_number(first):
        try:
            return np.asarray(X)
        except ValueError:
            return list(X)
    return list(X)


def _of_array(array: AnyArray, options: ReadOptions) -> AnyArray | list[Any]:
    """Return an array of numbers, or convert one column of other objects to a list of entries."""
    if array.dtype.kind == "S":
        raise InputError(
            f"X is an array of dtype {array.dtype}, which drops zero bytes. Pass a list of bytes, "
            "or paths as str."
        )
    if array.dtype.kind == "V" and array.dtype.names is None:
        return list(array.ravel())
    if array.dtype.kind not in "OUT":
        return array
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
        return list(array.ravel())
    if array.dtype.kind == "O":
        numbers = _objects_to_numbers(array)
        if numbers is not None:
            return numbers
    if array.ndim == 2 and options.bag_pooling is not None:
        return _rows_as_bags(array)
    if array.dtype.kind == "O":
        raise InputError(
            f"X is an array of objects of shape {array.shape} that are not all numbers. Pass one "
            "column of images or paths."
        )
    raise InputError(
        f"X is an array of strings of shape {array.shape} where one column of paths is expected. "
        "Pass one column, X[:, [0]]."
    )


def _objects_to_numbers(array: AnyArray) -> AnyArray | None:
    """Convert an array of objects to an array of numbers; None if they are no numbers."""
    try:
        numbers = np.array(array.tolist())
    except ValueError:
        return None
    return numbers if numbers.dtype.kind in "buifc" else None
