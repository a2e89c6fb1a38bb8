"""Rows: what is put is found, what is absent or damaged is missing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sklearn_featx.store import FeatureStore, _claims
from sklearn_featx.store._codec import RowFormat
from sklearn_featx.store._process import process_token
from sklearn_featx.store._rows import RecipeRows, _Reader

KEYS = ["a", "b", "c", "d"]


def values_of(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


def edit(store, statement, *arguments):
    """Change the database behind the store's back."""
    store.close()
    file = next(Path(store.path).glob("*.sqlite"))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement, arguments)


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        yield store


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_a_hit_is_bitwise_what_a_miss_handed_out(tmp_path, storage):
    with FeatureStore(tmp_path, storage=storage) as store:
        rows, values = store.rows("recipe"), values_of(4)
        rows.put_many(KEYS, values)
        found, back = rows.get_many(KEYS)
        assert found.all()
        assert back.dtype == np.float32
        assert back.tobytes() == rows.roundtrip(values).tobytes()
        assert (storage == "float32") == (back.tobytes() == values.tobytes())


def test_pixels_are_kept_unchanged_whatever_the_storage(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    with FeatureStore(tmp_path, storage="float16") as store:
        store.rows("pixels").put_many(["a", "b"], pixels)
        _, back = store.rows("pixels").get_many(["a", "b"])
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, pixels)


def test_missing_gives_first_positions_only(store):
    rows = store.rows("recipe")
    rows.put_many(["b"], values_of(1))
    assert rows.missing(["a", "b", "a", "c", "b", "c"]) == [0, 3]


def test_found_rows_come_in_the_order_of_the_keys_repeats_included(store):
    rows, values = store.rows("recipe"), values_of(3)
    rows.put_many(["a", "b", "c"], values)
    found, back = rows.get_many(["c", "x", "a", "c", "b"])
    assert found.tolist() == [True, False, True, True, True]
    np.testing.assert_array_equal(back, values[[2, 0, 2, 1]])


def test_nothing_found_is_an_empty_array(store):
    found, back = store.rows("recipe").get_many(KEYS)
    assert not found.any()
    assert back.shape == (0,)
    found, back = store.rows("recipe").get_many([])
    assert found.shape == back.shape == (0,)


def test_recipes_and_storages_never_meet(tmp_path):
    with FeatureStore(tmp_path) as exact, FeatureStore(tmp_path, storage="float16") as narrow:
        exact.rows("one").put_many(["a"], values_of(1))
        assert exact.rows("two").missing(["a"]) == [0]
        assert narrow.rows("one").missing(["a"]) == [0]
        assert exact.rows("one").missing(["a"]) == []


def test_the_first_row_under_a_key_stays(store):
    rows = store.rows("recipe")
    rows.put_many(["a"], values_of(1, seed=0))
    rows.put_many(["a"], values_of(1, seed=1))
    np.testing.assert_array_equal(rows.get_many(["a"])[1], values_of(1, seed=0))


def test_ten_thousand_keys_take_few_statements(store):
    keys = [f"key {i}" for i in range(10_000)]
    rows = store.rows("recipe")
    rows.put_many(keys[::2], np.zeros((5000, 2), np.float32))
    statements = []
    connection = store._open().database._local.connection._raw
    connection.set_trace_callback(statements.append)
    assert rows.missing(keys) == list(range(1, 10_000, 2))
    connection.set_trace_callback(None)
    assert len(statements) <= 20


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE payloads SET data = substr(data, 1, 20) WHERE id = 2",
        "UPDATE payloads SET data = 7 WHERE id = 2",
        "UPDATE payloads SET data = (SELECT data FROM payloads WHERE id = 1) WHERE id = 2",
        "DELETE FROM payloads WHERE id = 2",
    ],
)
def test_a_damaged_row_is_a_miss_and_is_repaired(store, damage):
    rows, values = store.rows("recipe"), values_of(4)
    rows.put_many(KEYS, values)
    edit(store, damage)
    found, back = rows.get_many(KEYS)
    assert found.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(back, values[[0, 2, 3]])
    assert store.info().repaired == 1
    assert rows.missing(KEYS) == [1]
    rows.put_many(["b"], values[1:2])
    np.testing.assert_array_equal(rows.get_many(KEYS)[1], values)


def test_a_row_of_another_shape_is_a_miss(store):
    rows = store.rows("recipe")
    rows.put_many(["a"], np.zeros((1, 3), np.float32))
    rows.put_many(["b"], np.zeros((1, 4), np.float32))
    found, back = rows.get_many(["a", "b"])
    assert found.sum() == 1
    assert len(back) == 1
    assert len(rows.missing(["a", "b"])) == 1


def test_hits_and_misses_are_counted(store):
    rows = store.rows("recipe")
    assert len(rows.missing(KEYS)) == 4
    rows.put_many(KEYS, values_of(4))
    rows.get_many([*KEYS, "x"])
    info = store.info()
    assert (info.hits, info.misses, info.repaired) == (4, 5, 0)


