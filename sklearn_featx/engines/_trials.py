"""The fastest of some ways to one result, found out on batches that are computed anyway."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

# Runs of the first way before any is timed: a process is slow at first, and a job that ends before
# is not worth a trial.
_SETTLING_RUNS = 4
# Of each way, after one that does not count.
_TIMED_RUNS = 5
# How much faster than the first way another must be, so that noise seldom decides.
_GAIN = 1.1


class FastestWay:
    """Runs batches of one size; remembers which way took least time.

    The result of every run is used, so a trial takes no more than what slower ways lose.

    Parameters
    ----------
    ways : sequence of callable
        Each takes a batch and returns the same. The first one runs until another is known to be
        faster.
    """

    def __init__(self, ways: Sequence[Callable[[torch.Tensor], Any]]) -> None:
        self._ways = ways
        self._lock = threading.Lock()
        self._trials = _trials(len(ways))
        self._seconds: list[list[float]] = [[] for _ in ways]
        self._chosen = 0

    def __call__(self, x: torch.Tensor) -> Any:
        """Run a batch; several threads may at a time."""
        with self._lock:
            way, is_timed = next(self._trials, (self._chosen, False))
        start = time.perf_counter()
        result = self._ways[way](x)
        if is_timed:
            self._note(way, time.perf_counter() - start)
        return result

    def _note(self, way: int, seconds: float) -> None:
        with self._lock:
            self._seconds[way].append(seconds)
            if all(len(times) == _TIMED_RUNS for times in self._seconds):
                shortest = [min(times) for times in self._seconds]
                if shortest[0] > _GAIN * min(shortest):
                    self._chosen = shortest.index(min(shortest))


def _trials(n_ways: int) -> Iterator[tuple[int, bool]]:
    """Yield which way is next, and whether that counts; in turn, as a machine's speed drifts."""
    if n_ways > 1:
        yield from [(0, False)] * _SETTLING_RUNS
        for i in range(1 + _TIMED_RUNS):
            yield from ((way, i > 0) for way in range(n_ways))
