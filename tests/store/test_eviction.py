"""The size holds, the least recently used leave, and reading stays reading."""

import contextlib
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from sklearn_featx.store import FeatureStore, _eviction

LIMIT = 16 * 2**20


def put(rows, names, n_floats=8_000):
    for name in names:
        rows.put_many([name], np.full((1, n_floats), hash(name) % 1000, np.float32))


def size_of(store):
    return sum(path.stat().st_size for path in Path(store.path).iterdir())


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store", LIMIT) as store:
        yield store


def test_the_size_holds_while_much_more_is_written(store):
    rows = store.rows("recipe")
    values = np.zeros((20, 50_000), np.float32)  # 4 MB at once, 60 MB in all
    for step in range(15):
        rows.put_many([f"{step} {i}" for i in range(20)], values)
        assert size_of(store) <= LIMIT
    assert rows.missing(["14 19"]) == []
    assert rows.missing(["0 0"]) == [0]
    assert 0 < store.info().n_rows < 100


def test_least_recently_used_leave_first(store):
    rows = store.rows("recipe")
    put(rows, [f"old {i}" for i in range(100)])
    put(rows, [f"new {i}" for i in range(100)])
    kept = [f"old {i}" for i in range(50)]
    assert rows.get_many(kept)[0].all()
    store.prune("8MiB")
    assert store.info().n_rows < 200
    assert rows.missing(kept) == []
    assert len(rows.missing([f"old {i}" for i in range(50, 100)])) > 0
    assert len(rows.missing([f"new {i}" for i in range(100)])) < 100


def test_pruning_gives_space_back(store):
    put(store.rows("recipe"), [str(i) for i in range(300)])
    before = size_of(store)
    n_rows = store.info().n_rows
    n_deleted = store.prune("8MiB")
    assert 0 < n_deleted == n_rows - store.info().n_rows
    assert size_of(store) < min(before, 8 * 2**20)
    assert store.prune("8MiB") == 0


def test_recipes_without_rows_are_forgotten(store):
    put(store.rows("one"), [str(i) for i in range(20)])
    put(store.rows("two"), [str(i) for i in range(300)])
    store.prune("8MiB")
    assert list(store.info().recipes) == ["two"]


