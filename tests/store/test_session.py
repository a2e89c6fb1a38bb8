"""The session's store: one for a process and its workers, gone at exit, swept after a crash."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sklearn_featx.store import _session, session_store

ROOT = str(Path(__file__).parents[2])
# The store without the rest of the package, whose networks take seconds to import.
ALONE = f"""
import sys, types
package = sys.modules["sklearn_featx"] = types.ModuleType("sklearn_featx")
package.__path__ = [{ROOT!r} + "/sklearn_featx"]
"""
USE = """
import numpy as np
from sklearn_featx.store import session_store
store = session_store()
store.rows("r").put_many(["a"], np.ones((1, 2), np.float32))
print(store.path, flush=True)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Sessions of this test live in its own folder; its process ends them here."""
    monkeypatch.setattr(_session.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(_session.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("SKLEARN_FEATX_SESSION", raising=False)
    yield tmp_path
    for folder in tmp_path.glob("sklearn-featx-session-*"):
        _session._end(folder, os.getpid())


def run(code):
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stderr == ""
    return process.stdout.strip()


def sessions(folder):
    return sorted(folder.glob("sklearn-featx-session-*"))


def test_one_store_per_process(temporary):
    assert session_store() == session_store()
    assert sessions(temporary) == [Path(session_store().path)]


def test_it_is_gone_at_exit(temporary):
    assert str(temporary) in run(USE)
    assert sessions(temporary) == []


def test_children_find_it_and_do_not_end_it(temporary):
    store = session_store()
    assert run(USE) == store.path
    assert store.rows("r").missing(["a"]) == []


def test_a_worker_that_was_there_before_is_told_by_a_handle(temporary, monkeypatch):
    store = session_store()
    data = pickle.dumps(store)
    # The worker was started before the store was made: it knows no variable.
    monkeypatch.delenv("SKLEARN_FEATX_SESSION")
    code = (
        f"import pickle; from sklearn_featx.store import session_store; h=pickle.loads({data!r});"
    )
    assert run(code + "print(session_store().path)") == store.path
    assert sessions(temporary) == [Path(store.path)]


def test_what_a_killed_process_left_is_swept(temporary):
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE + USE + "input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    left = Path(process.stdout.readline().strip())
    session_store()
    assert left.exists(), "the sessions of living processes stay"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert left.exists()
    _session.sweep(temporary)
    assert sessions(temporary) == [Path(session_store().path)]


def test_only_our_own_folders_are_swept(temporary):
    user, dead = os.getuid(), f"4194304000.1.{_session.process_token().rpartition('.')[2]}"
    mine = f"sklearn-featx-session-{user}-{dead}-8388608-abc"
    others = [
        f"sklearn-featx-session-{user + 1}-{dead}-8388608-abc",
        f"sklearn-featx-session-{user}-{_session.process_token()}-8388608-abc",
        f"sklearn-featx-session-{user}-{dead}-8388608",
        "sklearn-featx-session-notes",
    ]
    for name in [mine, *others]:
        (temporary / name).mkdir()
    (temporary / f"{mine}2").symlink_to(temporary / others[0])
    (temporary / f"{mine}3").write_text("a file")
    _session.sweep(temporary)
    left = {path.name for path in temporary.iterdir()}
    assert left == {*others, f"{mine}2", f"{mine}3"}


def test_a_folder_of_another_user_is_not_trusted(temporary, monkeypatch):
    store = session_store()
    monkeypatch.setattr(_session, "_user", lambda: os.getuid() + 1)
    assert not _session._is_session(Path(store.path))


def test_the_variable_may_be_wrong(temporary, monkeypatch):
    foreign = temporary / "foreign"
    foreign.mkdir()
    monkeypatch.setenv("SKLEARN_FEATX_SESSION", str(foreign))
    assert session_store().path != str(foreign)
    assert list(foreign.iterdir()) == []


@pytest.mark.parametrize(
    ("free", "size"), [(10**12, 10**10), (4 * 10**9, 2 * 10**9), (0, 8 * 2**20)]
)
def test_it_is_bounded(temporary, monkeypatch, free, size):
    usage = os.statvfs(temporary)
    monkeypatch.setattr(
        _session.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free})
    )
    assert usage.f_bsize
    assert session_store().info().max_size == size


def test_a_session_that_ended_is_not_made_again(temporary):
    store = session_store()
    rows = store.rows("r")
    rows.put_many(["a"], np.ones((1, 2), np.float32))
    _session._end(Path(store.path), os.getpid())
    assert rows.missing(["a"]) == [0]
    with pytest.warns(match="does not work"):
        rows.put_many(["a"], np.ones((1, 2), np.float32))
    assert sessions(temporary) == []
    assert session_store().path != store.path


def test_a_forked_child_does_not_end_its_parents_session(temporary):
    store = session_store()
    _session._end(Path(store.path), os.getpid() + 1)
    assert sessions(temporary) == [Path(store.path)]


def test_a_handle_that_arrives_becomes_the_session_of_a_process_without_one(temporary, monkeypatch):
    store = session_store()
    address = store.__reduce__()[1]
    monkeypatch.delenv("SKLEARN_FEATX_SESSION")
    assert _session._arrive(*address) == store
    assert os.environ["SKLEARN_FEATX_SESSION"] == store.path
    assert session_store() == store


def test_a_handle_that_arrives_leaves_a_process_its_own_session(temporary, monkeypatch):
    other = session_store()
    monkeypatch.delenv("SKLEARN_FEATX_SESSION")
    own = session_store()
    assert own != other
    assert _session._arrive(*other.__reduce__()[1]) == other
    assert session_store() == own


def test_a_handle_to_what_is_no_session_becomes_none(temporary, monkeypatch):
    (temporary / "foreign").mkdir()
    _session._arrive(str(temporary / "foreign"), 10**9, "float32")
    assert "SKLEARN_FEATX_SESSION" not in os.environ


def test_users_are_told_by_their_number_where_they_have_one(monkeypatch):
    class System:
        getuid = staticmethod(lambda: 1234)

    monkeypatch.setattr(_session, "os", System)
    assert _session._user() == 1234
    del System.getuid
    assert _session._user() == 0


def test_the_process_that_makes_it_ends_it(temporary, monkeypatch):
    registered = []
    monkeypatch.setattr(_session.atexit, "register", lambda *call: registered.append(call))
    store = session_store()
    assert registered == [(_session._end, Path(store.path), os.getpid())]


def test_what_cannot_be_deleted_is_left_without_an_error(temporary, monkeypatch):
    folder = Path(session_store().path)

    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(Path, "rename", refuse)
    _session._delete(folder)
    assert folder.exists()
    monkeypatch.undo()
    monkeypatch.setattr(_session.os, "rmdir", refuse)
    _session._delete(folder)
    assert not folder.exists()
    monkeypatch.undo()


def test_the_lock_is_new_after_a_fork():
    old = _session._LOCK
    _session._renew_lock()
    assert _session._LOCK is not old
    with _session._LOCK:
        pass


def test_a_parent_that_cannot_be_listed_is_no_error(temporary):
    _session.sweep(temporary / "nowhere")
