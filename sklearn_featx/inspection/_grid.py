"""A grid of axes without frames: the user's, or those of a new figure."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._optional import import_optional
from ._axes import check_axes

if TYPE_CHECKING:
    from .._typing import AnyArray

_MOST_COLUMNS = 6


def axes_grid(ax: Any, n_rows: int, n_columns: int, purpose: str) -> Any:
    """Return (n_rows, n_columns) axes to draw pictures on.

    Parameters
    ----------
    ax : array of matplotlib Axes, Axes or None
        The user's, as many as pictures; None: of a new figure.
    n_rows, n_columns : int
        Size of the grid.
    purpose : str
        Name of the caller, for the errors.

    Returns
    -------
    axes : ndarray of matplotlib Axes, of shape (n_rows, n_columns)
        The given axes, or new ones.
    """
    check_axes(ax, purpose)
    if ax is None:
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose=purpose)
        _, ax = pyplot.subplots(
            n_rows, n_columns, squeeze=False, layout="constrained",
            figsize=(2.2 * n_columns + 0.8, 2.4 * n_rows),
        )  # fmt: skip
    axes: AnyArray = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) < n_rows * n_columns:
        raise ValueError(
            f"ax has {len(axes)} axes, and {purpose} draws {n_rows * n_columns} pictures. Pass as "
            "many, or None for a new figure."
        )
    axes = axes[: n_rows * n_columns].reshape(n_rows, n_columns)
    for one in axes.ravel():
        one.set_axis_off()
    return axes


def nearly_square(n: int) -> tuple[int, int]:
    """Rows and columns of a grid for n pictures, with few empty places."""
    n_rows = math.ceil(n / _MOST_COLUMNS) or 1
    return n_rows, math.ceil(n / n_rows) or 1
