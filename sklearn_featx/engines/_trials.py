"""The fastest of some ways to one result, found out on batches that are computed anyway."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch

Way: TypeAlias = Callable[[torch.Tensor], Any]

# Runs of the usual way before any other: a process is slow at first, and a job that ends before is
# not worth a trial.
_SETTLING_RUNS = 4
# In each round every way has some runs one after the other: first those that do not count, in which
# workers come to run the same way beside each other and its memory is found, then those that do.
_ROUNDS = 2
_UNTIMED_RUNS = 2
_TIMED_RUNS = 3
# How much faster than the usual way another must be. Little: where noise decides, little is lost.
_GAIN = 1.03


class FastestWay:
    """Runs batches of one size; remembers which way took least time.

    What it chooses changes no result: a way that does not return the same to the last bit is left
    out. Nearly every run's result is used, so a trial takes what slower ways lose.

    Parameters
    ----------
    usual : callable
        Takes a batch. It runs until another way is known to be faster.
    *others : callable
        Other ways to the same.
    """

    def __init__(self, usual: Way, *others: Way) -> None:
        self._usual = usual
        self._lock = threading.Lock()
        self._turns = self._trial(others) if others else iter(())
        self._chosen: Way | None = None
        # Of ways that return the same.
        self._seconds: dict[Way, list[float]] = {usual: []}

    def __call__(self, x: torch.Tensor) -> Any:
        """Run a batch; several threads may at a time."""
        with self._lock:
            turn = self._chosen or next(self._turns, None)
            if turn is None:
                turn = self._chosen = self._fastest()
        return turn(x)

    def _trial(self, others: Sequence[Way]) -> Iterator[Way]:
        """Yield what each of the first runs does; in turn, as a machine's speed drifts."""
        yield from [self._usual] * _SETTLING_RUNS
        yield from (partial(self._compare, way) for way in others)
        for way in (self._usual, *others) * _ROUNDS:
            yield from [partial(self._run, way)] * _UNTIMED_RUNS
            yield from [partial(self._time, way)] * _TIMED_RUNS

    def _compare(self, way: Way, x: torch.Tensor) -> Any:
        """Run a way beside the usual one, and see whether it may be used."""
        # A copy, since a network may write into what it gets.
        result = way(x.clone())
        expected = self._usual(x)
        if _are_equal(result, expected):
            with self._lock:
                self._seconds[way] = []
        return expected

    def _run(self, way: Way, x: torch.Tensor) -> Any:
        return (way if way in self._seconds else self._usual)(x)

    def _time(self, way: Way, x: torch.Tensor) -> Any:
        start = time.perf_counter()
        result = self._run(way, x)
        if way in self._seconds:
            self._seconds[way].append(time.perf_counter() - start)
        return result

    def _fastest(self) -> Way:
        usual = self._seconds[self._usual]
        faster = {way: times for way, times in self._seconds.items() if _is_faster(times, usual)}
        return min(faster, key=lambda way: min(faster[way]), default=self._usual)


def _is_faster(times: list[float], usual: list[float]) -> bool:
    """Whether both the shortest time and the median say so: either alone is fooled by noise."""
    return bool(times and usual) and all(
        measure(usual) > _GAIN * measure(times) for measure in (min, statistics.median)
    )


def _are_equal(result: Any, expected: Any) -> bool:
    """Whether what a network returned twice, a tensor or some, is the same to the last bit."""
    if isinstance(expected, torch.Tensor):
        return torch.equal(result, expected)
    if isinstance(expected, dict):
        result, expected = result.values(), expected.values()
    return all(map(_are_equal, result, expected))
