"""Unreadable images: records, warnings, and keeping the other rows aligned."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray
from ..exceptions import ImageError, ImageWarning

# A warning of thousands of lines helps nobody; `failures_` has all of them.
_MAX_TOLD = 100


class Failure(NamedTuple):
    """One image that could not be read; a list of them makes a table, ``DataFrame(failures_)``.

    Parameters
    ----------
    row : int
        Position of the image in X.
    path : str or None
        The file, when the image came from one.
    reason : str
        What is wrong with it.
    """

    row: int
    path: str | None
    reason: str

    def __str__(self) -> str:
        return str(ImageError(self.reason, self.row, self.path))


def as_table(errors: Sequence[ImageError | Failure]) -> list[Failure]:
    """Return what is known of each image that could not be read, by rows.

    Parameters
    ----------
    errors : sequence of ImageError
        Each with its row.
    """
    table = [Failure(row_of(error), error.path, error.reason) for error in errors]
    return sorted(table, key=lambda failure: failure.row)


def renumber(errors: Sequence[ImageError], rows: Sequence[int] | AnyArray) -> list[ImageError]:
    """Name rows in the collection that images were taken from.

    Parameters
    ----------
    errors : sequence of ImageError
        About images that were taken from a collection.
    rows : sequence of int
        The rows that were taken.
    """
    return [ImageError(e.reason, int(rows[row_of(e)]), e.path) for e in errors]


def row_of(error: ImageError | Failure) -> int:
    """Return the row that an error of the flow always has."""
    assert error.row is not None
    return error.row


def readable(n_images: int, errors: Sequence[ImageError | Failure]) -> npt.NDArray[np.intp]:
    """Return the positions of the images that could be read.

    Parameters
    ----------
    n_images : int
        How many images there were.
    errors : sequence of ImageError or Failure
        One for each that could not be read.
    """
    return np.setdiff1d(np.arange(n_images), [row_of(error) for error in errors])


def spread(rows: AnyArray, n_images: int, errors: Sequence[ImageError]) -> AnyArray:
    """Put rows in their places among all images; the others are NaN.

    Parameters
    ----------
    rows : ndarray of shape (n_readable, ...)
        Floating point rows of the images that could be read, in order.
    n_images : int
        How many images there were.
    errors : sequence of ImageError
        One for each that could not be read.
    """
    aligned = np.full((n_images, *rows.shape[1:]), np.nan, dtype=rows.dtype)
    aligned[readable(n_images, errors)] = rows
    return aligned


def refuse_none_readable(n_images: int, errors: Sequence[ImageError | Failure]) -> None:
    """Raise an error where no image at all could be read.

    Parameters
    ----------
    n_images : int
        How many images there were.
    errors : sequence of ImageError or Failure
        One for each that could not be read.

    Raises
    ------
    ImageError
        With row and path of the first.
    """
    if errors and len(errors) == n_images:
        row, path, reason = as_table(errors)[0]
        raise ImageError(f"{reason} None of the {n_images} images can be read.", row, path)


def warn_of(
    failures: Sequence[Failure], n_images: int, consequence: str, *, stacklevel: int = 4
) -> None:
    """Warn once of all images that could not be read.

    Parameters
    ----------
    failures : sequence of Failure
        The images.
    n_images : int
        How many there were in all.
    consequence : str
        What happened to them.
    stacklevel : int, default=4
        Frames from here to the user's line; 4: through one that the estimator's method calls.
    """
    if failures:
        warnings.warn(_told(failures, n_images, consequence), ImageWarning, stacklevel=stacklevel)


def _told(failures: Sequence[Failure], n_images: int, consequence: str) -> str:
    lines = [f"{len(failures)} of {n_images} images could not be read: {consequence}"]
    lines += [f"  {failure}" for failure in failures[:_MAX_TOLD]]
    if len(failures) > _MAX_TOLD:
        lines.append(f"  and {len(failures) - _MAX_TOLD} more")
    return "\n".join(lines)
