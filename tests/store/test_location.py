"""Which file of a folder is the store's: nothing foreign is touched, nothing damaged is kept."""

import contextlib
import os
import shutil
import sqlite3
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from sklearn_featx.exceptions import StoreError
from sklearn_featx.store import FeatureStore, _location
from sklearn_featx.store._location import Location, place_problem


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def make_database(path, application_id, version):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA application_id={application_id}")
        connection.execute(f"PRAGMA user_version={version}")
        connection.execute("CREATE TABLE theirs(x)")


def works(folder):
    with FeatureStore(folder) as store:
        store.rows("r").put_many(["a"], np.ones((1, 2), np.float32))
        store.close()
        return store.rows("r").get_many(["a"])[0].all()


def databases(folder):
    return sorted(path.name for path in folder.glob("*.sqlite"))


def test_folder_and_file_are_the_owners_alone(folder):
    old = os.umask(0)
    try:
        file = Location(folder).find(create=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_folder_that_was_there_keeps_its_permissions(folder):
    folder.mkdir(mode=0o755)
    Location(folder).find(create=True)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_the_same_file_is_found_again_and_only_made_when_asked(folder):
    with pytest.raises(FileNotFoundError):
        Location(folder).find(create=False)
    assert not folder.exists()
    file = Location(folder).find(create=True)
    assert Location(folder).find(create=True) == Location(folder).find(create=False) == file


def test_each_host_has_a_file_of_its_own(folder, monkeypatch):
    here = Location(folder).find(create=True)
    monkeypatch.setattr(_location.socket, "gethostname", lambda: "another host/β")
    there = Location(folder).find(create=True)
    assert here != there
    assert "another_host__" in there.name
    assert len(databases(folder)) == 2


@pytest.mark.parametrize(("application_id", "version"), [(1, 1), (_location.APPLICATION_ID, 99)])
def test_databases_of_others_under_our_name_are_left_alone(folder, application_id, version):
    theirs = Location(folder).find(create=True)
    theirs.unlink()
    make_database(theirs, application_id, version)
    content, times = theirs.read_bytes(), theirs.stat().st_mtime_ns
    assert works(folder)
    assert works(folder)
    with FeatureStore(folder) as store:
        store.clear()
        store.verify()
    assert theirs.read_bytes() == content
    assert theirs.stat().st_mtime_ns == times
    assert databases(folder) == [theirs.name]  # `clear` removed ours alone


def test_other_files_in_the_folder_are_left_alone(folder):
    folder.mkdir()
    names = ["notes.txt", "other.sqlite", "other.sqlite-wal", "featx-v1-x.sqlite", "image.png"]
    for name in names:
        (folder / name).write_text(name)
    assert works(folder)
    with FeatureStore(folder) as store:
        store.clear()
    assert [(folder / name).read_text() for name in names] == names


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 200])
def test_what_is_no_database_under_our_name_is_replaced(folder, content):
    file = Location(folder).find(create=True)
    file.write_bytes(content)
    assert works(folder)
    assert not file.exists()
    assert len(databases(folder)) == 1


def test_orphans_are_swept(folder):
    file = Location(folder).find(create=True)
    stem = file.name.rpartition("-")[0]
    orphans = [f"{stem}-00000000.sqlite-wal", f"{stem}-00000000.sqlite-shm"]
    orphans += [f"{stem}-00000001.sqlite.new", f"{stem}-00000001.sqlite.new-journal"]
    for name in orphans:
        (folder / name).write_bytes(b"left behind")
    file.unlink()
    assert works(folder)
    assert not any((folder / name).exists() for name in orphans)


def test_of_two_files_of_ours_one_stays(folder):
    first = Location(folder).find(create=True)
    second = first.with_name(first.name[:-15] + "ffffffff.sqlite")
    second.write_bytes(first.read_bytes())
    assert Location(folder).find(create=True) == min(first, second)
    assert len(databases(folder)) == 1


def test_a_link_under_our_name_is_not_followed(folder, tmp_path):
    file = Location(folder).find(create=True)
    target = tmp_path / "precious"
    target.write_text("precious")
    file.unlink()
    file.symlink_to(target)
    assert works(folder)
    assert target.read_text() == "precious"


def test_a_damaged_lock_is_replaced(folder):
    file = Location(folder).find(create=True)
    next(folder.glob("*.lock")).write_bytes(b"damaged" * 1000)
    file.unlink()
    assert works(folder)