def test_wrong_use_is_an_error(store):
    rows = store.rows("recipe")
    with pytest.raises(ValueError, match="one row for each of 4 keys"):
        rows.put_many(KEYS, values_of(3))
    with pytest.raises(ValueError, match="cannot be stored"):
        rows.put_many(["a"], np.zeros((1, 2), complex))


def test_no_code_is_read_from_a_store(store):
    with pytest.raises(ValueError, match="dtype object"):
        store.rows("recipe").put_many(["a"], np.array([[print]], dtype=object))


def test_much_is_written_in_several_transactions(store, monkeypatch):
    written = []
    original = RecipeRows._write
    monkeypatch.setattr(
        RecipeRows,
        "_write",
        lambda self, blobs: written.append(len(blobs)) or original(self, blobs),
    )
    rows = store.rows("recipe")
    values = np.zeros((7, 2**18), np.float32)  # 1 MiB each
    monkeypatch.setattr("sklearn_featx.store._rows._MAX_TRANSACTION_BYTES", 3 * 2**20)
    rows.put_many([str(i) for i in range(7)], values)
    assert written == [3, 3, 1]
    monkeypatch.setattr("sklearn_featx.store._rows._MAX_TRANSACTION_BYTES", 10)
    rows.put_many(["x", "y"], values[:2])
    assert written[3:] == [1, 1]
    rows.put_many([], values[:0])
    assert rows.missing([*map(str, range(7)), "x", "y"]) == []


def test_a_transaction_fits_the_log_twice(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(RecipeRows, "_write", lambda self, blobs: written.append(len(blobs)))
    with FeatureStore(tmp_path, "8MiB") as store:  # a log of 1 MiB
        store.rows("recipe").put_many(list("abcde"), np.zeros((5, 2**16), np.float32))
    assert written == [2, 2, 1]


def test_there_is_one_row_for_each_key(store):
    rows = store.rows("recipe")
    message = r"^expected one row for each of 2 keys, got \({}\)$"
    with pytest.raises(ValueError, match=message.format("")):
        rows.put_many(["a", "b"], np.float32(1))
    with pytest.raises(ValueError, match=message.format("3, 1")):
        rows.put_many(["a", "b"], np.zeros((3, 1), np.float32))
    rows.put_many(["a", "b"], np.zeros(2, np.float32))
    assert rows.get_many(["a", "b"])[1].shape == (2,)


def test_rows_of_a_recipe_share_its_number(store):
    rows = store.rows("recipe")
    rows.put_many(["a"], values_of(1))
    rows.put_many(["b"], values_of(1))
    store.rows("other").put_many(["a"], values_of(1))
    assert store.info().recipes == {"recipe": 2, "other": 1}
    store.close()
    with closing(sqlite3.connect(next(Path(store.path).glob("*.sqlite")))) as connection:
        assert connection.execute("SELECT count(*) FROM recipes").fetchone() == (2,)


@pytest.mark.parametrize("timeout", [0, -1])
def test_without_time_nobody_waits(store, monkeypatch, timeout):
    def sleep(seconds):
        raise AssertionError("slept")

    claim_as_another(store, monkeypatch)
    monkeypatch.setattr("sklearn_featx.store._rows.time.sleep", sleep)
    assert store.rows("recipe").wait(["a"], timeout=timeout) == [0]


def test_waiting_looks_less_and_less_often(store, monkeypatch):
    slept, now = [], [0.0]

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    claim_as_another(store, monkeypatch)
    monkeypatch.setattr("sklearn_featx.store._rows.time.sleep", sleep)
    monkeypatch.setattr("sklearn_featx.store._rows.time.monotonic", lambda: now[0])
    assert store.rows("recipe").wait(["a"], timeout=0.5) == [0]
    np.testing.assert_allclose(slept[:4], [0.005, 0.0075, 0.01125, 0.016875])
    assert sum(slept) == pytest.approx(0.5)
    assert max(slept) <= 0.2


def claim_as_another(store, monkeypatch):
    """Claim row "a" as another thread of this process would."""
    with monkeypatch.context() as patch:
        patch.setattr(_claims, "this_thread", lambda ident: f"{process_token()}/0")
        assert store.rows("recipe").claim(["a"]) == [0]


def test_nothing_found_is_an_empty_array_of_floats(store):
    found, values = store.rows("recipe").get_many(["a"])
    assert (found.tolist(), values.shape, values.dtype) == ([False], (0,), np.float32)


def test_all_rows_found_are_not_copied_again():
    reader = _Reader({b"a": [0]}, 1)
    reader._place(b"a", RowFormat(1, (2,)), np.ones(2, np.float32))
    assert np.shares_memory(reader.values(), reader._rows)


def test_rows_are_collected_in_the_type_that_they_are_kept_in():
    reader = _Reader({b"a": [0]}, 1)
    reader._place(b"a", RowFormat(2, (2,)), np.ones(2, np.float16))
    assert reader._rows.dtype == np.float16
    assert reader.values().dtype == np.float32
