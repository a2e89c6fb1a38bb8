"""Which way is the fastest: measured on what is computed anyway, decided once, kept."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sklearn_featx.engines import _trials
from sklearn_featx.engines._trials import FastestWay

# Of one way, and of all ways together, before one of two is chosen.
SETTLING = _trials._SETTLING_RUNS
OF_TWO = SETTLING + 2 * (1 + _trials._TIMED_RUNS)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the ways advance."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(_trials, "time", clock)
    return clock


def ways(clock, *seconds):
    """Ways that take so long, and a list of which ran."""
    ran = []

    def way(i, x):
        ran.append(i)
        clock.now += seconds[i]
        return x + 1

    return [lambda x, i=i: way(i, x) for i in range(len(seconds))], ran


def run(fastest, n):
    for i in range(n):
        assert fastest(torch.tensor(i)) == i + 1


def test_the_fastest_is_kept(clock):
    candidates, ran = ways(clock, 1.0, 2.0, 0.5)
    fastest = FastestWay(candidates)
    run(fastest, 100)
    n_trials = 3 * (1 + _trials._TIMED_RUNS)
    assert ran[:SETTLING] == [0] * SETTLING
    assert ran[SETTLING : SETTLING + n_trials] == [0, 1, 2] * (n_trials // 3)
    assert set(ran[SETTLING + n_trials :]) == {2}


def test_a_small_gain_may_be_noise(clock):
    candidates, ran = ways(clock, 1.0, 0.95)
    run(FastestWay(candidates), 100)
    assert set(ran[OF_TWO:]) == {0}


def test_one_slow_run_does_not_decide(clock):
    candidates, ran = ways(clock, 1.0, 0.5)

    def disturbed(x):
        clock.now += 10.0 * (len(ran) == SETTLING + 3)
        return candidates[1](x)

    run(FastestWay([candidates[0], disturbed]), 100)
    assert set(ran[OF_TWO:]) == {1}


def test_the_first_run_of_a_way_does_not_count(clock):
    candidates, ran = ways(clock, 1.0, 1.0)

    def fast_at_first(x):
        clock.now -= 0.9 * (ran.count(1) == 0)
        return candidates[1](x)

    run(FastestWay([candidates[0], fast_at_first]), 100)
    assert set(ran[OF_TWO:]) == {0}


def test_one_way_is_not_timed(clock):
    candidates, ran = ways(clock, 1.0)
    fastest = FastestWay(candidates)
    run(fastest, 9)
    assert ran == [0] * 9
    assert fastest._seconds == [[]]


def test_a_short_job_has_no_trial(clock):
    candidates, ran = ways(clock, 1.0, 0.1)
    run(FastestWay(candidates), SETTLING)
    assert set(ran) == {0}


def test_a_way_that_fails_is_never_chosen(clock):
    candidates, ran = ways(clock, 1.0)

    def failing(x):
        raise torch.OutOfMemoryError("out of memory")

    fastest = FastestWay([*candidates, failing])
    for _ in range(OF_TWO):
        try:
            fastest(torch.tensor(0))
        except torch.OutOfMemoryError:
            pass
    run(fastest, 20)
    assert set(ran) == {0}


def test_threads_try_each_way_as_often(clock):
    candidates, ran = ways(clock, 1.0, 1.0, 1.0)
    fastest = FastestWay(candidates)
    n_runs = SETTLING + 3 * (1 + _trials._TIMED_RUNS)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: fastest(torch.tensor(i)).item(), range(n_runs)))
    assert results == list(range(1, n_runs + 1))
    assert [len(times) for times in fastest._seconds] == [_trials._TIMED_RUNS] * 3
    assert ran.count(1) == ran.count(2) == 1 + _trials._TIMED_RUNS
