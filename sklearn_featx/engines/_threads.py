"""The threads that compute on a CPU: how many there are, each one's share, and their memory.

Two threads that each run a batch of their own finish sooner than one batch that two threads share:
nothing waits for the slower half of each layer. So every worker reads its images and computes them
itself, and workers times threads of each is what the process may use.
"""

import functools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import joblib
import torch
from threadpoolctl import ThreadpoolController

# A little less than 32 MiB: the largest block that glibc may take from a heap, of which each thread
# but the first has its own, of 64 MiB.
_LARGEST_BLOCK = 2**25 - 2**16
# For each worker as long as it lives, what keeps its second heap.
_held = threading.local()


class Workers(NamedTuple):
    """How many workers compute at the same time, and with how many threads in all.

    Parameters
    ----------
    n_workers : int
        Number of workers.
    n_threads : int
        Number of threads that may be used, for reading images too.
    start : callable
        What each worker calls first, in its own thread.
    """

    n_workers: int
    n_threads: int
    start: Callable[[], Any]


def share_threads(n_threads: int, n_workers: int) -> Workers:
    """Divide threads of a CPU among workers, and have them keep memory that they free."""
    return Workers(n_workers, n_threads, partial(_start_worker, n_threads // n_workers))


def _start_worker(n_threads: int) -> None:
    limit_this_thread(n_threads)
    keep_freed_memory()


def count_threads(n_jobs: int | None) -> int:
    """Return the number of threads that `n_jobs` stands for, in the calling thread.

    PyTorch's own number follows ``OMP_NUM_THREADS`` (which joblib sets in its workers),
    `threadpoolctl` and `torch.set_num_threads`; joblib's follows the limits of containers.
    """
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 has no meaning. Use None, or a number of threads.")
    if n_jobs is not None and n_jobs > 0:
        return n_jobs
    available = max(1, min(torch.get_num_threads(), int(joblib.cpu_count())))
    return available if n_jobs is None else max(1, available + 1 + n_jobs)


def limit_this_thread(n_threads: int) -> None:
    """Let operations that this thread starts use so many threads; other threads keep their own.

    Parameters
    ----------
    n_threads : int
        Number of threads.
    """
    # PyTorch sets each thread up on its first operation, which would undo the limit.
    torch.get_num_threads()
    _libraries().limit(limits=n_threads, user_api="openmp")


def keep_freed_memory() -> None:
    """Have the memory of one batch used again for the next, in this thread.

    Memory that glibc gives back costs a page fault for every 4 KiB of the next batch, up to a
    quarter of a small network's time. It gives back what is larger than any block that was freed
    before, and a heap as soon as all of it is free: where a batch needs a little more than the
    first, the second comes and goes with each operation. The block that is held here is never
    written: it takes addresses, not memory.
    """
    torch.empty(_LARGEST_BLOCK, dtype=torch.uint8)
    # Two of them do not fit in one heap.
    _first, _held.block = (torch.empty(_LARGEST_BLOCK, dtype=torch.uint8) for _ in range(2))


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the libraries with threads of their own; finding them takes milliseconds."""
    return ThreadpoolController()
