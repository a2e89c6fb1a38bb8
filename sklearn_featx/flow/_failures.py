"""Unreadable images: records, warnings, and keeping the other rows aligned."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .._messages import short
from .._typing import AnyArray
from ..exceptions import ImageError, ImageWarning

# Images that a warning lists at most, and its length; `failures_` has all of them.
_MOST_LISTED = 3
_LONGEST = 300
_LONGEST_PATH = 30
_SHORTEST_ROW = 50


class Failure(NamedTuple):
    """An unreadable image; a list of them is a table for ``DataFrame(failures_)``.

    Parameters
    ----------
    row : int
        Position of the image in X.
    path : str or None
        The file, if the image has one.
    reason : str
        The reason why it is unreadable.
    """

    row: int
    path: str | None
    reason: str

    def __str__(self) -> str:
        return str(ImageError(self.reason, self.row, self.path))


def as_table(errors: Sequence[ImageError | Failure]) -> list[Failure]:
    """Return records of unreadable images, sorted by row.

    Parameters
    ----------
    errors : sequence of ImageError
        Each with its row.
    """
    table = [Failure(row_of(error), error.path, error.reason) for error in errors]
    return sorted(table, key=lambda failure: failure.row)


def renumber(errors: Sequence[ImageError], rows: Sequence[int] | AnyArray) -> list[ImageError]:
    """Return the errors of a part of a collection with rows of the whole collection.

    Parameters
    ----------
    errors : sequence of ImageError
        Errors of the part.
    rows : sequence of int
        The rows of the part.
    """
    return [ImageError(e.reason, int(rows[row_of(e)]), e.path) for e in errors]


def row_of(error: ImageError | Failure) -> int:
    """Return the row of an error, which errors of the flow always have."""
    assert error.row is not None
    return error.row


def readable(n_images: int, errors: Sequence[ImageError | Failure]) -> npt.NDArray[np.intp]:
    """Return the positions of the readable images.

    Parameters
    ----------
    n_images : int
        Number of images.
    errors : sequence of ImageError or Failure
        The unreadable images.
    """
    return np.setdiff1d(np.arange(n_images), [row_of(error) for error in errors])


def spread(rows: AnyArray, n_images: int, errors: Sequence[ImageError]) -> AnyArray:
    """Align rows with all images; the rows of unreadable images are NaN.

    Parameters
    ----------
    rows : ndarray of shape (n_readable, ...)
        Floating point rows of the readable images, in order.
    n_images : int
        Number of images.
    errors : sequence of ImageError
        The unreadable images.
    """
    aligned = np.full((n_images, *rows.shape[1:]), np.nan, dtype=rows.dtype)
    aligned[readable(n_images, errors)] = rows
    return aligned


def refuse_none_readable(n_images: int, errors: Sequence[ImageError | Failure]) -> None:
    """Raise an error if all images are unreadable.

    Parameters
    ----------
    n_images : int
        Number of images.
    errors : sequence of ImageError or Failure
        The unreadable images.

    Raises
    ------
    ImageError
        With row and path of the first image.
    """
    if errors and len(errors) == n_images:
        row, path, reason = as_table(errors)[0]
        reason = reason if reason.endswith((".", "!", "?")) else f"{reason}."
        raise ImageError(f"{reason} None of the {n_images} images can be read.", row, path)


def warn_of(
    failures: Sequence[Failure],
    n_images: int,
    consequence: str,
    *,
    listed_in: str | None = "failures_",
    stacklevel: int = 4,
) -> None:
    """Warn once of all unreadable images.

    Parameters
    ----------
    failures : sequence of Failure
        The unreadable images.
    n_images : int
        Number of images.
    consequence : str
        The consequence for them.
    listed_in : str or None, default="failures_"
        Attribute that has all of them; None: there is none.
    stacklevel : int, default=4
        Number of frames to the user's line; 4: the user calls a method that calls the caller.
    """
    if failures:
        message = _message(failures, n_images, consequence, listed_in)
        warnings.warn(message, ImageWarning, stacklevel=stacklevel)


def _message(
    failures: Sequence[Failure], n_images: int, consequence: str, listed_in: str | None
) -> str:
    """Return the number, the first rows with their reasons, and where all are, in one line."""
    head = f"{len(failures)} of {n_images} images could not be read: {consequence} "
    first, n_left = failures[:_MOST_LISTED], max(0, len(failures) - _MOST_LISTED)
    tail = f"; and {n_left} more" if n_left else ""
    tail += f"; {listed_in} lists all." if listed_in else ""
    room = (_LONGEST - len(head) - len(tail)) // len(first) - len("; ")
    rows = (_in_short(failure, max(_SHORTEST_ROW, room)) for failure in first)
    return head + "; ".join(rows) + tail


def _in_short(failure: Failure, longest: int) -> str:
    """Return row, end of the path and beginning of the reason."""
    path = f" ({short(failure.path, _LONGEST_PATH)!r})" if failure.path else ""
    text = " ".join(f"row {failure.row}{path}: {failure.reason}".split()).rstrip(".")
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
