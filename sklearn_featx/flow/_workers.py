"""Workers: threads that compute batches, in order and a bounded number ahead.

A worker reads and computes whole batches (fastest on a CPU, with one worker for each core), or
computes batches that other threads have read.
"""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from .._parallel import in_threads
from .._typing import AnyArray, OnError
from ..images import Batch, Choose, ImageCollection, Prepare, choose_all, iterate_batches

Compute: TypeAlias = Callable[[AnyArray], list[AnyArray]]
Computed: TypeAlias = tuple[Batch, list[AnyArray]]

_NOTHING = Batch([], np.empty(0, dtype=np.uint8), [])


def read_and_compute(
    collection: ImageCollection,
    rows: Sequence[int],
    prepare: Prepare,
    compute: Compute,
    *,
    batch_size: int,
    n_workers: int,
    n_threads: int,
    start: Callable[[], Any] | None = None,
    on_error: OnError = "raise",
    choose: Choose = choose_all,
) -> Generator[Computed]:
    """Read and compute batches, each in one of several threads.

    Parameters
    ----------
    collection : ImageCollection
        The images.
    rows : sequence of int
        Positions of the images to compute, in this order.
    prepare : callable
        Applied to the results of `collection.load`.
    compute : callable
        Maps the data of a batch to a list of arrays.
    batch_size : int
        Number of rows per batch; the last batch may be smaller.
    n_workers : int
        Number of batches that are computed at the same time.
    n_threads : int
        Total number of threads that read images. If there are more of them than workers or
        remaining batches, a worker reads the images of its batch in several threads.
    start : callable, default=None
        A function that each worker calls first, in its own thread.
    on_error : {"raise", "nan"}, default="raise"
        As in `iterate_batches`.
    choose : callable, default=choose_all
        As in `iterate_batches`.

    Yields
    ------
    batch : Batch
        As yielded by `iterate_batches`.
    results : list of ndarray
        The result of `compute`; empty if all images of the batch are unreadable.

    Raises
    ------
    ImageError
        As in `iterate_batches`.
    """
    n_batches = math.ceil(len(rows) / batch_size)
    n_in_last_round = n_batches % n_workers

    def work(i: int) -> Computed:
        chunk = rows[i * batch_size : (i + 1) * batch_size]
        n_at_once = n_workers if i < n_batches - n_in_last_round else n_in_last_round
        n_readers = min(n_threads // n_at_once, len(chunk))
        batches = iterate_batches(
            collection,
            chunk,
            prepare,
            batch_size=len(chunk),
            n_threads=n_readers if n_readers > 1 else 0,
            on_error=on_error,
            choose=choose,
        )
        with closing(batches):
            return _computed(compute, next(batches, _NOTHING))

    yield from in_threads(work, range(n_batches), n_workers, in_flight=2 * n_workers, start=start)


def compute_batches(
    batches: Generator[Batch],
    compute: Compute,
    *,
    n_workers: int,
    start: Callable[[], Any] | None = None,
) -> Generator[Computed]:
    """Compute batches that other threads read, and close them. See `read_and_compute`."""
    work = partial(_computed, compute)
    with closing(batches):
        yield from in_threads(work, batches, n_workers, in_flight=n_workers + 1, start=start)


def without_computing(batches: Generator[Batch]) -> Generator[Computed]:
    """Return batches that other threads read without results, and close them."""
    with closing(batches):
        for batch in batches:
            yield batch, []


def _computed(compute: Compute, batch: Batch) -> Computed:
    return batch, compute(batch.data) if batch.rows else []
