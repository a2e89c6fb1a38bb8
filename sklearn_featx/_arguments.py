"""Checks of the arguments of functions: each refuses a value in one line, by name and way out.

Estimators declare the constraints of their parameters; functions and displays call these.
"""

from collections.abc import Sized
from numbers import Integral
from typing import Any

import numpy as np

from ._messages import shown


def check_flag(value: Any, name: str) -> None:
    """Refuse a value that is neither True nor False: any text would count as True."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={shown(value)}: expected True or False.")


def check_count(value: Any, name: str, least: int = 1) -> None:
    """Refuse a value that is no whole number, or too small."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={shown(value)}: expected a whole number of at least {least}.")


def check_length(values: Any, name: str, others: Sized, of: str = "X", each: str = "image") -> None:
    """Refuse values that are not one for each image, or for each of something else."""
    try:
        shape = np.shape(values)
    except ValueError:
        # Lists of different lengths, such as the labels of each image.
        shape = (len(values),)
    if shape[:1] != (len(others),):
        n = shape[0] if shape else "no"
        raise ValueError(
            f"{name} has {n} entries, and {of} has {len(others)} {each}s. Pass one for each {each}."
        )
