"""The one flow of both estimators: images, through a frozen trunk, to rows.

Which rows are known is asked first; only the others are computed, in one pass for all taps, and
written as they come, so that an interrupted run keeps what it had. A row does not depend on the
rows beside it, nor on whether it was computed or remembered. A store that fails costs time, never
a result: the rows that come back decide, not what was written.
"""

import contextlib
import math
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, Self, TypeAlias

import numpy as np

from ._compute import Result, Settings, computed
from ._failures import readable, renumber, row_of
from ._progress import Progress
from ._recipe import Recipe, Tap
from ._remember import Signature, decide, file_signatures, open_store, row_keys
from ._typing import AnyArray
from .exceptions import ImageError, RangeWarning
from .images import ImageCollection
from .store import FeatureStore, Rows

# Rows that are claimed, computed and written together: long enough to keep the prefetch busy,
# short enough that little is lost when a run is interrupted.
_ROWS_PER_CLAIM = 128
# Rows among which the next are claimed: to look at all of them each time would take more than the
# work itself where there are many.
_ROWS_PER_LOOK = 1024
# Rows read at a time: bounds the memory of a stream.
_ROWS_PER_READ = 256
# The longest wait for rows that another process computes, before they are computed here as well.
_PATIENCE_SECONDS = 600.0

_SLICE_BYTES = 2**30
# Rows of one tap that training holds in memory; more are read from the store when they are needed,
# which the operating system's own cache of files keeps quick.
_HELD_BYTES = 2 * 2**30

_Missing: TypeAlias = dict[tuple[Tap, ...], list[int]]


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
            job = _job(images, recipe, settings, store)
            missing = _missing(job)
            results = _remembered(job, missing)
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

    def __init__(self, job: "_Job") -> None:
        self._job = job

    def __len__(self) -> int:
        return len(self._job.keys)

    def __getitem__(self, positions: list[int]) -> AnyArray:
        """Read rows, in the order of their positions."""
        distinct, places = np.unique(positions, return_inverse=True)
        parts = list(_read(self._job, distinct.tolist()))
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        in_order: AnyArray = np.concatenate([result for _, (result,) in parts])[order]
        return in_order[places]


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
    stored = _job(images, recipe, quiet, store)
    return [
        StoredRows(stored.only((tap,)))
        if tap in large
        else activations(images, recipe.only((tap,)), quiet)[0]
        for tap in recipe.taps
    ]


class _Shelf(NamedTuple):
    """Where the rows of one tap are kept."""

    tap: Tap
    rows: Rows


class _Job(NamedTuple):
    """Images on their way to remembered rows: what, by which keys, how, and where it is kept."""

    images: ImageCollection
    keys: Sequence[str]
    signatures: Sequence[Signature | None]
    recipe: Recipe
    settings: Settings
    shelves: Sequence[_Shelf]

    def only(self, taps: tuple[Tap, ...]) -> Self:
        """Return the job for some of its taps."""
        shelves = [shelf for shelf in self.shelves if shelf.tap in taps]
        return self._replace(recipe=self.recipe.only(taps), shelves=shelves)

    def keys_of(self, positions: Sequence[int]) -> list[str]:
        """Keys of some of the images."""
        return [self.keys[i] for i in positions]

    def failed(self) -> set[int]:
        """Positions of the images that are known not to be readable."""
        return {row_of(error) for error in self.settings.failures or ()}

    def unchanged(self, positions: Sequence[int]) -> list[bool]:
        """Whether the file of each image is still the one that its key was taken of."""
        now = file_signatures(self.images, positions)
        return [s == self.signatures[i] for s, i in zip(now, positions, strict=True)]


def _job(images: ImageCollection, recipe: Recipe, settings: Settings, store: FeatureStore) -> _Job:
    shelves = [
        _Shelf(tap, store.rows(recipe.digest(tap), recipe.describe(tap))) for tap in recipe.taps
    ]
    # Before the keys: what changes from here on is noticed.
    signatures = file_signatures(images, range(len(images)))
    keys = row_keys(images, store, signatures, settings.failures)
    return _Job(images, keys, signatures, recipe, settings, shelves)


