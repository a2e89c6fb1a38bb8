"""Threads: as many as may be used, and each worker keeps to its share."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import pytest
import torch
from threadpoolctl import threadpool_limits

from sklearn_featx.engines import _threads, count_threads
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
    with pytest.raises(ValueError, match="n_jobs == 0"):
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
    assert _threads._libraries() is _threads._libraries()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do not measure")
def test_memory_that_a_worker_freed_is_used_again():
    code = """
import resource, torch
from concurrent.futures import ThreadPoolExecutor
from sklearn_featx.engines._threads import share_threads

def compute():
    maps = [torch.ones(2**19) for _ in range(6)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with ThreadPoolExecutor(1, initializer=share_threads(2, 1).start) as pool:
    faults = [pool.submit(compute).result() for _ in range(22)]
print((faults[-1] - faults[1]) / 20)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Six maps of 2 MiB have 3,072 pages of 4 KiB; without the call some 2,500 are new every time.
    assert float(run.stdout) < 600


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no such heaps")
def test_memory_of_a_second_heap_is_used_again():
    code = """
import resource, torch
from concurrent.futures import ThreadPoolExecutor
from sklearn_featx.engines._threads import share_threads

def compute(layers):
    maps = [torch.ones(2**22) for _ in range(3)]
    for _ in range(layers):
        torch.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with ThreadPoolExecutor(1, initializer=share_threads(2, 1).start) as pool:
    faults = [pool.submit(compute, layers).result() for layers in (20, 0, 20)]
print(faults[2] - faults[1])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Three maps of 16 MiB fill a heap; without its block, the fourth has 4,096 new pages each time.
    assert float(run.stdout) < 10_000
