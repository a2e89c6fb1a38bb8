"""Failures end in misses and one warning; connections belong to threads and survive forks."""

import os
import shutil
import sqlite3
import threading
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sklearn_featx.exceptions import StoreError, StoreWarning
from sklearn_featx.store import FeatureStore, _database

KEYS = ["a", "b"]
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        yield store


def use_everything(store):
    """Every public call; the results of a store that is empty."""
    rows = store.rows("recipe")
    assert rows.missing(KEYS) == [0, 1]
    assert rows.claim(KEYS) == [0, 1]
    rows.put_many(KEYS, VALUES)
    rows.release(KEYS)
    assert rows.wait(KEYS, timeout=60) == [0, 1]
    found, values = rows.get_many(KEYS)
    assert not found.any()
    assert values.shape == (0,)
    store.remember_files([("/a", 1, 1, 1, 1)], ["digest"])
    assert store.file_digests([("/a", 1, 1, 1, 1)])[0] is None


def broken_paths(tmp_path):
    (tmp_path / "file").write_text("mine")
    return [tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere/store")]


@pytest.mark.parametrize("which", range(3))
def test_a_store_that_cannot_be_opened_is_empty_and_warns_once(tmp_path, which):
    path = broken_paths(tmp_path)[which]
    with pytest.warns(StoreWarning, match="does not work") as caught:
        use_everything(FeatureStore(path))
    use_everything(FeatureStore(path, "20GB"))
    assert len(caught) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.StoreWarning")
def test_maintenance_of_a_store_that_cannot_be_opened(tmp_path):
    with FeatureStore(broken_paths(tmp_path)[2]) as store:
        assert store.info().n_rows == store.verify().n_rows == store.prune() == 0
        store.clear()


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_in_place_of_a_store_is_an_error_where_one_asks_for_the_store(tmp_path, which):
    store = FeatureStore(broken_paths(tmp_path)[which])
    for use in (store.info, store.verify, store.prune, store.clear):
        with pytest.raises(StoreError, match="is a file, and a store is a folder"):
            use()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
        (sqlite3.SQLITE_FULL, "database or disk is full"),
        (sqlite3.SQLITE_IOERR, "disk I/O error"),
        (sqlite3.SQLITE_BUSY, "database is locked"),
        (sqlite3.SQLITE_NOMEM, "out of memory"),
    ],
)
def test_any_error_of_writing_ends_in_misses_and_keeps_the_file(store, monkeypatch, code, message):
    store.rows("recipe").put_many(KEYS, VALUES)

    def fail(*arguments):
        error = sqlite3.OperationalError(message)
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr("sklearn_featx.store._rows.make_room", fail)
    rows = store.rows("another recipe")
    with pytest.warns(StoreWarning, match=message):
        rows.put_many(KEYS, VALUES)
    monkeypatch.setattr(_database, "_REST_SECONDS", 0.0)
    rows.put_many(KEYS, VALUES)  # a second warning would be an error
    assert rows.missing(KEYS) == [0, 1]
    assert store.rows("recipe").get_many(KEYS)[0].all()


def test_a_full_disk_really_full(store):
    """SQLite itself reports SQLITE_FULL; rows that are there can still be read."""
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    connection = store._open().database._local.connection._raw
    connection.execute("PRAGMA max_page_count=1").fetchone()
    with pytest.warns(StoreWarning, match="full"):
        rows.put_many(["large"], np.zeros((1, 10**6), np.float32))
    assert rows.missing([*KEYS, "large"]) == [2]


def test_a_store_rests_after_a_failure_and_comes_back(store, monkeypatch):
    attempts = []

    def fail(*arguments):
        attempts.append(1)
        raise sqlite3.OperationalError("no")

    with monkeypatch.context() as patch:
        patch.setattr("sklearn_featx.store._rows.make_room", fail)
        with pytest.warns(StoreWarning):
            store.rows("recipe").put_many(KEYS, VALUES)
    assert len(attempts) == 2  # the failure and its second try
    store.rows("recipe").put_many(KEYS, VALUES)
    assert store.rows("recipe").missing(KEYS) == [0, 1]
    monkeypatch.setattr(_database.time, "monotonic", lambda: float("inf"))
    store.rows("recipe").put_many(KEYS, VALUES)
    assert store.rows("recipe").missing(KEYS) == []


