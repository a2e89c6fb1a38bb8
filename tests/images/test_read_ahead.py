"""ReadAhead: results in time, bounded, and nobody waits for ever."""

import threading
import time

import pytest

from sklearn_featx.images import _read_ahead
from sklearn_featx.images._read_ahead import ReadAhead


class Thing:
    """An item; items count by identity."""


@pytest.fixture
def things():
    return [Thing() for _ in range(20)]


def test_each_result_is_taken_once(things):
    calls = []
    with ReadAhead(things, lambda i: calls.append(i) or f"r{i}", n_threads=3) as ahead:
        taken = [ahead.take(thing) for thing in things]
        assert [ahead.take(thing) for thing in things] == [None] * 20
        assert ahead.take(Thing()) is None
    # Where no thread had started, the caller does the work.
    assert all(result in (None, f"r{i}") for i, result in enumerate(taken))
    started = [i for i, result in enumerate(taken) if result is not None]
    assert sorted(calls) == started


def test_slow_work_does_not_hold_up_the_rest(things):
    release, done = threading.Event(), threading.Barrier(2)

    def work(i):
        if i == 0:
            release.wait(5)
        if i == len(things) - 1:
            done.wait(5)
        return i + 1

    with ReadAhead(things, work, n_threads=2) as ahead:
        done.wait(5)
        assert [ahead.take(thing) for thing in things[1:]] == list(range(2, 21))
        release.set()
        assert ahead.take(things[0]) == 1


@pytest.mark.parametrize("bound", ["_MOST_WAITING", "_MOST_BYTES"])
def test_results_that_wait_are_bounded(things, monkeypatch, bound):
    monkeypatch.setattr(_read_ahead, bound, 4)
    calls = []
    with ReadAhead(things, lambda i: calls.append(i) or i, n_threads=1, size=lambda _: 1) as ahead:
        deadline = time.monotonic() + 5
        while len(calls) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert calls == [0, 1, 2, 3]
        assert ahead.take(things[1]) == 1
        # Nobody waits for work that has no room: the caller does it.
        assert ahead.take(things[19]) is None


def test_results_that_nobody_takes_make_room(things, monkeypatch):
    monkeypatch.setattr(_read_ahead, "_MOST_WAITING", 4)
    with ReadAhead(things, lambda i: i + 1, n_threads=1) as ahead:
        deadline = time.monotonic() + 5
        # Only every third is taken.
        for i in range(0, 20, 3):
            result = ahead.take(things[i])
            assert result in (None, i + 1)
            assert time.monotonic() < deadline
        assert len(ahead._slots) <= 4


@pytest.mark.parametrize("room", [1, 1000])
def test_work_in_order_is_waited_for(things, monkeypatch, room):
    monkeypatch.setattr(_read_ahead, "_MOST_WAITING", room)
    calls = []
    with ReadAhead(things, lambda i: calls.append(i) or i + 1, n_threads=1, in_order=True) as ahead:
        # Even where the room is full of results that nobody has taken.
        assert ahead.take(things[10]) == 11
        assert ahead.take(things[19]) == 20
        assert ahead.take(Thing()) is None
    assert calls == list(range(20))


def test_an_error_of_the_work_is_left_to_the_caller(things):
    def fail(i):
        raise ValueError(i)

    with ReadAhead(things, fail, n_threads=2) as ahead:
        assert [ahead.take(thing) for thing in things] == [None] * 20


def test_the_end_wakes_who_waits(things):
    ahead = ReadAhead(things, lambda i: i + 1, n_threads=1, in_order=True)
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(ahead.take(things[0])))
    waiting.start()
    ahead._threads = []
    ahead.__exit__(None, None, None)
    waiting.join(5)
    assert taken == [None]


def test_the_end_does_not_wait_for_slow_work(things, monkeypatch):
    monkeypatch.setattr(_read_ahead, "_PATIENCE_SECONDS", 0.05)
    release = threading.Event()
    with ReadAhead(things, lambda i: release.wait(10), n_threads=2):
        pass
    release.set()
    deadline = time.monotonic() + 5
    while any(t.name == "featx-remote" for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
