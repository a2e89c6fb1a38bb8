"""Rows of images, from the cache or through a frozen trunk; all estimators use these functions.

Only rows that are not cached are computed, in one pass for all taps. They are written at once, so
an interrupted run keeps them. A row does not depend on the other rows, and is equal whether it is
computed or cached. A store that fails costs time, never a result.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._messages import user_level
from .._progress import Progress, note
from .._typing import AnyArray
from ..exceptions import BackboneError, ImageError, RangeWarning, StoreWarning
from ..images import Bags, ImageCollection
from ..store import FeatureStore
from ._bags import BagRows, located, rows_of_bags
from ._cache import NO_STORE, Decision, decide, open_store
from ._cached_rows import missing_rows, read_all, read_or_computed, read_rows
from ._compute import Result, computed
from ._failures import readable, refuse_none_readable, renumber
from ._recipe import Recipe, Tap
from ._settings import Settings
from ._shelves import CachedRows, cached_rows

_SLICE_BYTES = 2**30
# The maximum size of the rows of one tap in memory during training. Larger ones are read from the
# store on demand, which the operating system's file cache makes fast.
_HELD_BYTES = 2 * 2**30


def stream(images: ImageCollection, recipe: Recipe, settings: Settings) -> Generator[Result]:
    """Yield the rows of images in groups, cached or computed.

    Parameters
    ----------
    images : ImageCollection
        The images; the results of bags are those of their images.
    recipe : Recipe
        The recipe of the rows.
    settings : Settings
        Settings of the computation.

    Yields
    ------
    result : Result
        Each image occurs once, as a row or as a failure, in any order.

    Raises
    ------
    ImageError
        For the first unreadable image, if `settings.on_error` is "raise".
    """
    if isinstance(images, Bags):
        images = images.images
    store = open_store(settings.cache)
    decision = decide(recipe, recipe.row_shapes(images), len(images), store)
    job = None
    if decision.cached and store is not None:
        job = cached_rows(images, recipe, settings, store)
    yield from _streamed(images, recipe, settings, decision, job)


def _streamed(
    images: ImageCollection,
    recipe: Recipe,
    settings: Settings,
    decision: Decision,
    job: CachedRows | None,
) -> Iterator[Result]:
    missing = None if job is None else missing_rows(job)
    # Nothing to compute: the decision was reported when the rows were cached.
    if missing != {}:
        _report(decision, recipe, settings)
    if job is not None and missing is not None:
        results = read_or_computed(job, missing)
    else:
        results = computed(images, range(len(images)), recipe, settings)
    label = recipe.backbone.name
    with (
        Progress(len(images), verbose=settings.verbose, description=label) as progress,
        contextlib.closing(results),
    ):
        for result in results:
            yield result
            progress.update(len(result.rows) + len(result.failures))
    if job is not None and recipe.unnamed is not None:
        # A user's function has changed a value.
        _report(Decision(False, recipe.unnamed), recipe, settings)
    warn_of_range(images)


def _report(decision: Decision, recipe: Recipe, settings: Settings) -> None:
    """Report whether rows are cached; warn if a store that the user named gets none."""
    # Without a store, the user wants none, or a warning has said why there is none.
    if not settings.reports or decision.reason == NO_STORE:
        return
    text = f"{recipe.backbone.name}: rows are {'' if decision.cached else 'not '}cached"
    named = isinstance(settings.cache, str | os.PathLike | FeatureStore)
    if named and not decision.cached:
        warnings.warn(f"{text}, {decision.reason}", StoreWarning, stacklevel=5)
    elif settings.verbose:
        note(f"{text}, {decision.reason}")


def warn_of_range(images: ImageCollection) -> None:
    """Warn once of frames that were not read, and of a range that is hardly used.

    Parameters
    ----------
    images : ImageCollection
        Images of which some were read.
    """
    for report in [] if images.range_use is None else images.range_use.reports():
        warnings.warn(report, RangeWarning, stacklevel=user_level())


class TapRows(NamedTuple):
    """Rows of each tap, and the unreadable images.

    Parameters
    ----------
    taps : list of ndarray or StoredRows of shape (n_readable, ...)
        Rows of each tap, in the order of the readable images; an empty list if there are none.
    failures : list of ImageError
        The unreadable images, in any order.
    """

    taps: list[Any]
    failures: list[ImageError]


def activations(images: ImageCollection, recipe: Recipe, settings: Settings) -> TapRows:
    """Return the rows of images, all in memory.

    Parameters
    ----------
    images, recipe, settings
        As in `stream`.

    Returns
    -------
    found : TapRows
        Rows and failures.
    """
    if isinstance(images, Bags):
        return _of_bags(activations, images, recipe, settings)
    return _in_order(stream(images, recipe, settings), len(images))


def _of_bags(
    rows_of: Callable[[ImageCollection, Recipe, Settings], TapRows],
    bags: Bags,
    recipe: Recipe,
    settings: Settings,
) -> TapRows:
    """Compute the rows of the images of bags, and pool them."""
    with located(bags):
        found = rows_of(bags.images, recipe, settings)
    return TapRows(*rows_of_bags(found.taps, found.failures, bags, recipe))


def _in_order(results: Generator[Result], n_images: int) -> TapRows:
    """Bring results into the order of the images, and close them.

    The traceback of an interrupt would keep an open generator, and its threads, alive.
    """
    found: list[AnyArray] = []
    failures: list[ImageError] = []
    with contextlib.closing(results):
        for result in results:
            failures += result.failures
            if not found and list(result.rows) == list(range(n_images)):
                # All in one, as cached rows come: no copy.
                found = list(result.taps)
                continue
            if result.rows and not found:
                found = [np.empty((n_images, *t.shape[1:]), dtype=t.dtype) for t in result.taps]
            for whole, tap in zip(found, result.taps, strict=bool(result.rows)):
                whole[result.rows] = tap
    if failures:
        left = readable(n_images, failures)
        found = [whole[left] for whole in found]
    return TapRows(found, failures)


@contextlib.contextmanager
def renumbered(rows: Sequence[int]) -> Iterator[None]:
    """Context manager: errors of a part of a collection name rows of the whole collection.

    Parameters
    ----------
    rows : sequence of int
        The rows of the part.
    """
    try:
        yield
    except ImageError as error:
        row = None if error.row is None else int(rows[error.row])
        raise ImageError(error.reason, row, error.path) from error


def slices(
    images: ImageCollection, recipe: Recipe, settings: Settings, multiple: int
) -> Iterator[TapRows]:
    """Yield the rows of images in order, in groups that fit into 1 GiB of memory.

    Parameters
    ----------
    images, recipe, settings
        As in `stream`.
    multiple : int
        The number of rows of each group but the last is a multiple of this.

    Yields
    ------
    found : TapRows
        Rows and failures of the next images; failures have their rows in `images`.
    """
    per_row = _bytes_per_row(images, recipe, settings)
    step = multiple * max(1, _SLICE_BYTES // (per_row * multiple))
    for start in range(0, len(images), step):
        rows = range(start, min(start + step, len(images)))
        with renumbered(rows):
            found = activations(images.take(rows), recipe, settings)
        yield TapRows(found.taps, renumber(found.failures, rows))


def first_shapes(
    images: ImageCollection, recipe: Recipe, settings: Settings
) -> list[tuple[int, ...]]:
    """Shape of a row of each tap, of the first image if it depends on the images.

    Parameters
    ----------
    images, recipe, settings
        As in `stream`. The shapes for bags are those of their images.
    """
    if isinstance(images, Bags):
        images = images.images
    store = open_store(settings.cache)
    if recipe.deterministic or not decide(recipe, None, 1, store).cached:
        return recipe.shapes_from(recipe.input_shape(images, settings.skip_unreadable))
    # The row of the first image costs one call of the user's function, as its shape alone would.
    quiet, failures = settings._replace(verbose=0, reports=False), []
    for i in range(len(images) if settings.skip_unreadable else 1):
        try:
            with renumbered([i]):
                taps, failed = activations(images.take([i]), recipe, quiet)
        except BackboneError:
            # The error of a dry run names the sizes that the network was made for.
            recipe.shapes_from(recipe.input_shape(images, settings.skip_unreadable))
            raise
        if taps:
            return [tap.shape[1:] for tap in taps]
        failures += renumber(failed, [i])
    refuse_none_readable(len(images), failures)
    raise AssertionError("an image has a row or an error")


def _bytes_per_row(images: ImageCollection, recipe: Recipe, settings: Settings) -> int:
    shapes = recipe.row_shapes(images)
    if shapes is None:
        try:
            shapes = first_shapes(images, recipe, settings)
        except ImageError:
            if not settings.skip_unreadable:
                raise
            # All images are unreadable, so there are no rows.
            return 1
    n_images = len(images.images) if isinstance(images, Bags) else len(images)
    return sum(recipe.row_bytes(shapes)) * -(-n_images // len(images))


class StoredRows:
    """Rows of one tap that are read from the store on demand.

    A row that the store has lost in the meantime is computed again.
    """

    def __init__(self, job: CachedRows) -> None:
        self._job = job

    def __len__(self) -> int:
        return len(self._job.keys)

    def __getitem__(self, positions: list[int]) -> AnyArray:
        """Read rows, in the order of their positions."""
        distinct, places = np.unique(positions, return_inverse=True)
        parts = list(read_rows(self._job, distinct.tolist()))
        order = np.argsort(np.concatenate([part.rows for part in parts]))
        in_order: AnyArray = np.concatenate([part.taps[0] for part in parts])[order]
        return in_order[places]


class JoinedRows:
    """Rows of several taps: an access returns a tuple of their rows.

    Parameters
    ----------
    parts : sequence of ndarray or StoredRows
        Rows of each tap, of the same images in the same order.
    """

    def __init__(self, parts: "Sequence[AnyArray | StoredRows | BagRows]") -> None:
        self._parts = tuple(parts)
        self.of_bags = any(isinstance(part, BagRows) for part in parts)

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, positions: list[int]) -> tuple[AnyArray, ...]:
        """Read rows, in the order of their positions."""
        found: list[AnyArray] = []
        for part in self._parts:
            # Those of bags are two arrays: rows, and their number in each bag.
            rows = part[positions]
            found += rows if isinstance(rows, tuple) else [rows]
        return tuple(found)


# Rows of images: those of one tap, or of several in tuples.
Rows: TypeAlias = AnyArray | StoredRows | BagRows | JoinedRows


def joined(parts: Sequence[AnyArray | StoredRows | BagRows]) -> Rows:
    """Return the rows of one tap unchanged, the rows of several taps as `JoinedRows`.

    Parameters
    ----------
    parts : sequence of ndarray, StoredRows or BagRows
        Rows of each tap.
    """
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def held_or_stored(images: ImageCollection, recipe: Recipe, settings: Settings) -> TapRows:
    """Return the rows of images: in memory, or read on demand for a tap of more than 2 GiB.

    Parameters
    ----------
    images, recipe, settings
        As in `stream`. Rows that are not cached are in memory.

    Returns
    -------
    found : TapRows
        Rows and failures.
    """
    if isinstance(images, Bags):
        return _of_bags(held_or_stored, images, recipe, settings)
    store = open_store(settings.cache)
    shapes = recipe.row_shapes(images)
    large = [] if shapes is None else _large_taps(recipe, shapes, len(images))
    decision = decide(recipe, shapes, len(images), store)
    if not large or store is None or not decision.cached:
        return activations(images, recipe, settings)
    job = cached_rows(images, recipe, settings, store)
    results = _streamed(images, recipe, settings, decision, job)
    failures = [failure for result in results for failure in result.failures]
    if recipe.unnamed is not None:
        # A user's function has changed a value, and its rows were not written.
        return activations(images, recipe, settings)
    # An image that was readable and no longer is raises an error, since its row has a position.
    quiet = settings._replace(verbose=0, reports=False, on_error="raise")
    stored = job.take(readable(len(images), failures).tolist())._replace(settings=quiet)
    taps = [_held(stored.only((tap,)), stored=tap in large) for tap in recipe.taps]
    return TapRows(taps, failures)


def _large_taps(recipe: Recipe, shapes: Sequence[tuple[int, ...]], n_images: int) -> list[Tap]:
    """Taps whose rows are not in memory."""
    sizes = zip(recipe.taps, shapes, recipe.row_bytes(shapes), strict=True)
    # Vectors are always in memory: the start of a head needs all of them.
    return [tap for tap, shape, size in sizes if len(shape) > 1 and size * n_images > _HELD_BYTES]


def _held(job: CachedRows, *, stored: bool) -> AnyArray | StoredRows:
    """Return the rows of one tap."""
    if stored:
        return StoredRows(job)
    n_images = len(job.keys)
    rows: AnyArray = _in_order(read_all(job, range(n_images)), n_images).taps[0]
    return rows
