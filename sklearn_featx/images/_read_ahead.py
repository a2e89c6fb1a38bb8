"""ReadAhead: threads that do slow work ahead of the need for its results.

The waiting results are bounded in number and in bytes. The caller itself does work that was never
started or whose result was dropped, so it never waits for ever.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

_Outcome = TypeVar("_Outcome")

# At 100 images per second, a file may take 10 seconds before the caller waits for it.
_MOST_WAITING = 1024
_MOST_BYTES = 256 * 2**20
# A thread that waits for a server does not delay the end of a call by more.
_PATIENCE_SECONDS = 1.0


class _Slot(Generic[_Outcome]):
    """The result of one item, on its way or done."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.outcome: _Outcome | None = None
        self.size = 0


class ReadAhead(Generic[_Outcome]):
    """Results of items, computed in threads in the order of the items.

    Parameters
    ----------
    items : sequence of object
        The items, in the order in which they will be taken; each counts by its identity.
    work : callable
        From the position of an item to its result, which is not None. It raises nothing.
    n_threads : int
        Number of threads.
    size : callable, default=None
        Number of bytes of a result.
    in_order : bool, default=False
        Whether `take` waits for work that is not started, so that all of it is done in order.
    """

    def __init__(
        self,
        items: Sequence[Any],
        work: Callable[[int], _Outcome],
        *,
        n_threads: int,
        size: Callable[[_Outcome], int] | None = None,
        in_order: bool = False,
    ) -> None:
        self._items = items
        self._work = work
        self._size = size
        self._in_order = in_order
        self._n_waiting = 0
        self._changed = threading.Condition()
        # By identity: positions that are not started, in order, and slots that are.
        self._positions = {id(item): i for i, item in reversed(list(enumerate(items)))}
        self._order = iter(range(len(items)))
        self._slots: dict[int, _Slot[_Outcome]] = {}
        self._n_bytes = 0
        self._ended = False
        self._threads = [
            threading.Thread(target=self._run, name="featx-remote", daemon=True)
            for _ in range(n_threads)
        ]

    def take(self, item: Any) -> _Outcome | None:
        """Return the result of an item, once; None if the caller has to do the work.

        Parameters
        ----------
        item : object
            One of the items, or any other object.
        """
        with self._changed:
            position = self._positions.get(id(item))
            if position is None:
                return None
            if self._in_order:
                self._wait_for_start(position)
            self._positions.pop(id(item), None)
            slot = self._slots.get(position)
        if slot is None:
            return None
        slot.done.wait()
        with self._changed:
            self._drop(position)
            self._drop_passed(position)
            self._changed.notify_all()
        return slot.outcome

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        end = time.monotonic() + _PATIENCE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while (started := self._start()) is not None:
            position, slot = started
            # Without an outcome the caller does the work, and sees the error.
            with contextlib.suppress(Exception):
                slot.outcome = self._work(position)
                slot.size = 0 if self._size is None else self._size(slot.outcome)
            with self._changed:
                self._n_bytes += slot.size
            slot.done.set()

    def _wait_for_start(self, position: int) -> None:
        # A waiting caller lifts the bounds, so that it does not wait for ever.
        self._n_waiting += 1
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._ended or position in self._slots)
        self._n_waiting -= 1

    def _start(self) -> tuple[int, _Slot[_Outcome]] | None:
        """Return the next item that was not taken, when there is room for its result."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._ended
                    or self._n_waiting > 0
                    or (len(self._slots) < _MOST_WAITING and self._n_bytes < _MOST_BYTES)
                )
            )
            if self._ended:
                return None
            for position in self._order:
                if self._positions.get(id(self._items[position])) == position:
                    slot: _Slot[_Outcome] = _Slot()
                    self._slots[position] = slot
                    self._changed.notify_all()
                    return position, slot
            return None

    def _drop(self, position: int) -> None:
        slot = self._slots.pop(position, None)
        if slot is not None:
            self._n_bytes -= slot.size

    def _drop_passed(self, position: int) -> None:
        """Drop results that are no longer needed: another process has these rows, for example."""
        if len(self._slots) < _MOST_WAITING // 2:
            return
        oldest = position - _MOST_WAITING // 2
        passed = [p for p, slot in self._slots.items() if p < oldest and slot.done.is_set()]
        for p in passed:
            self._positions.pop(id(self._items[p]), None)
            self._drop(p)
