"""What an object is, told by what it can do: packages that this one does without are not imported.

Attributes are looked up on the type where reading them on the object would cost or warn.
"""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from .._messages import cause
from .._typing import AnyArray
from ..exceptions import InputError

# pandas.NA and pandas.NaT, told by the names of their classes.
_MISSING_TYPES = {"NAType", "NaTType"}


def _type_has(value: Any, *names: str) -> bool:
    return all(hasattr(type(value), name) for name in names)


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor, of any device."""
    return _type_has(value, "detach", "cpu", "numpy")


def tensor_to_array(tensor: Any) -> AnyArray:
    """Copy or view a torch tensor as an array; bfloat16, unknown to numpy, becomes float32.

    `InputError` for tensors that hold no plain values: sparse, quantized, on the device "meta".
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


def is_sparse(value: Any) -> bool:
    """Whether `value` is a scipy sparse matrix or array."""
    return _type_has(value, "toarray", "tocsr")


def is_array_like(value: Any) -> bool:
    """Whether numpy can read `value` at once: other packages' arrays, not pictures."""
    return _type_has(value, "__array__") and not isinstance(value, Image.Image)


def is_dataset(value: Any) -> bool:
    """Whether `value` has a length and items by position, as torch's datasets do."""
    return _type_has(value, "__getitem__", "__len__") and not isinstance(value, Mapping)


def is_missing(value: Any) -> bool:
    """Whether `value` is None, NaN or pandas' NA."""
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return True
    return isinstance(value, numbers.Real) and bool(value != value)


def is_number(value: Any) -> bool:
    """Whether `value` is one number."""
    return isinstance(value, numbers.Number | np.generic) and not isinstance(value, str | bytes)
