"""Duck-typed recognition of tensors, dataframes and datasets, without importing their packages.

Attributes are looked up on the type, since access on the object may be slow or warn.
"""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from .._messages import cause
from .._typing import AnyArray
from ..exceptions import InputError

# Class names of pandas.NA and pandas.NaT.
_MISSING_TYPES = {"NAType", "NaTType"}


def _type_has(value: Any, *names: str) -> bool:
    return all(hasattr(type(value), name) for name in names)


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor on any device."""
    return _type_has(value, "detach", "cpu", "numpy")


def tensor_to_array(tensor: Any) -> AnyArray:
    """Convert a torch tensor to an array; bfloat16, which numpy lacks, becomes float32.

    Raises `InputError` for tensors without plain values: sparse, quantized or on the device "meta".
    """
    try:
        plain = tensor.detach().cpu()
        try:
            return np.asarray(plain.numpy())
        except TypeError:
            return np.asarray(plain.float().numpy())
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"a tensor without plain values ({cause(error)}). Pass dense tensors of numbers."
        ) from error


def is_frame(value: Any) -> bool:
    """Whether `value` is a pandas or polars DataFrame."""
    return _type_has(value, "columns", "to_numpy")


def is_series(value: Any) -> bool:
    """Whether `value` is a pandas or polars Series."""
    return _type_has(value, "to_list", "to_numpy") and not is_frame(value)


def is_vector(value: Any) -> bool:
    """Whether `value` is a Series, or an Index or array of pandas."""
    return is_series(value) or _type_has(value, "tolist", "to_numpy", "dtype")


def is_arrow(value: Any) -> bool:
    """Whether `value` is an Array, ChunkedArray or Table of pyarrow."""
    return _type_has(value, "to_pylist", "slice")


def is_arrow_scalar(value: Any) -> bool:
    """Whether `value` is an element of an Array of pyarrow."""
    return _type_has(value, "as_py")


def is_sliced_dataset(value: Any) -> bool:
    """Whether `value` is a `SliceDataset` of skorch, which numpy would read as a whole."""
    return _type_has(value, "__array__", "__getitem__", "transform") and hasattr(value, "dataset")


def is_sparse(value: Any) -> bool:
    """Whether `value` is a scipy sparse matrix or array."""
    return _type_has(value, "toarray", "tocsr")


def is_array_like(value: Any) -> bool:
    """Whether numpy can convert `value` directly: an array of any package, not a picture."""
    return _type_has(value, "__array__") and not isinstance(value, Image.Image)


def is_dataset(value: Any) -> bool:
    """Whether `value` has a length and items by position, like torch's datasets."""
    return _type_has(value, "__getitem__", "__len__") and not isinstance(value, Mapping)


def is_missing(value: Any) -> bool:
    """Whether `value` is None, NaN, or NA or NaT of pandas."""
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return True
    return isinstance(value, numbers.Real) and bool(value != value)


def is_number(value: Any) -> bool:
    """Whether `value` is a single number."""
    kinds = numbers.Number | np.generic
    return isinstance(value, kinds) and not isinstance(value, str | bytes | np.void)
