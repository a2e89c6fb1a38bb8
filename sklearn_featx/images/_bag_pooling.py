"""Bag pooling: one row from the rows of the images of a bag, and of the channels of an image.

The rows of the channels of an image lie side by side: they are one row. A pooling of images is
"mean", "max", "min" or "std", or several of them joined by "+", whose rows are concatenated along
the first axis of a row.
"""

from collections.abc import Callable
from typing import Any, cast, get_args

import numpy as np

from .._messages import shown
from .._typing import AnyArray, BagPooling
from ..exceptions import InputError

_POOLINGS: dict[BagPooling, Callable[..., AnyArray]] = {
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "std": np.std,
}


def check_bag_pooling(pooling: Any) -> None:
    """Raise `InputError` if a name is no bag pooling; None is one image for each row."""
    if pooling is None:
        return
    if not isinstance(pooling, str) or not {*bag_poolings(pooling)}.issubset(get_args(BagPooling)):
        raise InputError(
            f"bag_pooling={shown(pooling)}: expected 'mean', 'max', 'min' or 'std', or several of "
            "them, such as 'mean+max', or None."
        )
    names = bag_poolings(pooling)
    if repeated := [name for name in set(names) if names.count(name) > 1]:
        raise InputError(
            f"bag_pooling={shown(pooling)}: {shown(repeated[0])} occurs twice. Name each once."
        )


def bag_poolings(pooling: str | None) -> tuple[BagPooling, ...]:
    """Return the poolings that a name joins; none for None."""
    names = () if pooling is None else pooling.split("+")
    return cast("tuple[BagPooling, ...]", tuple(names))


def n_parts(pooling: str | None, n_channels: int = 1) -> int:
    """Return the number of rows that are concatenated to the row of a bag."""
    return n_channels * (len(bag_poolings(pooling)) or 1)


def pool_bag(rows: AnyArray, pooling: str | None, n_channels: int = 1) -> AnyArray:
    """Return one row from the rows of a bag.

    Parameters
    ----------
    rows : ndarray of shape (n_images * n_channels, n_features, ...)
        Rows of the images of one bag, at least one; of the channels of an image one after the
        other.
    pooling : str or None
        The pooling; None: there is one image.
    n_channels : int, default=1
        Number of channels of an image that are rows of their own.

    Returns
    -------
    row : ndarray of shape (n_poolings * n_channels * n_features, ...)
        In the type of the rows. The standard deviation is that of the images themselves (divided
        by their number): 0 for one image.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx.images import pool_bag
    >>> pool_bag(np.array([[1.0, 2.0], [3.0, 0.0]]), "mean+max")
    array([2., 1., 3., 2.])
    >>> pool_bag(np.array([[1.0, 2.0], [3.0, 0.0]]), None, n_channels=2)
    array([1., 2., 3., 0.])
    """
    n_images = len(rows) // n_channels
    images: AnyArray = rows.reshape(n_images, n_channels * rows.shape[1], *rows.shape[2:])
    if pooling is None:
        row: AnyArray = images[0]
        return row
    pooled = [_POOLINGS[part](images, axis=0) for part in bag_poolings(pooling)]
    return np.concatenate(pooled) if len(pooled) > 1 else pooled[0]
