"""The one flow of both estimators: images, through a frozen trunk, to rows.

Which rows are known is asked first; only the others are computed, in one pass for all taps, and
written as they come, so that an interrupted run keeps what it had. A row does not depend on the
rows beside it, nor on whether it was computed or remembered. A store that fails costs time, never
a result: the rows that come back decide, not what was written.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from .._progress import Progress
from .._typing import AnyArray
from ..exceptions import ImageError, RangeWarning
from ..images import ImageCollection
from ._cache import decide, open_store
from ._cached_rows import CachedRows, cached_rows, missing_rows, read_or_computed, read_rows
from ._compute import Result, computed
from ._failures import readable, renumber
from ._recipe import Recipe
from ._settings import Settings

_SLICE_BYTES = 2**30
# Rows of one tap that training holds in memory; more are read from the store when they are needed,
# which the operating system's own cache of files keeps quick.
_HELD_BYTES = 2 * 2**30


def stream(images: ImageCollection, recipe: Recipe, settings: Settings) -> Iterator[Result]:
    """Give the rows of images, some at a time, remembered or computed.

    Parameters
    ----------
    images : ImageCollection
        The images.
    recipe : Recipe
        What is done to each.
    settings : Settings
        How.

    Yields
    ------
    rows : list of int
        Positions of images; each that can be read comes once, in any order.
    taps : list of ndarray of shape (len(rows), ...)
        Rows of each tap, float32; preprocessed images as they are, mostly uint8.

    Raises
    ------
    ImageError
        For the first image that cannot be read, where `settings.failures` is None.
    """
    store = open_store(settings.cache)
    with Progress(
        len(images), verbose=settings.verbose, description=recipe.backbone.name
    ) as progress:
        decision = decide(recipe, recipe.row_shapes(images), len(images), store)
        missing = None
        if decision.remember and store is not None:
            job = cached_rows(images, recipe, settings, store)
            missing = missing_rows(job)
            results = read_or_computed(job, missing)
        else:
            results = computed(images, range(len(images)), recipe, settings)
        # Where nothing is computed, an earlier call has said it.
        if settings.verbose and missing != {}:
            verb = "remembers" if decision.remember else "does not remember"
            progress.note(f"{recipe.backbone.name} {verb} rows: {decision.reason}")
        with contextlib.closing(results):
            for rows, taps in results:
                yield rows, taps
                progress.update(len(rows))
    _warn_of_range(images)


def _warn_of_range(images: ImageCollection) -> None:
    """Warn once of images whose range, which the user did not give, is hardly used."""
    report = None if images.range_use is None else images.range_use.report()
    if report is not None:
        warnings.warn(report, RangeWarning, stacklevel=4)


def activations(images: ImageCollection, recipe: Recipe, settings: Settings) -> list[AnyArray]:
    """Give the rows of images, all in memory.

    Parameters
    ----------
    images, recipe, settings
        As in `stream`.

    Returns
    -------
    taps : list of ndarray of shape (n_images, ...)
        Rows of each tap, in the order of the images. With `settings.failures`: of the images that
        can be read; an empty list where none can.
    """
    found: list[AnyArray] = []
    for rows, results in stream(images, recipe, settings):
        if not found:
            found = [np.empty((len(images), *r.shape[1:]), dtype=r.dtype) for r in results]
        for whole, result in zip(found, results, strict=True):
            whole[rows] = result
    if settings.failures:
        left = readable(len(images), settings.failures)
        return [whole[left] for whole in found]
    return found


@contextlib.contextmanager
def renumbered(rows: Sequence[int]) -> Iterator[None]:
    """Let errors of images that were taken from a collection name their rows in it.

    Parameters
    ----------
    rows : sequence of int
        The rows that were taken.
    """
    try:
        yield
    except ImageError as error:
        row = None if error.row is None else int(rows[error.row])
        raise ImageError(error.reason, row, error.path) from error


def slices(
    images: ImageCollection, recipe: Recipe, settings: Settings, multiple: int
) -> Iterator[list[AnyArray]]:
    """Give the rows of images in order, as many at a time as fit into 1 GiB of memory.

    Parameters
    ----------
    images, recipe, settings
        As in `stream`.
    multiple : int
        The number of rows of each slice but the last is a multiple of this.

    Yields
    ------
    taps : list of ndarray of shape (n_rows, ...)
        Rows of each tap.
    """
    per_row = _bytes_per_row(images, recipe, settings)
    step = multiple * max(1, _SLICE_BYTES // (per_row * multiple))
    for start in range(0, len(images), step):
        rows = range(start, min(start + step, len(images)))
        part = settings.for_another_call()
        with renumbered(rows):
            found = activations(images.take(rows), recipe, part)
        if settings.failures is not None and part.failures:
            settings.failures.extend(renumber(part.failures, rows))
        if found:
            yield found


def _bytes_per_row(images: ImageCollection, recipe: Recipe, settings: Settings) -> int:
    shapes = recipe.row_shapes(images)
    if shapes is None:
        try:
            shapes = [recipe.input_shape(images, settings.skip_unreadable)]
        except ImageError:
            if not settings.skip_unreadable:
                raise
            # None of the images can be read: there will be no rows.
            return 1
    return 4 * sum(math.prod(shape) for shape in shapes)


class StoredRows:
    """Rows of one tap that stay in the store until they are asked for.

    A row that the store has lost in the meantime is computed again.
    """

    def __init__(self, job: "CachedRows") -> None:
        self._job = job

    def __len__(self) -> int:
        return len(self._job.keys)

    def __getitem__(self, positions: list[int]) -> AnyArray:
        """Read rows, in the order of their positions."""
        distinct, places = np.unique(positions, return_inverse=True)
        parts = list(read_rows(self._job, distinct.tolist()))
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        in_order: AnyArray = np.concatenate([result for _, (result,) in parts])[order]
        return in_order[places]


class JoinedRows:
    """Rows of several taps: an access gives a tuple, the rows of each.

    Parameters
    ----------
    parts : sequence of ndarray or StoredRows
        Rows of each tap, of the same images in the same order.
    """

    def __init__(self, parts: "Sequence[AnyArray | StoredRows]") -> None:
        self._parts = tuple(parts)

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, positions: list[int]) -> tuple[AnyArray, ...]:
        """Read rows, in the order of their positions."""
        return tuple(part[positions] for part in self._parts)


def joined(parts: Sequence[AnyArray | StoredRows]) -> AnyArray | StoredRows | JoinedRows:
    """Give the rows of one tap as they are, those of several as tuples.

    Parameters
    ----------
    parts : sequence of ndarray or StoredRows
        Rows of each tap.
    """
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def held_or_stored(
    images: ImageCollection, recipe: Recipe, settings: Settings
) -> list[AnyArray | StoredRows]:
    """Give the rows of images: in memory, or where a tap's exceed 2 GiB, read when asked for.

    Parameters
    ----------
    images, recipe, settings
        As in `stream`. Rows that are not remembered are all in memory.

    Returns
    -------
    taps : list of ndarray or StoredRows, of n_images rows
        Rows of each tap, in the order of the images; as in `activations` for those that cannot be
        read.
    """
    store = open_store(settings.cache)
    shapes = recipe.row_shapes(images) or []
    large = [
        tap
        for tap, shape in zip(recipe.taps, shapes, strict=False)
        # Vectors are always held: the start of a head needs all of them.
        if len(shape) > 1 and 4 * math.prod(shape) * len(images) > _HELD_BYTES
    ]
    if not large or store is None or not decide(recipe, shapes, len(images), store).remember:
        return list(activations(images, recipe, settings))
    for _ in stream(images, recipe, settings):
        pass
    if settings.failures:
        images = images.take(readable(len(images), settings.failures))
    # What could be read and then no longer is an error: these rows have been promised.
    quiet = settings._replace(verbose=0, failures=None)
    stored = cached_rows(images, recipe, quiet, store)
    return [
        StoredRows(stored.only((tap,)))
        if tap in large
        else activations(images, recipe.only((tap,)), quiet)[0]
        for tap in recipe.taps
    ]
