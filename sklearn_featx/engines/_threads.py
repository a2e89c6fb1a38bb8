"""The threads that compute on a CPU: how many there are, and each one's share.

Two threads that each run a batch of their own finish sooner than one batch that two threads share:
nothing waits for the slower half of each layer. So every worker reads its images and computes them
itself, and workers times threads of each is what the process may use.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import joblib
import torch
from threadpoolctl import ThreadpoolController


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
    """Divide threads of a CPU among workers."""
    return Workers(n_workers, n_threads, partial(limit_this_thread, n_threads // n_workers))


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
    """Let operations that this thread starts use so many threads; other threads keep their own."""
    # PyTorch sets each thread up on its first operation, which would undo the limit.
    torch.get_num_threads()
    _libraries().limit(limits=n_threads, user_api="openmp")


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the libraries with threads of their own; finding them takes milliseconds."""
    return ThreadpoolController()