def test_a_creation_that_fails_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(_location, "_SCHEMA", ("CREATE nonsense",))
    with pytest.raises(sqlite3.OperationalError):
        Location(folder).find(create=True)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_a_killed_checkpoint_loses_nothing(folder):
    """The header is written first: it counts pages that are in the log alone."""
    keys = [str(i) for i in range(100)]
    store = FeatureStore(folder)
    store.rows("r").put_many(keys, np.ones((100, 5000), np.float32))
    file = next(folder.glob("*.sqlite"))
    before, log = file.read_bytes(), file.with_name(file.name + "-wal").read_bytes()
    store.close()
    after = file.read_bytes()
    assert len(before) < len(after)
    file.write_bytes(after[:65536] + before[65536:])
    file.with_name(file.name + "-wal").write_bytes(log)
    assert store.rows("r").get_many(keys)[0].all()
    store.close()
    assert store.info().repaired == 0


def test_whose_a_file_is(folder, tmp_path):
    file = Location(folder).find(create=True)
    link, empty, text = tmp_path / "link", tmp_path / "empty", tmp_path / "text"
    link.symlink_to(file)
    empty.touch()
    text.write_text("no database")
    make_database(tmp_path / "theirs", 1, 1)
    expected = {
        file: "ours",
        link: "foreign",
        tmp_path: "foreign",
        tmp_path / "nowhere": "foreign",
        empty: "damaged",
        text: "damaged",
        tmp_path / "theirs": "foreign",
    }
    assert {path: _location._identify(path) for path in expected} == expected
    # To ask leaves nothing beside a file.
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "empty", "link", "store", "text", "theirs",
    ]  # fmt: skip


def test_where_no_store_can_be_made(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "file' is a file, and a store is a folder" in place_problem(path)
    assert place_problem(folder / "below") is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert place_problem(tmp_path) is None
    assert place_problem(folder).endswith("it is not writable")
    monkeypatch.undo()
    monkeypatch.setattr(_location.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    assert place_problem(tmp_path) is None
    assert place_problem(folder).endswith("is on a file system that holds no new files")


def test_what_is_missing_is_said(folder):
    with pytest.raises(FileNotFoundError, match=f"^no store in {folder}$"):
        Location(folder).find(create=False)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=f"^no store in {folder}$"):
        Location(folder)._settle(create=False)


def test_a_file_system_without_a_shared_log_is_said(folder, monkeypatch):
    class Connection(sqlite3.Connection):
        def execute(self, statement, *rest):
            # What SQLite answers where it cannot: the mode that stays.
            return super().execute(statement.replace("=WAL", "=DELETE"), *rest)

    original = sqlite3.connect
    monkeypatch.setattr(
        _location.sqlite3, "connect", lambda *a, **k: original(*a, **k, factory=Connection)
    )
    with pytest.raises(StoreError) as caught:
        Location(folder).find(create=True)
    assert str(caught.value) == f"the file system of {str(folder)!r} cannot hold a shared log"


def test_the_schema_is_written_statement_by_statement(folder):
    file = Location(folder).find(create=True)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        pragmas = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "auto_vacuum", "journal_mode")
        }
    assert pragmas == {"page_size": 65536, "auto_vacuum": 2, "journal_mode": "wal"}


def test_what_others_deleted_meanwhile_is_deleted(folder, monkeypatch):
    file = Location(folder).find(create=True)
    stem = file.name.rpartition("-")[0]
    listed = Location._listed
    gone = [(f"{stem}-0000000{i}.sqlite-wal", "-wal") for i in range(2)]
    monkeypatch.setattr(Location, "_listed", lambda self: [*gone, *listed(self)])
    Location(folder)._sweep_orphans()
    _location._delete_database(folder / "gone.sqlite")
    assert file.exists()


def test_orphans_behind_the_database_in_the_listing_are_swept(folder):
    file = Location(folder).find(create=True)
    stem = file.name.rpartition("-")[0]
    orphan = folder / f"{stem}-ffffffff.sqlite-wal"
    orphan.write_bytes(b"left behind")
    Location(folder)._sweep_orphans()
    assert not orphan.exists()
    assert file.exists()


def test_a_folder_that_another_process_makes_meanwhile_is_used(folder, monkeypatch):
    exists = Path.exists
    folder.mkdir()
    monkeypatch.setattr(Path, "exists", lambda self: self != folder and exists(self))
    Location(folder)._make_folder()


def test_a_file_is_never_opened_in_place_of_another(tmp_path):
    (tmp_path / "there").write_text("precious")
    with pytest.raises(FileExistsError):
        _location._touch(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "precious"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode there")
def test_the_name_of_a_folder_may_be_any_bytes(tmp_path):
    folder = tmp_path / os.fsdecode(b"rows\xff")
    created = Location(folder).find(create=True)
    assert Location(folder).find(create=False) == created