def test_a_lock_that_is_held_too_long_costs_a_warning(store, monkeypatch):
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.01)
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    store.close()
    file = next(Path(store.path).glob("*.sqlite"))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.warns(StoreWarning, match="locked"):
            rows.put_many(["c"], VALUES[:1])
        assert rows.missing([*KEYS, "c"]) == [2]


@pytest.mark.parametrize("table", ["entries", "payloads", "claims", "recipes", "files"])
def test_a_lost_table_makes_a_new_file(store, table):
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    store.close()
    file = next(Path(store.path).glob("*.sqlite"))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"DROP TABLE {table}")
    rows.claim(["c"])
    store.file_digests([("/a", 1, 1, 1, 1)])[0]
    rows.get_many(KEYS)
    rows.put_many(KEYS, VALUES)
    rows.put_many(["d"], VALUES[:1])
    found, values = rows.get_many(KEYS)
    assert found.all()
    np.testing.assert_array_equal(values, VALUES)
    assert not file.exists()
    assert store.info().repaired == 1


def test_a_folder_deleted_in_mid_run_is_made_again(store):
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    shutil.rmtree(store.path)
    assert rows.missing(KEYS) == [0, 1]
    assert not Path(store.path).exists()
    rows.put_many(KEYS, VALUES)
    assert rows.get_many(KEYS)[0].all()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("size", [0, 100, 70_000])
