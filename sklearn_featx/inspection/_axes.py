"""Axes of a plot: the user's, or those of a new figure."""

from typing import Any

import numpy as np

from .._messages import short, shown
from .._optional import import_optional

# Titles of two names stand side by side.
_LONGEST_NAME = 17


def short_name(name: object) -> str:
    """Return the name of a class for titles and legends; a longer one keeps both ends.

    Parameters
    ----------
    name : object
        A class, or the name of an output.
    """
    return short(str(name), _LONGEST_NAME)


def axes_for(ax: Any, purpose: str) -> Any:
    """Return the axes to draw on.

    Parameters
    ----------
    ax : matplotlib Axes or None
        The user's; None: of a new figure.
    purpose : str
        Name of the caller, for the error if matplotlib is missing.

    Returns
    -------
    ax : matplotlib Axes
        The given axes, or new ones.

    Raises
    ------
    ValueError
        If `ax` is no Axes.
    MissingDependencyError
        If matplotlib is not installed.
    """
    check_axes(ax, purpose)
    if ax is not None:
        if isinstance(ax, np.ndarray | list | tuple):
            raise ValueError(f"ax={shown(ax)}: expected one matplotlib Axes, or None.")
        return ax
    pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose=purpose)
    _, new = pyplot.subplots(layout="constrained")
    return new


def check_axes(ax: Any, purpose: str) -> None:
    """Refuse what nothing can be drawn on, before anything is computed.

    Parameters
    ----------
    ax : object
        Axes, an array of them or None.
    purpose : str
        Name of the caller, for the error if matplotlib is missing.

    Raises
    ------
    ValueError
        If it is something else.
    MissingDependencyError
        If matplotlib is not installed.
    """
    axes = import_optional("matplotlib.axes", extra="plot", purpose=purpose)
    given: list[Any] = [] if ax is None else np.ravel(np.asarray(ax, dtype=object)).tolist()
    if not all(isinstance(one, axes.Axes) for one in given):
        raise ValueError(
            f"ax={shown(ax)}: expected matplotlib Axes, as of plt.subplots(), or None for a new "
            "figure."
        )
