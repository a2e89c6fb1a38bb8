"""The handle: parameters, address, counts, and what an owner does with a store."""

import copy
import pickle
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import sklearn_featx.store
from sklearn_featx.store import FeatureStore
from sklearn_featx.store._store import MIN_SIZE, parse_size

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("size", "n_bytes"),
    [
        (10**9, 10**9),
        ("10GB", 10**10),
        ("500 MB", 5 * 10**8),
        ("2GiB", 2**31),
        ("1.5tib", 3 * 2**39),
        ("9000000", 9_000_000),
        ("9000kb", 9_000_000),
    ],
)
def test_sizes(size, n_bytes):
    assert parse_size(size) == n_bytes


@pytest.mark.parametrize("size", ["ten", "10 parsecs", "", "-1GB", -5, None, True, "1e9", "GB"])
def test_what_is_no_size_is_named(size, tmp_path):
    with pytest.raises(ValueError, match=r"max_size=.*500MB"):
        FeatureStore(tmp_path, max_size=size)


def test_a_size_too_small_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"max_size='1MB'.*at least 8388608 bytes"):
        FeatureStore(tmp_path, max_size="1MB")


def test_an_unknown_storage_is_named(tmp_path):
    with pytest.raises(ValueError, match="storage='int8': expected one of float32, float16, bfl"):
        FeatureStore(tmp_path, storage="int8")


def test_a_handle_touches_nothing(tmp_path):
    store = FeatureStore(tmp_path / "store")
    store.rows("recipe")
    assert store.rows("recipe").missing(["a"]) == [0]
    assert store.info().n_rows == store.verify().n_rows == store.prune() == 0
    store.clear()
    assert not (tmp_path / "store").exists()


def test_a_home_folder_and_a_relative_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FeatureStore("~/store").path == str(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    assert FeatureStore(Path("store")).path == str(tmp_path / "store")


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copy_is_the_address(tmp_path, copied):
    with FeatureStore(tmp_path, "1GB", "bfloat16") as store:
        store.rows("recipe").put_many(["a", "b"], VALUES)
        twin = copied(store)
        assert twin == store
        assert hash(twin) == hash(store)
        assert twin is not store
        assert (twin.path, twin.max_size, twin.storage) == (str(tmp_path), "1GB", "bfloat16")
        assert twin.rows("recipe").get_many(["a", "b"])[0].all()
        assert len(pickle.dumps(store)) < 300


def test_handles_with_other_parameters_differ(tmp_path):
    stores = {FeatureStore(tmp_path), FeatureStore(tmp_path, "1GB"), FeatureStore(tmp_path / "x")}
    assert len(stores) == 3
    assert FeatureStore(tmp_path) != str(tmp_path)
    assert repr(FeatureStore("/x")) == "FeatureStore('/x', '10GB', 'float32')"


def test_info(tmp_path):
    with FeatureStore(tmp_path / "store", "64MiB") as store:
        store.rows("digest 1", "resnet18, first stage").put_many(["a", "b"], VALUES)
        store.rows("digest 2").put_many(["a"], VALUES[:1])
        store.remember_files([("/a", 1, 1, 1, 1)], ["digest"])
        info = store.info()
        assert info.path == str(tmp_path / "store")
        assert info.recipes == {"resnet18, first stage": 2, "digest 2": 1}
        assert (info.n_rows, info.n_files, info.max_size) == (3, 1, 64 * 2**20)
        on_disk = sum(p.stat().st_size for p in (tmp_path / "store").iterdir())
        assert info.n_bytes == on_disk > 0


def test_clear_forgets_everything_and_the_store_goes_on(tmp_path):
    with FeatureStore(tmp_path) as store:
        rows = store.rows("recipe")
        rows.put_many(["a", "b"], VALUES)
        store.remember_files([("/a", 1, 1, 1, 1)], ["digest"])
        store.clear()
        assert rows.missing(["a", "b"]) == [0, 1]
        assert store.file_digests([("/a", 1, 1, 1, 1)])[0] is None
        assert store.info().n_bytes == 0
        rows.put_many(["a", "b"], VALUES)
        assert rows.missing(["a", "b"]) == []


def test_a_closed_store_opens_again_and_leaves_one_file(tmp_path):
    store = FeatureStore(tmp_path)
    store.rows("recipe").put_many(["a", "b"], VALUES)
    store.close()
    store.close()
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".lock", ".sqlite"]
    assert store.rows("recipe").missing(["a", "b"]) == []
    store.close()


def test_a_store_never_holds_a_pickle(tmp_path):
    with FeatureStore(tmp_path) as store:
        store.rows("recipe").put_many(["a", "b"], VALUES)
    with closing(sqlite3.connect(next(tmp_path.glob("*.sqlite")))) as connection:
        blobs = [blob for (blob,) in connection.execute("SELECT data FROM payloads")]
    assert len(blobs) == 2
    assert all(blob[:4] == b"fxrw" and len(blob) == 16 + 12 for blob in blobs)


def test_the_smallest_store_keeps_rows(tmp_path):
    with FeatureStore(tmp_path, MIN_SIZE) as store:
        rows = store.rows("recipe")
        rows.put_many(["a", "b"], VALUES)
        assert rows.get_many(["a", "b"])[0].all()


def test_public_names():
    names = sklearn_featx.store.__all__
    assert names == sorted(names)
    assert all(hasattr(sklearn_featx.store, name) for name in names)


def test_importing_a_store_is_light():
    folder = str(Path(sklearn_featx.store.__file__).parents[1])
    code = f"""
import sys, types
package = sys.modules["sklearn_featx"] = types.ModuleType("sklearn_featx")
package.__path__ = [{folder!r}]
import sklearn_featx.store
print("torch" in sys.modules, "PIL" in sys.modules, "numpy" in sys.modules)
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["False", "False", "True"]


def test_rows_of_recipes_that_are_lost_are_counted_as_unknown(tmp_path):
    with FeatureStore(tmp_path) as store:
        for recipe in ("one", "two", "three"):
            store.rows(recipe).put_many(["a", "b"], np.ones((2, 3), np.float32))
        store.close()
        file = next(tmp_path.glob("*.sqlite"))
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM recipes WHERE text = 'one'")
            connection.execute("UPDATE recipes SET text = X'ff' WHERE text = 'two'")
        assert store.info().recipes == {"unknown": 2, "\N{REPLACEMENT CHARACTER}": 2, "three": 2}


def test_a_store_without_a_file_remembers_nothing(tmp_path):
    info = FeatureStore(tmp_path / "none").info()
    assert (info.n_rows, info.n_files, info.recipes) == (0, 0, {})


def test_handles_with_one_address_are_one_key(tmp_path):
    stores = [FeatureStore(tmp_path), FeatureStore(tmp_path), FeatureStore(tmp_path / "other")]
    assert len(set(stores)) == 2
    assert hash(stores[0]) == hash(stores[0].__reduce__())
