"""Bag pooling: one row from the rows of the images of a bag.

A pooling is "mean", "max", "min" or "std", or several of them joined by "+", whose rows are
concatenated along the first axis of a row.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .._messages import shown
from .._typing import AnyArray
from ..exceptions import InputError

_POOLINGS: dict[str, Callable[..., AnyArray]] = {
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "std": np.std,
}


def check_bag_pooling(pooling: Any) -> None:
    """Raise `InputError` if a name is no bag pooling; None is one image for each row."""
    if pooling is None:
        return
    if not isinstance(pooling, str) or not all(part in _POOLINGS for part in bag_poolings(pooling)):
        raise InputError(
            f"bag_pooling={shown(pooling)}: expected 'mean', 'max', 'min' or 'std', or several of "
            "them, such as 'mean+max', or None."
        )


def bag_poolings(pooling: str | None) -> list[str]:
    """Return the poolings that a name joins; none for None."""
    return [] if pooling is None else pooling.split("+")


def pool_bag(rows: AnyArray, pooling: str) -> AnyArray:
    """Return one row from the rows of a bag.

    Parameters
    ----------
    rows : ndarray of shape (n_images, n_features, ...)
        Rows of the images of one bag, at least one.
    pooling : str
        The pooling.

    Returns
    -------
    row : ndarray of shape (n_poolings * n_features, ...)
        In the type of the rows. The standard deviation is that of the images themselves (divided
        by their number): 0 for one image.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx.images import pool_bag
    >>> pool_bag(np.array([[1.0, 2.0], [3.0, 0.0]]), "mean+max")
    array([2., 1., 3., 2.])
    """
    pooled = [_POOLINGS[part](rows, axis=0) for part in bag_poolings(pooling)]
    return np.concatenate(pooled) if len(pooled) > 1 else pooled[0]