def test_a_row_larger_than_the_store_pushes_nothing_out(store):
    rows = store.rows("recipe")
    put(rows, ["small"])
    rows.put_many(["huge"], np.zeros((1, LIMIT // 4), np.float32))
    assert rows.missing(["small", "huge"]) == [1]


def test_a_wrong_size_is_named(store):
    with pytest.raises(ValueError, match="max_size='small'"):
        store.prune("small")


def test_reading_does_not_write(store):
    rows = store.rows("recipe")
    put(rows, ["a", "b"])
    connection = store._open().database._local.connection._raw
    statements = []
    connection.set_trace_callback(statements.append)
    for _ in range(100):
        rows.get_many(["a", "b"])
    connection.set_trace_callback(None)
    assert {statement.split()[0] for statement in statements} == {"SELECT"}


def test_use_is_written_for_many_rows_at_once(store, monkeypatch):
    rows = store.rows("recipe")
    put(rows, ["a", "b"])
    written = []
    monkeypatch.setattr(_eviction, "_write_recency", lambda c, rows: written.append(len(rows)))
    for _ in range(10):
        rows.get_many(["a", "b"])
    later = time.monotonic() + _eviction._FLUSH_SECONDS + 1
    monkeypatch.setattr(_eviction.time, "monotonic", lambda: later)
    rows.get_many(["a"])
    rows.get_many(["a"])
    assert written == [2]
    store.close()
    assert written == [2, 1]


def test_use_is_written_when_the_store_is_closed(tmp_path):
    with FeatureStore(tmp_path, LIMIT) as store:
        put(store.rows("recipe"), ["a", *(f"{i}" for i in range(180))])
    with FeatureStore(tmp_path, LIMIT) as store:
        store.rows("recipe").get_many(["a"])
    with FeatureStore(tmp_path, "32MiB") as store:
        assert store.prune("8MiB") > 0
        assert store.rows("recipe").missing(["a"]) == []


@pytest.mark.parametrize("size", [100, 5_000, 9_000, 66_000, 400_000])
def test_pages_are_never_underestimated(tmp_path, size):
    with FeatureStore(tmp_path, "64MiB") as store:
        store.rows("recipe").put_many(["x"], np.zeros((1, size), np.uint8))
        store.close()
        before = size_of(store)
        n_rows = min(500, 20_000_000 // size)
        keys = [str(i) for i in range(n_rows)]
        store.rows("recipe").put_many(keys, np.zeros((n_rows, size), np.uint8))
        store.close()
        assert (size_of(store) - before) / 65536 <= _eviction.pages_for([size + 16] * n_rows)


def test_rows_of_very_different_sizes_are_counted_in_all_rounds(tmp_path):
    with FeatureStore(tmp_path / "store", "64MiB") as store:
        # The mean size says how many to delete: with small ones first, several rounds are needed.
        put(store.rows("small"), [f"small {i}" for i in range(200)], n_floats=10)
        put(store.rows("large"), [f"large {i}" for i in range(100)], n_floats=30_000)
        assert store.info().n_rows == 300
        n_deleted = store.prune("8MiB")
        assert n_deleted == 300 - store.info().n_rows > 200


def test_folders_above_a_store_are_made(tmp_path):
    with FeatureStore(tmp_path / "a" / "b" / "store") as store:
        rows = store.rows("recipe")
        put(rows, ["one"])
        assert rows.missing(["one"]) == []
    assert (tmp_path / "a" / "b" / "store").is_dir()


def test_pages_of_small_and_of_large_rows():
    page, spare = _eviction.PAGE_BYTES, _eviction._SPARE_PAGES
    assert _eviction.pages_for([]) == spare
    # Up to an eighth of a page rows share pages, a fifth of which stays empty.
    assert _eviction.pages_for([page // 8] * 80) == 12 + spare
    assert _eviction.pages_for([page // 8 + 1] * 10) == 20 + spare
    assert _eviction.pages_for([3 * page + 5] * 10) == 50 + spare


def test_the_budget_is_whole_pages():
    assert _eviction.file_budget(LIMIT) == (LIMIT - 4 * (LIMIT // 8)) // 65536
    assert isinstance(_eviction.file_budget(LIMIT + 1), int)


@pytest.fixture
def connection(store):
    put(store.rows("recipe"), [str(i) for i in range(100)])
    store._open().database._local.connection._raw.commit()
    return store._open().database._local.connection._raw


def test_room_is_made_for_what_comes_and_not_before_it_is_needed(connection):
    used = _eviction._used_pages(connection)

    def left(n_pages, budget):
        connection.execute("BEGIN IMMEDIATE")
        _eviction.make_room(connection, n_pages, budget)
        n_rows = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
        connection.execute("ROLLBACK")
        return n_rows

    assert left(10, used + 10) == 100
    # A twentieth of the budget leaves at once, of rows that take half a page each.
    at_once, rows_of_a_twentieth = 100 - left(11, used + 10), 2 * ((used + 10) // 20)
    assert rows_of_a_twentieth <= at_once <= rows_of_a_twentieth + 4
    assert left(30, used) <= 100 - 50


def test_remembered_files_leave_when_no_rows_are_left(store, connection):
    store.remember_files([("/a", 1, 1, 1, 1)], ["digest"])
    connection.execute("BEGIN IMMEDIATE")
    n_deleted = _eviction._evict(connection, 10**6)
    counts = [
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("entries", "payloads", "files", "recipes")
    ]
    connection.execute("ROLLBACK")
    assert n_deleted == 100
    assert counts == [0, 0, 0, 0]


def test_a_row_that_was_replaced_before_its_deletion_stays(connection):
    name, payload = connection.execute("SELECT name, payload FROM entries").fetchone()
    connection.execute("BEGIN IMMEDIATE")
    _eviction.delete_rows(connection, [(name, payload - 1000)])
    kept = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
    connection.execute("ROLLBACK")
    assert kept == 100


def test_a_log_within_its_limit_is_left_and_a_larger_one_is_emptied(store, connection):
    log = Path(f"{next(Path(store.path).glob('*.sqlite'))}-wal")
    size = log.stat().st_size
    assert size > 0
    _eviction.empty_log(connection, size)
    assert log.stat().st_size == size
    _eviction.empty_log(connection, size - 1)
    assert log.stat().st_size == 0


def test_a_log_that_grew_while_others_read_is_emptied_after_them(store, connection, monkeypatch):
    monkeypatch.setattr(_eviction, "_LOG_PAUSES", (0,))
    connection.execute("PRAGMA busy_timeout=0")
    file = next(Path(store.path).glob("*.sqlite"))
    log, limit = Path(f"{file}-wal"), store._open().database.wal_bytes
    with contextlib.closing(sqlite3.connect(file)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        put(store.rows("recipe"), [f"more {i}" for i in range(100)])
        assert log.stat().st_size > limit
    put(store.rows("recipe"), ["last"])
    assert log.stat().st_size <= limit


def test_while_others_read_the_log_is_tried_again_after_pauses(store, connection, monkeypatch):
    pauses, busy = [], [True, True, False]
    monkeypatch.setattr(_eviction.time, "sleep", pauses.append)
    monkeypatch.setattr(_eviction, "_truncate_log", lambda connection: busy[len(pauses)])
    _eviction.empty_log(connection, 0)
    assert pauses == [0.002, 0.005]


def test_a_database_without_a_log_has_an_empty_one(tmp_path):
    assert _eviction._log_bytes(str(tmp_path / "none.sqlite")) == 0


def test_use_is_written_after_so_many_rows(store, monkeypatch):
    rows = store.rows("recipe")
    put(rows, ["a", "b"])
    written = []
    monkeypatch.setattr(_eviction, "_write_recency", lambda c, rows: written.append(len(rows)))
    monkeypatch.setattr(_eviction, "_FLUSH_ROWS", 2)
    rows.get_many(["a"])
    assert written == []
    rows.get_many(["b"])
    assert written == [2]
