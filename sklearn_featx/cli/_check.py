"""The check of ``sklearn-featx extract --check``: all images are read, nothing is computed."""

from typing import Any

import joblib
import numpy as np

from .._progress import Progress
from .._typing import AnyArray
from ..exceptions import ImageError

_ROWS_PER_BATCH = 32


def unreadable(
    entries: list[Any], *, n_threads: int | None, show_progress: bool, **reading: Any
) -> list[ImageError]:
    """Read images, and return an error for each that is unreadable.

    Parameters
    ----------
    entries : list
        Paths, addresses or contents of images.
    n_threads : int or None
        Number of threads that read, in joblib's way; None: one for each core.
    show_progress : bool
        Whether a progress bar is shown.
    **reading : dict
        Parameters of `ImageReader`.

    Returns
    -------
    errors : list of ImageError
        In the order of the rows, which they have.
    """
    # Here: help does not wait for Pillow.
    from ..images import Bags, ReadOptions, as_image_collection, iterate_batches

    rows = as_image_collection(entries, ReadOptions(**reading, on_error="nan"))
    # A bag is read image by image.
    images = rows.images if isinstance(rows, Bags) else rows
    batches = iterate_batches(
        images,
        range(len(images)),
        _nothing,
        batch_size=_ROWS_PER_BATCH,
        n_threads=joblib.effective_n_jobs(-1 if n_threads is None else n_threads),
        on_error="nan",
    )
    errors: list[ImageError] = []
    with (
        images.reading_ahead(range(len(images)), with_states=False),
        Progress(len(images), verbose=int(show_progress), description="check") as progress,
    ):
        for batch in batches:
            errors += batch.failures
            progress.update(len(batch.rows) + len(batch.failures))
    return rows.failures(errors) if isinstance(rows, Bags) else errors


def _nothing(_: AnyArray) -> AnyArray:
    """Drop the levels of an image: no batch of them is needed."""
    return np.zeros(1, np.uint8)
