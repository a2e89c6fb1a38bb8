"""Refusals of y that name the row, its value and the way out.

The errors of NumPy and scikit-learn for the same y name no row, and some y pass them: NumPy makes
the label "nan" of a missing one in a list of strings.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from .._messages import shown
from .._typing import AnyArray
from ..images import is_missing

_SEVERAL = (
    "For several labels of an image, pass a matrix of 0 and 1 of shape (n_rows, n_labels), as "
    "MultiLabelBinarizer().fit_transform(y) makes."
)


def refuse_missing(y: Any) -> None:
    """Refuse None, NaN, NA and NaT in y, and infinite numbers."""
    values = _as_array(y)
    if values is None or values.dtype.kind in "biuSU":
        return
    if values.dtype.kind in "Mm":
        missing = np.isnat(values)
    elif values.dtype.kind in "fc":
        missing = ~np.isfinite(values)
    else:
        missing = np.array([_is_no_value(value) for value in values.flat], dtype=bool)
        missing = missing.reshape(values.shape)
    if not missing.any():
        return
    row, *column = (int(place) for place in np.argwhere(missing)[0])
    value = values[(row, *column)]
    kind = "infinite" if _is_infinite(value) else "missing (None, NaN, NA or NaT)"
    where = f"row {row}" + (f", column {column[0]}," if column else "")
    raise ValueError(
        f"y: {where} is {_plain(value)}, and no target may be {kind}. Drop these rows."
    )


def refuse_several_labels(y: Any) -> None:
    """Refuse rows of several labels that are no matrix of 0 and 1."""
    values = _as_array(y)
    if values is None or not len(values):
        return
    if values.ndim == 1 and values.dtype.kind == "O":
        for row, value in enumerate(values):
            if isinstance(value, Sequence | AbstractSet | Mapping | np.ndarray) and not isinstance(
                value, str | bytes
            ):
                raise ValueError(f"y: row {row} is {shown(value)}. {_SEVERAL}")
    elif values.ndim == 2 and values.shape[1] > 1 and _is_text(values.flat[0]):
        raise ValueError(f"y: row 0 is {shown(values[0].tolist())}. {_SEVERAL}")


def refuse_mixed_labels(labels: AnyArray) -> None:
    """Refuse text beside other labels, because classes are sorted."""
    if labels.dtype.kind != "O":
        return
    is_text = np.array([_is_text(label) for label in labels.flat], dtype=bool)
    if is_text.any() and not is_text.all():
        text, other = int(is_text.argmax()), int(is_text.argmin())
        raise ValueError(
            f"y: row {text} is text, {shown(labels.flat[text])}, and row {other} is not, "
            f"{_plain(labels.flat[other])}. Pass y.astype(str)."
        )


def refuse_unknown_labels(labels: AnyArray, kind: str) -> None:
    """Refuse labels of a type that scikit-learn does not classify.

    Parameters
    ----------
    labels : ndarray of shape (n_rows,) or (n_rows, n_columns)
        The labels.
    kind : str
        As `type_of_target` names it.
    """
    head = f"y: Unknown label type: {kind}"
    if kind.startswith("continuous"):
        row, *_ = np.argwhere(labels != np.floor(labels))[0]
        raise ValueError(
            f"{head}; row {row} is {shown(labels[row].tolist())}. For numbers use "
            "FineTuneRegressor, or cut them into classes, as by KBinsDiscretizer."
        )
    if kind == "multiclass-multioutput":
        raise ValueError(f"{head}; row 0 is {shown(labels[0].tolist())}. {_SEVERAL}")
    if kind == "unknown" and labels.ndim == 1:
        row = next((i for i, label in enumerate(labels) if not isinstance(label, str)), 0)
        raise ValueError(
            f"{head}; row {row} is {_plain(labels[row])} in an array of objects. Pass "
            "y.astype(str) for labels, or y.astype(int) for whole numbers."
        )


def refuse_text(y: Any) -> None:
    """Refuse targets of a regression that are text and no numbers."""
    values = _as_array(y)
    if values is None or values.dtype.kind not in "OSU":
        return
    for place, value in zip(np.ndindex(values.shape), values.flat, strict=True):
        if _is_text(value) and not _is_number(value):
            raise ValueError(
                f"y: row {place[0]} is {_plain(value)}, which is no number. For labels, use "
                "FineTuneClassifier."
            )


def refuse_uneven(y: Any) -> None:
    """Refuse rows with different numbers of targets."""
    values = _as_array(y)
    if values is None or values.ndim != 1 or values.dtype.kind != "O":
        return
    sizes = [len(row) if isinstance(row, list | tuple | np.ndarray) else 1 for row in values]
    other = next((row for row, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        raise ValueError(
            f"y: row {other} has {sizes[other]} targets, and row 0 has {sizes[0]}. Pass the same "
            "number for each image."
        )


def refuse_one_class(label: Any, n_left_out: int) -> None:
    """Refuse to classify when only one class has rows, or rows with a positive weight."""
    why = f" (unreadable images left out: {n_left_out})" if n_left_out else ""
    raise ValueError(
        f"y contains only one class: {_plain(label)}{why}. A classifier needs rows of at least 2 "
        "classes with a positive weight: add images of another class."
    )


def _as_array(y: Any) -> AnyArray | None:
    """Return the values of y as they are; None if they are sparse, or no array."""
    if hasattr(y, "toarray"):
        return None
    try:
        # As objects, so that NumPy does not write out what is missing between strings.
        values = np.asarray(y, dtype=object) if isinstance(y, list | tuple) else np.asarray(y)
    except (TypeError, ValueError, RuntimeError):
        return None
    return values if values.ndim else None


def _is_no_value(value: Any) -> bool:
    return is_missing(value) or _is_infinite(value)


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isinf(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes)


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain(value: Any) -> str:
    """Return a value as Python writes it: without the type of a NumPy number or string."""
    return shown(value.item() if isinstance(value, np.generic) else value)
