"""Rows in a store: read where they are there, computed and written where they are missing.

Missing rows are claimed, so that several processes share the work. A store that fails costs time,
never a result: a row that cannot be read is computed again.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, Self, TypeAlias

import numpy as np

from ..images import ImageCollection
from ..store import FeatureStore, RecipeRows
from ._compute import Result, computed
from ._failures import row_of
from ._keys import Signature, file_signatures, row_keys
from ._recipe import Recipe, Tap
from ._settings import Settings

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

_Missing: TypeAlias = dict[tuple[Tap, ...], list[int]]


class _Shelf(NamedTuple):
    """Where the rows of one tap are kept."""

    tap: Tap
    rows: RecipeRows


class CachedRows(NamedTuple):
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


def cached_rows(
    images: ImageCollection, recipe: Recipe, settings: Settings, store: FeatureStore
) -> CachedRows:
    shelves = [
        _Shelf(tap, store.rows(recipe.digest(tap), recipe.describe(tap))) for tap in recipe.taps
    ]
    # Before the keys: what changes from here on is noticed.
    signatures = file_signatures(images, range(len(images)))
    keys = row_keys(images, store, signatures, settings.failures)
    return CachedRows(images, keys, signatures, recipe, settings, shelves)


def read_or_computed(job: CachedRows, missing: _Missing) -> Generator[Result]:
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
        yield from read_rows(job, rest[start : start + _ROWS_PER_READ])


def missing_rows(job: CachedRows) -> _Missing:
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


def _claimed(job: CachedRows, positions: Sequence[int]) -> Iterator[Result]:
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


def _claim(job: CachedRows, positions: Sequence[int]) -> list[int]:
    """Claim the first rows that nobody computes."""
    rows, keys = job.shelves[0].rows, job.keys_of(positions)
    try:
        return [positions[c] for c in rows.claim(keys, limit=_ROWS_PER_CLAIM)]
    except BaseException:
        # An interrupt may come when they are written down but not returned: others would wait.
        rows.release(keys)
        raise


def _kept(job: CachedRows, mine: Sequence[int]) -> Iterator[Result]:
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


def _written(job: CachedRows, positions: Sequence[int]) -> Iterator[Result]:
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


def read_rows(job: CachedRows, positions: Sequence[int]) -> Iterator[Result]:
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