def _remembered(job: _Job, missing: _Missing) -> Generator[Result]:
    """Compute and write what the store lacks, then read the rest of it."""
    given: set[int] = set()
    for taps, positions in missing.items():
        for rows, results in _claimed(job.only(taps), positions):
            if len(taps) == len(job.recipe.taps):
                given.update(rows)
                yield rows, results
    given |= job.failed()
    rest = [i for i in range(len(job.keys)) if i not in given]
    for start in range(0, len(rest), _ROWS_PER_READ):
        yield from _read(job, rest[start : start + _ROWS_PER_READ])


def _missing(job: _Job) -> _Missing:
    """Positions of images without some row, by the taps that they lack: those share a pass."""
    lacking: dict[int, list[Tap]] = {}
    failed = job.failed()
    for shelf in job.shelves:
        for position in shelf.rows.missing(job.keys):
            if position not in failed:
                lacking.setdefault(position, []).append(shelf.tap)
    groups: _Missing = {}
    for position in sorted(lacking):
        groups.setdefault(tuple(lacking[position]), []).append(position)
    return groups


def _claimed(job: _Job, positions: Sequence[int]) -> Iterator[Result]:
    """Compute and write the rows that no other process is computing; wait for the others."""
    others: list[int] = []
    for start in range(0, len(positions), _ROWS_PER_LOOK):
        left = list(positions[start : start + _ROWS_PER_LOOK])
        while mine := _claim(job, left):
            yield from _kept(job, mine)
            taken = set(mine)
            left = [i for i in left if i not in taken]
        others += left
    if others:
        job.shelves[0].rows.wait(job.keys_of(others), _PATIENCE_SECONDS)


def _claim(job: _Job, positions: Sequence[int]) -> list[int]:
    """Claim the first rows that nobody computes."""
    rows, keys = job.shelves[0].rows, job.keys_of(positions)
    try:
        return [positions[c] for c in rows.claim(keys, limit=_ROWS_PER_CLAIM)]
    except BaseException:
        # An interrupt may come when they are written down but not returned: others would wait.
        rows.release(keys)
        raise


def _kept(job: _Job, mine: Sequence[int]) -> Iterator[Result]:
    """Compute and write claimed rows; end the claims on what did not come."""
    done: set[int] = set()
    try:
        for rows, results in _written(job, mine):
            done.update(rows)
            yield rows, results
    finally:
        # Also those of images that could not be read: others need not wait for them.
        if len(done) < len(mine):
            job.shelves[0].rows.release(job.keys_of([i for i in mine if i not in done]))


def _written(job: _Job, positions: Sequence[int]) -> Iterator[Result]:
    """Compute rows, and write those whose files are still what their keys say."""
    for rows, results in computed(job.images, positions, job.recipe, job.settings):
        unchanged = job.unchanged(rows)
        keys = job.keys_of([row for row, same in zip(rows, unchanged, strict=True) if same])
        kept = []
        # The claimed shelf last: who waits for it then finds all of them.
        for shelf, result in reversed(list(zip(job.shelves, results, strict=True))):
            shelf.rows.put_many(keys, result if all(unchanged) else result[unchanged])
            kept.append(shelf.rows.roundtrip(result))
        if not all(unchanged):
            job.shelves[0].rows.release(job.keys_of(rows))
        yield rows, kept[::-1]


def _read(job: _Job, positions: Sequence[int]) -> Iterator[Result]:
    """Read rows; those that are gone or damaged are computed."""
    found = np.ones(len(positions), dtype=bool)
    values = []
    for shelf in job.shelves:
        mask, rows = shelf.rows.get_many(job.keys_of(positions))
        found &= mask
        values.append((mask, rows))
    if found.any():
        yield (
            [position for position, hit in zip(positions, found, strict=True) if hit],
            [rows[found[mask]] for mask, rows in values],
        )
    lost = [position for position, hit in zip(positions, found, strict=True) if not hit]
    if lost:
        yield from _written(job, lost)
