"""A process is told from its successor under the same number."""

import errno
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


def test_a_command_may_be_named_like_the_fields_behind_it(monkeypatch, tmp_path):
    (tmp_path / "7").mkdir()
    fields = ["S", *(str(n) for n in range(1, 30))]
    (tmp_path / "7" / "stat").write_bytes(b"7 (a) Z (\xff b) " + " ".join(fields).encode())
    monkeypatch.setattr(_process, "_PROC", tmp_path)
    assert _process._start_time(7) == 19
    assert _process._start_time(8) is None


def test_a_stopped_process_is_alive_and_a_dead_one_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(_process, "_PROC", tmp_path)
    (tmp_path / "7").mkdir()
    for state, alive in [("T", True), ("X", False), ("Z", False), ("S", True)]:
        (tmp_path / "7" / "stat").write_text(f"7 (name) {state} " + "5 " * 30)
        assert (_process._start_time(7) == 5) is alive


def test_where_processes_cannot_be_asked_nobody_is_dead(monkeypatch):
    class Windows:
        name = "nt"

    monkeypatch.setattr(_process, "os", Windows)
    assert _process._answers(1) is True


@pytest.mark.parametrize(
    ("error", "lives"), [(None, True), (errno.EPERM, True), (errno.ESRCH, False)]
)
def test_asking_sends_no_signal_and_a_refusal_is_an_answer(monkeypatch, error, lives):
    asked = []

    def kill(pid, signal):
        asked.append((pid, signal))
        if error is not None:
            raise OSError(error, "refused")

    monkeypatch.setattr(_process.os, "kill", kill)
    assert _process._answers(7) is lives
    assert asked == [(7, 0)]
