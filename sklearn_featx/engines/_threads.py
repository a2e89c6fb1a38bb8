"""Threads of a CPU: their number, and their division among workers.

Two threads that each compute a batch of their own are faster than two threads that share one batch,
since none waits for the slower half of each layer. Therefore each worker reads its images and
computes them itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import joblib
import torch

from .._parallel import thread_pools


class Workers(NamedTuple):
    """The number of simultaneous workers and of threads.

    Parameters
    ----------
    n_workers : int
        Number of workers.
    n_threads : int
        Total number of threads, including those that read images.
    start : callable
        A function that each worker calls first, in its own thread.
    """

    n_workers: int
    n_threads: int
    start: Callable[[], Any]


def share_threads(n_threads: int, n_workers: int) -> Workers:
    """Divide the threads of a CPU among workers."""
    return Workers(n_workers, n_threads, partial(limit_this_thread, n_threads // n_workers))


def count_threads(n_jobs: int | None) -> int:
    """Return the number of threads for a value of `n_jobs`, in the calling thread.

    PyTorch's own number follows ``OMP_NUM_THREADS`` (which joblib sets in its workers),
    `threadpoolctl` and `torch.set_num_threads`; joblib's follows the limits of containers.
    """
    if n_jobs == 0:
        raise ValueError("n_jobs=0: expected None or a number of threads, negative as in joblib.")
    if n_jobs is not None and n_jobs > 0:
        return n_jobs
    available = max(1, min(torch.get_num_threads(), int(joblib.cpu_count())))
    return available if n_jobs is None else max(1, available + 1 + n_jobs)


def limit_this_thread(n_threads: int) -> None:
    """Limit the number of threads of operations that this thread starts."""
    # PyTorch initializes each thread at its first operation, which would undo the limit.
    torch.get_num_threads()
    thread_pools().limit(limits=n_threads, user_api="openmp")
