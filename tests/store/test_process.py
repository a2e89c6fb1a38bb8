"""A process is told from its successor under the same number."""

import os
import subprocess
import sys

import pytest

from sklearn_featx.store import _process


def test_this_process_is_alive():
    assert _process.is_alive(_process.process_token())


def test_a_number_that_was_used_again_is_another_process():
    pid, start, namespace = _process.process_token().split(".")
    assert not _process.is_alive(f"{pid}.{int(start) + 1}.{namespace}")


def test_a_finished_process_is_dead_even_before_it_is_reaped():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    token = _process._token(child.pid)
    assert _process.is_alive(token)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    assert not _process.is_alive(token)
    child.communicate()
    assert not _process.is_alive(token)


def test_another_namespace_cannot_be_judged():
    pid, start, namespace = _process.process_token().split(".")
    assert _process.is_alive(f"{pid}.{int(start) + 1}.{int(namespace) + 1}")


@pytest.mark.parametrize("token", ["", "1", "1.2", "a.b.c", "1.2.3.4"])
def test_what_is_no_token_is_dead(token):
    assert not _process.is_alive(token)


def test_without_proc_the_system_is_asked(monkeypatch, tmp_path):
    namespace = _process._namespace()
    monkeypatch.setattr(_process, "_PROC", tmp_path)
    assert _process.is_alive(f"{os.getpid()}.0.{namespace}")
    assert not _process.is_alive(f"4194304000.0.{namespace}")
