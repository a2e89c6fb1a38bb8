"""Numbers of scientific files: conversion to levels, by the user's range or the declared one."""

from ..._typing import AnyArray, Levels
from .._options import ReadOptions
from .._scaling import Note, ValueRange, to_shown


def numbers_to_levels(
    values: AnyArray, declared: ValueRange | None, options: ReadOptions, note: Note | None
) -> Levels:
    """Convert values (H, W, C) to levels (H, W, 1 or 3).

    Parameters
    ----------
    values : ndarray of shape (H, W, C)
        Gray or RGB; with an alpha channel as the last of 2 or 4, unless the options say otherwise.
    declared : (float, float) or None
        Black and white according to the file; None: those of the type.
    options : ReadOptions
        The user's window or range comes first.
    note : callable or None
        Called with the values if the user gave no range.

    Raises
    ------
    ImageError
        If values are no real numbers, NaN, infinite or out of range.
    """
    limits = options.range_of(values.dtype, declared)
    note = note if options.limits is None else None
    return to_shown(values, limits, note, bands=options.bands)
