"""Axes of a plot: the user's, or those of a new figure."""

from typing import Any

from .._optional import import_optional


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
    MissingDependencyError
        If matplotlib is not installed.
    """
    pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose=purpose)
    if ax is not None:
        return ax
    _, new = pyplot.subplots(layout="constrained")
    return new
