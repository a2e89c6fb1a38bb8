"""Threads: as many as may be used, and each worker keeps to its share."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import pytest
import torch
from threadpoolctl import threadpool_limits

from sklearn_featx._parallel import thread_pools
from sklearn_featx.engines import count_threads
from sklearn_featx.engines._threads import limit_this_thread


@pytest.fixture
def four(monkeypatch):
    """Four threads may be used."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)


@pytest.mark.parametrize(
    ("n_jobs", "n_threads"), [(None, 4), (-1, 4), (-2, 3), (-9, 1), (1, 1), (6, 6)]
)
def test_number_of_threads(n_jobs, n_threads, four):
    assert count_threads(n_jobs) == n_threads


def test_zero_threads_are_an_error():
    with pytest.raises(ValueError, match="n_jobs=0"):
        count_threads(0)


def test_limits_of_a_container_count(monkeypatch, four):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    assert count_threads(None) == 2


def test_threadpoolctl_counts():
    with threadpool_limits(1):
        assert count_threads(None) == 1


def test_a_limit_is_of_one_thread_alone():
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1, initializer=limit_this_thread, initargs=(3,)) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() != 3
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_workers_of_joblib_get_their_share():
    code = (
        "import joblib, os;"
        "from sklearn_featx.engines import count_threads;"
        "f = joblib.delayed(lambda: count_threads(None));"
        "print(joblib.Parallel(n_jobs=2)([f(), f()]))"
    )
    environment = os.environ | {"LOKY_MAX_CPU_COUNT": "4"}
    environment.pop("OMP_NUM_THREADS", None)
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert max(eval(run.stdout)) <= 2


def test_the_libraries_are_looked_up_once():
    assert thread_pools() is thread_pools()
