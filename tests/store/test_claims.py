"""Claims: one thread computes a row, the others wait, and nobody waits for the dead."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sklearn_featx.store import FeatureStore, _claims

KEYS = ["a", "b", "c", "d"]
DEAD = "4194304000.1"  # beyond the largest process number


def in_thread(function):
    """Run as somebody else: another thread has claims of its own."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def edit_claims(store, statement, *arguments):
    store.close()
    file = next(Path(store.path).glob("*.sqlite"))
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(statement, arguments).fetchall()


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def rows(store):
    return store.rows("recipe")


def test_what_one_claims_another_does_not_get(rows):
    assert in_thread(lambda: rows.claim(["a", "b"])) == [0, 1]
    assert rows.claim(KEYS) == [2, 3]


def test_a_claim_of_ones_own_can_be_taken_again(rows):
    assert rows.claim(KEYS) == rows.claim(KEYS) == [0, 1, 2, 3]


def test_claims_come_once_for_a_repeated_key(rows):
    assert rows.claim(["a", "a", "b"]) == [0, 2]
    assert in_thread(lambda: rows.claim(["a", "a", "b", "c"])) == [3]


def test_claims_of_workers_are_those_of_the_thread_that_they_work_for(rows):
    shared = rows.for_workers()
    assert in_thread(lambda: shared.claim(["a"])) == [0]
    assert in_thread(lambda: rows.claim(["a", "b"])) == [1]
    assert rows.claim(["a", "b"]) == [0]
    in_thread(lambda: shared.release(["a"]))
    assert in_thread(lambda: rows.claim(["a"])) == [0]


def test_rows_in_the_store_are_not_claimed(rows):
    rows.put_many(["b"], np.zeros((1, 2), np.float32))
    assert rows.claim(["a", "b"]) == [0]


def test_putting_and_releasing_end_a_claim(store, rows):
    in_thread(lambda: (rows.claim(KEYS), rows.release(["c"])))
    rows.put_many(["a"], np.zeros((1, 2), np.float32))
    assert rows.claim(KEYS) == [2]
    assert rows.wait(["a"], timeout=0) == []


def test_nobody_releases_the_claims_of_others(rows):
    in_thread(lambda: rows.claim(KEYS))
    rows.release(KEYS)
    assert rows.claim(KEYS) == []


def test_waiting_ends_when_the_row_is_there(rows):
    in_thread(lambda: rows.claim(["a"]))
    timer = threading.Timer(0.05, rows.put_many, (["a"], np.zeros((1, 2), np.float32)))
    timer.start()
    assert rows.wait(["a"], timeout=30) == []
    timer.join()


def test_waiting_ends_when_the_claim_is_released(rows):
    released = threading.Event()

    def hold():
        rows.claim(["a"])
        released.wait(0.05)
        rows.release(["a"])

    thread = threading.Thread(target=hold)
    thread.start()
    rows.wait(["a"], timeout=30)
    thread.join()
    assert rows.wait(["x", "a"], timeout=30) == [0, 1]


def test_waiting_ends_with_the_time(rows):
    in_thread(lambda: rows.claim(["a"]))
    assert rows.wait(["a"], timeout=0.01) == [0]


def test_nobody_waits_for_the_dead(store, rows):
    rows.claim(KEYS)
    namespace = _claims.process_token().rpartition(".")[2]
    edit_claims(store, "UPDATE claims SET owner = ?", f"{DEAD}.{namespace}/1")
    assert rows.wait(KEYS, timeout=30) == [0, 1, 2, 3]
    assert rows.claim(["a"]) == [0]
    rows.release(["a"])
    assert edit_claims(store, "SELECT * FROM claims") == []


@pytest.mark.parametrize("seconds", [-601, 700], ids=["later", "clock set back"])
def test_a_lease_ends(store, rows, seconds):
    in_thread(lambda: rows.claim(KEYS))
    assert rows.claim(KEYS) == []
    edit_claims(store, "UPDATE claims SET since = since + ?", seconds)
    assert rows.claim(KEYS) == [0, 1, 2, 3]


@pytest.mark.parametrize("owner", [b"\xff", "nobody", "", 7])
def test_a_damaged_claim_holds_nothing(store, rows, owner):
    rows.claim(["a"])
    edit_claims(store, "UPDATE claims SET owner = ?", owner)
    assert in_thread(lambda: rows.claim(["a"])) == [0]
