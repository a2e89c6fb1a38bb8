"""The size holds, the least recently used leave, and reading stays reading."""

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
