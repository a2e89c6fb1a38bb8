"""The memo of files: same path and state, same content."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from sklearn_featx.store import FeatureStore

OLD = 10**18
A = ("/a.png", 10, OLD, OLD, 7)


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        yield store


def test_a_file_that_did_not_change_is_known(store):
    store.remember_files([A], ["digest a"])
    assert store.file_digests([A])[0] == "digest a"


@pytest.mark.parametrize(
    "state",
    [
        ("/b.png", 10, OLD, OLD, 7),
        ("/a.png", 11, OLD, OLD, 7),
        ("/a.png", 10, OLD + 1, OLD, 7),
        ("/a.png", 10, OLD, OLD + 1, 7),
        ("/a.png", 10, OLD, OLD, 8),
    ],
)
def test_any_difference_makes_it_unknown(store, state):
    store.remember_files([A], ["digest a"])
    assert store.file_digests([state])[0] is None


def test_the_last_content_counts(store):
    store.remember_files([A], ["old"])
    after = ("/a.png", 12, OLD + 1, OLD + 1, 8)
    store.remember_files([after], ["new"])
    assert store.file_digests([A, after]) == [None, "new"]


@pytest.mark.parametrize(
    ("age", "known"), [(0.0, False), (1.5, False), (3.0, True), (-60.0, False)]
)
@pytest.mark.parametrize("which", ["modification", "change"])
def test_a_file_that_changed_just_now_is_not_remembered(store, age, known, which):
    changed = time.time_ns() - int(age * 1e9)
    times = (changed, OLD) if which == "modification" else (OLD, changed)
    file = ("/a.png", 10, *times, 7)
    store.remember_files([file], ["digest"])
    assert (store.file_digests([file])[0] == "digest") is known


def test_numbers_of_files_may_have_64_bits_and_more(store):
    file = ("/a.png", 10, OLD, OLD, 2**64 + 1)
    store.remember_files([file], ["digest"])
    assert store.file_digests([file]) == ["digest"]


def test_names_that_are_no_text(store):
    path = b"/caf\xe9.png".decode(errors="surrogateescape")
    store.remember_files([(path, *A[1:])], ["digest"])
    assert store.file_digests([(path, *A[1:])])[0] == "digest"


def test_many_files_at_once(store):
    files = [(f"/{i}.png", i, OLD, OLD, i) for i in range(3000)]
    store.remember_files(files[::2], [f"digest {i}" for i in range(0, 3000, 2)])
    expected = [None if i % 2 else f"digest {i}" for i in range(3000)]
    assert store.file_digests(files) == expected
    assert store.info().n_files == 1500


@pytest.mark.parametrize(
    "damage",
    [
        "path = CAST('/b.png' AS BLOB)",
        "state = CAST('1' AS BLOB)",
        "digest = 'other'",
        "checksum = checksum + 1",
    ],
)
def test_a_damaged_record_is_forgotten(store, damage):
    store.remember_files([A], ["digest"])
    store.close()
    file = next(Path(store.path).glob("*.sqlite"))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"UPDATE files SET {damage}")
    states = [A, ("/b.png", *A[1:])]
    assert store.file_digests(states) == [None, None]
    assert store.info().repaired == 1
    assert store.info().n_files == 0
