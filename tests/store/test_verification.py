"""verify() finds what is damaged, removes it, and leaves the rest."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sklearn_featx.store import FeatureStore, _verification
from sklearn_featx.store._verification import Verification

KEYS = [f"key {i}" for i in range(600)]
VALUES = np.random.default_rng(0).normal(size=(600, 50)).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        store.rows("recipe").put_many(KEYS, VALUES)
        store.remember_files([("/a", 1, 1, 1, 1), ("/b", 1, 1, 1, 1)], ["digest a", "digest b"])
        store.close()
        yield store


def edit(store, statement):
    with closing(sqlite3.connect(file_of(store))) as connection, connection:
        connection.execute(statement)


def file_of(store):
    return next(Path(store.path).glob("*.sqlite"))


def test_a_sound_store_stays_as_it_is(store):
    assert store.verify() == Verification(n_rows=600, n_removed=0, rebuilt=False)
    assert store.info().n_rows == 600


def test_damaged_rows_and_files_are_removed(store):
    edit(store, "UPDATE payloads SET data = zeroblob(length(data)) WHERE id % 100 = 0")
    edit(store, "UPDATE files SET digest = 'other' WHERE path = CAST('/a' AS BLOB)")
    assert store.verify() == Verification(n_rows=600, n_removed=7, rebuilt=False)
    assert store.verify() == Verification(n_rows=594, n_removed=0, rebuilt=False)
    assert store.file_digests([("/a", 1, 1, 1, 1), ("/b", 1, 1, 1, 1)]) == [None, "digest b"]
    missing = store.rows("recipe").missing(KEYS)
    assert len(missing) == 6
    assert store.info().repaired == 7


def test_payloads_that_belong_to_nothing_are_removed(store):
    edit(store, "DELETE FROM entries WHERE payload > 500")
    store.verify()
    store.close()
    with closing(sqlite3.connect(file_of(store))) as connection:
        assert connection.execute("SELECT count(*) FROM payloads").fetchone() == (500,)


def test_a_damaged_structure_makes_a_new_file(store):
    file = file_of(store)
    content = bytearray(file.read_bytes())
    content[3 * 65536 : 3 * 65536 + 12] = b"\xff" * 12  # the header of a page
    file.write_bytes(content)
    assert store.verify().rebuilt
    assert store.rows("recipe").missing(KEYS) == list(range(600))
    store.rows("recipe").put_many(KEYS, VALUES)
    assert store.verify() == Verification(n_rows=600, n_removed=0, rebuilt=False)


def test_a_structure_that_is_not_sound_is_counted_once(store, monkeypatch):
    before = store.info().repaired
    monkeypatch.setattr(_verification, "_is_sound", lambda connection: False)
    assert store.verify() == Verification(n_rows=600, n_removed=0, rebuilt=True)
    assert store.info().repaired == before + 1


def test_a_store_that_cannot_be_asked_is_not_called_damaged(tmp_path):
    store = FeatureStore(tmp_path / "empty")
    assert store.verify() == Verification(n_rows=0, n_removed=0, rebuilt=False)


def test_a_check_that_fails_is_no_soundness():
    class Connection:
        def execute(self, statement):
            raise sqlite3.DatabaseError("malformed")

    assert _verification._is_sound(Connection()) is False
