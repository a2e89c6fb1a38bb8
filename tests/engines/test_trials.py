"""Which way is the fastest: measured on what is computed anyway, decided once, kept."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sklearn_featx.engines import _trials
from sklearn_featx.engines._trials import FastestWay

SETTLING = _trials._SETTLING_RUNS
IN_A_ROW = _trials._UNTIMED_RUNS + _trials._TIMED_RUNS
TIMED = _trials._ROUNDS * _trials._TIMED_RUNS


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


def after_trial(fastest, ran, n_trial_runs):
    """Run all of a trial of two ways, and say which ways run then."""
    run(fastest, n_trial_runs(2))
    ran.clear()
    run(fastest, 9)
    return set(ran)


def test_the_fastest_is_kept(clock, n_trial_runs):
    candidates, ran = ways(clock, 1.0, 2.0, 0.5)
    fastest = FastestWay(*candidates)
    run(fastest, n_trial_runs(3))
    one_round = [0] * IN_A_ROW + [1] * IN_A_ROW + [2] * IN_A_ROW
    assert ran == [0] * SETTLING + [1, 0, 2, 0] + one_round * _trials._ROUNDS
    ran.clear()
    run(fastest, 50)
    assert ran == [2] * 50


def test_a_small_gain_may_be_noise(clock, n_trial_runs):
    candidates, ran = ways(clock, 1.0, 0.98)
    assert after_trial(FastestWay(*candidates), ran, n_trial_runs) == {0}


def test_first_runs_in_a_row_do_not_count(clock, n_trial_runs):
    candidates, ran = ways(clock, 1.0, 0.9)

    def finding_memory(x):
        # What ran before it was the other way, or this one for the first time in a row.
        clock.now += 10.0 * (set(ran[-2:]) != {1})
        return candidates[1](x)

    assert after_trial(FastestWay(candidates[0], finding_memory), ran, n_trial_runs) == {1}


def test_one_slow_run_does_not_decide(clock, n_trial_runs):
    candidates, ran = ways(clock, 1.0, 0.5)

    def disturbed(x):
        clock.now += 10.0 * (ran.count(1) == 2)
        return candidates[1](x)

    assert after_trial(FastestWay(candidates[0], disturbed), ran, n_trial_runs) == {1}


@pytest.mark.parametrize("fast", [0, 2], ids=["the first", "another"])
def test_one_fast_run_does_not_decide(clock, n_trial_runs, fast):
    candidates, ran = ways(clock, 1.0, 1.0)

    def fast_once(x):
        clock.now -= 0.9 * (ran.count(1) == fast)
        return candidates[1](x)

    assert after_trial(FastestWay(candidates[0], fast_once), ran, n_trial_runs) == {0}


def test_most_runs_of_the_usual_way_disturbed_do_not_decide(clock, n_trial_runs):
    candidates, ran = ways(clock, 1.0, 1.0)

    def disturbed(x):
        clock.now += 10.0 * (ran.count(0) > SETTLING + 1 + _trials._UNTIMED_RUNS)
        return candidates[0](x)

    assert after_trial(FastestWay(disturbed, candidates[1]), ran, n_trial_runs) == {0}


@pytest.mark.parametrize("n_results", [1, 2])
def test_a_way_that_changes_the_last_bit_is_left_out(clock, n_results, n_trial_runs):
    def results(x):
        return x if n_results == 1 else (x, x * 2)

    def usual(x):
        clock.now += 1.0
        return results(x)

    def inexact(x):
        calls.append(x)
        return results(torch.nextafter(x, x + 1))

    calls = []
    fastest = FastestWay(usual, inexact)
    for _ in range(2 * n_trial_runs(2)):
        found = fastest(torch.ones(3))
        assert all(map(torch.equal, found, results(torch.ones(3))))
    assert len(calls) == 1


def test_a_network_may_write_into_its_input(clock, n_trial_runs):
    def doubling(x):
        clock.now += 1.0
        return x.mul_(2)

    fastest = FastestWay(doubling, doubling)
    for _ in range(n_trial_runs(2)):
        assert fastest(torch.ones(1)) == 2


def test_one_way_is_not_timed(clock):
    candidates, ran = ways(clock, 1.0)
    fastest = FastestWay(*candidates)
    run(fastest, 9)
    assert ran == [0] * 9
    assert list(fastest._seconds.values()) == [[]]


def test_a_short_job_has_no_trial(clock):
    candidates, ran = ways(clock, 1.0, 0.1)
    run(FastestWay(*candidates), SETTLING)
    assert set(ran) == {0}


def test_a_way_that_fails_is_never_chosen(clock):
    candidates, ran = ways(clock, 1.0)

    def failing(x):
        raise torch.OutOfMemoryError("out of memory")

    fastest = FastestWay(*candidates, failing)
    run(fastest, SETTLING)
    with pytest.raises(torch.OutOfMemoryError):
        fastest(torch.tensor(0))
    run(fastest, 20)
    assert set(ran) == {0}


def test_threads_try_each_way_as_often(clock, n_trial_runs):
    candidates, ran = ways(clock, 1.0, 1.0, 1.0)
    fastest = FastestWay(*candidates)
    n_runs = n_trial_runs(3)
    # The comparisons first: a way whose own has not ended yet is not timed.
    run(fastest, SETTLING + 2)
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda i: fastest(torch.tensor(i)).item(), range(n_runs - SETTLING - 2))
        )
    assert results == list(range(1, n_runs - SETTLING - 1))
    assert [len(times) for times in fastest._seconds.values()] == [TIMED] * 3
    assert ran.count(1) == ran.count(2) == 1 + IN_A_ROW * _trials._ROUNDS
