"""Cached rows: reading them from a store, and computing and writing the missing ones.

One pipeline serves all missing rows of a call. A store that fails costs time, never a result: a row
that cannot be read is computed again.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np

from .._typing import AnyArray
from ..images import Choose, choose_all
from ._claims import Claims
from ._compute import Result, computed
from ._failures import row_of
from ._shelves import CachedRows, Missing

# Numbers of rows and bytes that are read together, which bound the memory of a stream.
_ROWS_PER_READ = 256
_BYTES_PER_READ = 2**25
# The maximum wait for rows that another process computes; then this process computes them too.
_PATIENCE_SECONDS = 600.0


def missing_rows(job: CachedRows) -> Missing:
    """Group the images that may lack rows by their missing taps; a group shares a pass.

    A file of unknown content may lack all rows; its reader finds out.
    """
    every = job.recipe.taps
    failed = {row_of(error) for error in job.failures}
    groups = job.missing([i for i, key in enumerate(job.keys) if key is not None])
    unknown = [i for i, key in enumerate(job.keys) if key is None and i not in failed]
    whole = sorted(groups.pop(every, []) + unknown)
    return {every: whole, **groups} if whole else groups


def read_or_computed(job: CachedRows, missing: Missing) -> Generator[Result]:
    """Compute and write the missing rows, then read the other ones."""
    given = {row_of(error) for error in job.failures}
    if job.failures:
        yield Result([], [], job.failures)
    left = dict(missing)
    while left:
        taps = next(iter(left))
        claims = Claims(job.only(taps))
        for result in _claimed(job.only(taps), left.pop(taps), claims):
            given |= {row_of(error) for error in result.failures}
            if taps == job.recipe.taps:
                given.update(result.rows)
                yield result
            elif result.failures:
                yield Result([], [], result.failures)
        for some, positions in claims.partly.items():
            left.setdefault(some, []).extend(positions)
    yield from read_all(job, [i for i in range(len(job.keys)) if i not in given])


def read_all(job: CachedRows, positions: Sequence[int]) -> Generator[Result]:
    """Read rows, in groups."""
    step = _rows_per_read(job)
    for start in range(0, len(positions), step):
        yield from read_rows(job, positions[start : start + step])


def _rows_per_read(job: CachedRows) -> int:
    """Return the number of rows of a read; vectors are small, maps have a known shape."""
    vectors = all(tap.pooling is not None for tap in job.recipe.taps)
    shapes = None if vectors else job.recipe.row_shapes(job.images)
    if shapes is None:
        return _ROWS_PER_READ
    per_row = sum(job.recipe.row_bytes(shapes))
    return min(_ROWS_PER_READ, max(1, _BYTES_PER_READ // per_row))


def read_rows(job: CachedRows, positions: Sequence[int]) -> Iterator[Result]:
    """Read rows; compute those that are lost or damaged."""
    found = np.ones(len(positions), dtype=bool)
    values = []
    for shelf in job.shelves:
        mask, rows = shelf.rows.get_many(job.keys_of(positions))
        found &= mask
        values.append((mask, rows))
    if found.any():
        yield Result(
            [position for position, hit in zip(positions, found, strict=True) if hit],
            [rows if found[mask].all() else rows[found[mask]] for mask, rows in values],
            [],
        )
    lost = [position for position, hit in zip(positions, found, strict=True) if not hit]
    if lost:
        yield from _written(job, lost, choose_all)


def _claimed(job: CachedRows, positions: Sequence[int], claims: Claims) -> Iterator[Result]:
    """Compute and write the rows that no other process computes; wait for the others."""
    done: set[int] = set()
    try:
        with closing(_written(job, positions, claims)) as results:
            for result in results:
                done.update(result.rows)
                claims.drop(result.failures)
                claims.note_files()
                yield result
    finally:
        claims.end(done)
    if claims.elsewhere:
        job.shelves[0].rows.wait(job.keys_of(claims.elsewhere), _PATIENCE_SECONDS)


def _written(job: CachedRows, positions: Sequence[int], choose: Choose) -> Generator[Result]:
    """Compute rows, and write those whose keys are still true."""
    read = choose.read if isinstance(choose, Claims) else set()
    with closing(computed(job.images, positions, job.recipe, job.settings, choose)) as results:
        for rows, taps, failures in results:
            yield Result(rows, _write(job, rows, taps, read) if rows else [], failures)


def _write(
    job: CachedRows, rows: Sequence[int], taps: Sequence[AnyArray], read: set[int]
) -> list[AnyArray]:
    """Write rows; return them with the rounding of the storage dtype.

    `read` has the images whose keys are those of the bytes that were decoded.
    """
    uncertain = [row for row in rows if row not in read]
    same = dict(zip(uncertain, job.unchanged(uncertain), strict=True))
    # A call of the user's function that has just computed them may have shown that it has a memory.
    certain = job.recipe.unnamed is None
    unchanged = [certain and same.get(row, True) for row in rows]
    keys = job.keys_of([row for row, same in zip(rows, unchanged, strict=True) if same])
    kept = []
    # The first shelf has the claims and is written last: a process that waits for it finds all.
    for shelf, values in reversed(list(zip(job.shelves, taps, strict=True))):
        shelf.rows.put_many(keys, values if all(unchanged) else values[unchanged])
        kept.append(shelf.rows.roundtrip(values))
    if not all(unchanged):
        job.shelves[0].rows.release(job.keys_of(rows))
    return kept[::-1]
