"""Children that are forked from a process that has computed give its answers (gunicorn --preload).

Each test is a program of its own: a fork copies one thread of many, and what it leaves behind would
meet the other tests. Plain PyTorch hangs in such a child, so each program has a time limit.
"""

import os
import subprocess
import sys
import textwrap

import pytest

from sklearn_featx._parallel import ForkSafeLock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

SECONDS = 120

PREPARE = """
import os, signal, threading, warnings
warnings.simplefilter("ignore")
import numpy as np, torch
torch.set_num_threads(4)
from sklearn_featx import FineTuneClassifier, FineTuneRegressor, PretrainedFeatureExtractor

X = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
y = np.arange(12) % 3

def tuner(depth, **parameters):
    settings = dict(max_epochs=1, random_state=0, C=1.0, image_size=64, cache=False)
    return FineTuneClassifier(unfreeze_depth=depth, **settings | parameters)

def in_children(job, n=2):
    pids = []
    for _ in range(n):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            try:
                os._exit(0 if job() else 3)
            except BaseException as error:
                print(repr(error), flush=True)
                os._exit(4)
        pids.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert statuses == [0] * n, statuses
"""


def run(program):
    environment = os.environ | {"OMP_NUM_THREADS": "4"}
    finished = subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_fine_tuner_that_was_used_predicts_in_the_children():
    run(
        """
        # A process that has only imported the package changes nothing in its children.
        in_children(lambda: torch.get_num_threads() == 4, 1)
        shared = tuner(2).fit(X, y)
        wanted = shared.predict_proba(X)
        in_children(lambda: np.allclose(shared.predict_proba(X), wanted, atol=1e-5), 1)
        assert torch.get_num_threads() == 4
        """
    )


@pytest.mark.slow
def test_children_fit_extract_and_use_threads():
    run(
        """
        shared = tuner(1).fit(X, y)
        extractor = PretrainedFeatureExtractor(image_size=64, cache=False)
        wanted, rows = shared.predict_proba(X), extractor.transform(X)

        def job():
            found = []
            thread = threading.Thread(target=lambda: found.append(shared.predict_proba(X)))
            thread.start()
            again = tuner(1).fit(X, y).predict_proba(X)
            thread.join()
            return (
                np.allclose(again, wanted, atol=1e-4)
                and np.allclose(found[0], wanted, atol=1e-5)
                and np.allclose(extractor.transform(X), rows, atol=1e-5)
            )

        in_children(job)
        """
    )


@pytest.mark.slow
def test_a_fork_while_threads_predict_and_fit():
    run(
        """
        shared = tuner(1).fit(X, y)
        wanted = shared.predict_proba(X)
        go_on = True

        def busy():
            while go_on:
                shared.predict_proba(X)
                tuner(1).fit(X, y)

        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            in_children(lambda: np.allclose(shared.predict_proba(X), wanted, atol=1e-5), 1)
        go_on = False
        for thread in threads:
            thread.join()
        """
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_lock_that_another_thread_holds_is_open_in_the_child():
    import threading

    lock, held, done = ForkSafeLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    pid = os.fork()
    if pid == 0:
        import signal

        signal.alarm(20)
        with lock:
            os._exit(0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_thread_that_forks_still_holds_its_own_lock():
    lock = ForkSafeLock()
    with lock:
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_a_child_does_to_locks_and_threads(monkeypatch):
    """Here in this process: what runs in a child is not seen from outside."""
    import threading

    import torch

    from sklearn_featx import _parallel

    free, held = ForkSafeLock(), ForkSafeLock()
    monkeypatch.setattr(_parallel, "_locks", [free, held])
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    thread = threading.Thread(target=held.__enter__)
    thread.start()
    thread.join()
    for computed in (False, True):
        monkeypatch.setattr(_parallel._forks, "computed", computed)
        _parallel._forks.in_child()
    assert threads == [1]
    with held, free, free:
        pass
