"""The error of early stopping that cannot hold rows out: the reason, and the value that can."""

import math
from typing import Any

import numpy as np

from .._typing import AnyArray


def split_error(split: Any, targets: AnyArray, groups: AnyArray | None) -> ValueError:
    """Return the error of a split that leaves a part, or a class of a part, without rows.

    Parameters
    ----------
    split : HoldOut or another split of skorch
        The split that failed.
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Class codes or other targets.
    groups : ndarray of shape (n_rows,) or None
        Equal for rows that are not separated.
    """
    fraction, n_rows = getattr(split, "cv", None), len(targets)
    is_share = isinstance(fraction, float | np.floating)
    what = f"validation_fraction={fraction:g}" if is_share else "the rows of train_split"
    head = f"early_stopping=True cannot hold out {what} of the {n_rows} rows: "
    if groups is not None or fraction is None or not is_share:
        return ValueError(
            f"{head}training and validation each need a row, one of every class, and whole groups. "
            "Use more rows or groups, or early_stopping=False."
        )
    stratified = getattr(split, "stratified", False) and targets.ndim == 1
    counts = np.unique(targets, return_counts=True)[1] if stratified else np.array([n_rows])
    return ValueError(head + _reason(counts, float(fraction), stratified=stratified))


def _reason(counts: AnyArray, fraction: float, *, stratified: bool) -> str:
    n_parts, n_rows = len(counts), int(counts.sum())
    each = "training and validation each need a row"
    each += f" of each of the {n_parts} classes" if stratified else ""
    single = int((counts < 2).sum())
    if single:
        lack = f", and {single} of them have one row only" if stratified else ""
        what = "2 rows of each class" if stratified else "2 rows"
        return f"{each}{lack}. Use at least {what}, or early_stopping=False."
    if math.ceil(fraction * n_rows) < n_parts:
        # Rounded up. It is at most 0.5, so enough rows are left to train on.
        least = math.ceil(100 * n_parts / n_rows) / 100
        mend = f"validation_fraction={least:g} or more"
    else:
        most = math.floor(100 * (n_rows - n_parts) / n_rows) / 100
        mend = f"validation_fraction={most:g} or less"
    return f"{each}. Set {mend}, use more rows, or early_stopping=False."