def test_a_file_cut_short_under_an_open_connection_does_not_end_the_process(store, suffix, size):
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    file = next(Path(store.path).glob("*.sqlite"))
    cut = file.with_name(file.name + suffix)
    os.truncate(cut, min(size, cut.stat().st_size // 2))
    found, values = rows.get_many(KEYS)
    np.testing.assert_array_equal(values, VALUES[found] if found.any() else np.empty(0))
    rows.put_many(KEYS, VALUES)
    assert rows.get_many(KEYS)[0].all()


def test_threads_have_connections_of_their_own(store):
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(rows.get_many(KEYS)[0].all()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
    assert len(store._open().database.connections()) == 1  # those of ended threads are closed


def in_child(job):
    """Fork; the child's exit status says whether the job returned True."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; here none is running.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if job() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_process_opens_its_own_connection(store):
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    connection = store._open().database._local.connection

    def child():
        inherited = connection._raw
        rows.put_many(["c"], VALUES[:1])
        counted = store.info().hits == 0
        return inherited is None and counted and rows.get_many([*KEYS, "c"])[0].all()

    assert in_child(child) == 0
    assert rows.missing([*KEYS, "c"]) == []


def test_a_fork_waits_for_other_threads(store):
    """A connection in use by another thread is finished with before the fork."""
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    inside, go_on = threading.Event(), threading.Event()

    def slow(connection):
        inside.set()
        go_on.wait(0.1)
        return connection.execute("SELECT 1").fetchone()

    results = []
    work = threading.Thread(
        target=lambda: results.append(store._open().database.attempt(slow, None))
    )
    work.start()
    inside.wait()
    assert in_child(lambda: rows.get_many(KEYS)[0].all()) == 0
    work.join()
    assert results == [(1,)]


def test_a_transaction_is_all_or_nothing(store):
    database = store._open().database
    store.rows("recipe").put_many(KEYS, VALUES)

    def half(connection):
        with _database.transaction(connection):
            connection.execute("DELETE FROM entries")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.attempt(half, None)
    assert store.info().n_rows == 2


def test_the_warning_says_what_happens_and_what_to_do(tmp_path):
    (tmp_path / "file").write_text("mine")
    path = str(tmp_path / "file")
    with pytest.warns(StoreWarning) as caught:
        FeatureStore(path).rows("recipe").put_many(KEYS, VALUES)
    assert str(caught[0].message) == (
        f"the store in {path!r} does not work ([Errno 20] Not a directory: {path!r}). Results are "
        "correct, but rows are not cached. Check the folder, its permissions "
        "and the free disk space, or choose another `cache`."
    )


def test_a_second_try_is_made_of_what_may_pass_alone(store):
    database = store._open().database

    def error(code):
        made = sqlite3.OperationalError("no")
        made.sqlite_errorcode = code
        return made

    assert not database._may_retry(StoreError("no"), None)
    assert not database._may_retry(error(sqlite3.SQLITE_BUSY), None)
    assert not database._may_retry(error(sqlite3.SQLITE_FULL), None)
    assert database._may_retry(error(sqlite3.SQLITE_IOERR), None)
    assert database._may_retry(OSError("no"), None)
    assert _database._code(OSError("no")) == 0


@pytest.mark.parametrize("refusal", [OSError("no"), sqlite3.OperationalError("no")])
def test_a_damaged_file_that_cannot_be_deleted_is_tried_again(store, monkeypatch, refusal):
    def refuse(file):
        raise refusal

    database = store._open().database
    monkeypatch.setattr(database._location, "discard", refuse)
    damage = sqlite3.DatabaseError("database disk image is malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    before = store.info().repaired
    assert database._may_retry(damage, Path("file"))
    assert store.info().repaired == before + 1


def test_a_store_that_cannot_be_cleared_says_why(store, monkeypatch):
    store.rows("recipe").put_many(KEYS, VALUES)

    def refuse(file):
        raise PermissionError("not yours")

    monkeypatch.setattr(store._open().database._location, "discard", refuse)
    with pytest.warns(StoreWarning, match=r"does not work \(not yours\)"):
        store.clear()


def test_counts_add_up(store):
    rows = store.rows("recipe")
    rows.put_many(KEYS, VALUES)
    for _ in range(2):
        rows.get_many(KEYS)
        rows.get_many(["c"])
    info = store.info()
    assert (info.hits, info.misses) == (4, 2)


def test_connections_are_closed_at_exit(store):
    store.rows("recipe").put_many(KEYS, VALUES)
    connection = store._open().database._local.connection._raw
    _database._close_all()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_connection_is_set_up_for_kills_damage_and_little_memory(store):
    store.rows("recipe").put_many(KEYS, VALUES)
    database = store._open().database
    connection = database._local.connection._raw
    names = (
        "synchronous", "mmap_size", "cache_size", "cell_size_check", "secure_delete", "temp_store",
        "trusted_schema", "wal_autocheckpoint", "journal_size_limit",
    )  # fmt: skip
    found = {}
    for name in names:
        # A build of SQLite without memory maps has no answer.
        found[name] = (connection.execute(f"PRAGMA {name}").fetchone() or (0,))[0]
    assert found == {
        "synchronous": 1,
        "mmap_size": 0,
        "cache_size": -_database._CACHE_KIB,
        "cell_size_check": 1,
        "secure_delete": 0,
        "temp_store": 2,
        "trusted_schema": 0,
        "wal_autocheckpoint": database.wal_bytes // 2 // 65536,
        "journal_size_limit": database.wal_bytes,
    }
    assert connection.text_factory is bytes
    assert connection.isolation_level is None


def test_the_smallest_log_is_emptied_after_each_page():
    with closing(sqlite3.connect(":memory:")) as connection:
        _database._configure(connection, 10)
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (1,)


def test_logs_are_an_eighth_of_the_store_and_never_large():
    assert _database.log_limit(8 * 2**20) == 2**20
    assert _database.log_limit(10**12) == _database._MAX_WAL_BYTES


def test_statements_get_no_more_variables_than_they_take():
    pieces = [len(piece) for piece in _database.chunked(list(range(2 * 10**4 + 1)))]
    assert sum(pieces) == 2 * 10**4 + 1
    assert set(pieces[:-1]) == {_database.MAX_VARIABLES}
    assert list(_database.chunked([1, 2, 3], 2)) == [[1, 2], [3]]
    assert _database.marks([b"a", b"b"]) == "?,?"
