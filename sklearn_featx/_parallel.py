"""Threads and forks: ordered results from threads, and locks that are open in a forked child.

A fork copies only the thread that calls it. A lock that another thread holds stays locked in the
child, and the threads of OpenMP do not exist there: PyTorch would wait for them forever.
"""

import functools
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController


class ForkSafeLock:
    """A reentrant lock that is open in a forked child.

    It guards values that are stored by one assignment: a forked child creates a missing value
    again.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Open the lock, unless the child's only thread holds it."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()

# Held while PyTorch's global generators, which all threads share, draw from a seed.
generator_lock = ForkSafeLock()


class _Forks:
    """The actions in forked children of this process."""

    def __init__(self) -> None:
        self.computed = False

    def in_child(self) -> None:
        for lock in list(_locks):
            lock.renew()
        if self.computed:
            # With one thread, OpenMP waits for no other. PyTorch's own worker processes do the
            # same.
            sys.modules["torch"].set_num_threads(1)


_forks = _Forks()


def answer_in_children() -> None:
    """Make processes that are forked from now on compute in one thread.

    The engines call this before they compute, so the import of this package changes nothing.
    """
    _forks.computed = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forks.in_child)


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    n_threads: int,
    in_flight: int,
    start: Callable[[], Any] | None = None,
) -> Generator[_Result]:
    """Call `function` on every item in threads; yield the results in order, raise its exceptions.

    At most `in_flight` items are taken ahead of the results. Each thread first calls `start`.
    """
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="featx-worker", initializer=start)
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= in_flight:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@functools.cache
def thread_pools() -> ThreadpoolController:
    """Return the libraries that have threads; finding them takes milliseconds."""
    return ThreadpoolController()
