"""The location of a store: this host's database file in a folder.

The folder may be on a network disk and may contain other files. WAL does not work across hosts, so
each host has its own file, ``featx-v2-<host>-<8 hex digits>.sqlite``. The digits are new for each
file: SQLite finds the log of a database by name, so a reused name could pair a new database with an
old log.

A file belongs to this package if its header has the package's application id and version. A file
with a matching name that is no database is a damaged one and may be deleted. A database of another
program or version is never changed, whatever its name.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from .._messages import shown
from ..exceptions import StoreError

APPLICATION_ID = 0x66656174  # "feat"
VERSION = 2
PAGE_BYTES = 65536  # SQLite's largest: a row of 5 KiB shares one, a row of 400 KiB needs seven

# Timeout for the lock, held for milliseconds while a process creates or deletes a file.
_LOCK_SECONDS = 10.0
_SIDE_FILES = ("-wal", "-shm", "-journal")
_UNFINISHED = ".new"

# The name is the only index of a row, and payloads are appended: a lookup reads a small tree, and a
# write changes few pages. Every table is WITHOUT ROWID or keyed by its rowid, so no damage can make
# an index disagree with its table.
_SCHEMA = (
    "CREATE TABLE recipes(id INTEGER PRIMARY KEY, digest TEXT NOT NULL, text TEXT NOT NULL)",
    "CREATE TABLE entries(name BLOB PRIMARY KEY, payload INTEGER NOT NULL, recipe INTEGER NOT NULL,"
    " size INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE payloads(id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE claims(name BLOB PRIMARY KEY, owner TEXT NOT NULL, since INTEGER NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE files(path BLOB PRIMARY KEY, state BLOB NOT NULL, digest TEXT NOT NULL,"
    " checksum INTEGER NOT NULL) WITHOUT ROWID",
)


class Location:
    """A store's folder on one host.

    Parameters
    ----------
    folder : Path
        The folder.
    create_folder : bool, default=True
        Whether a missing folder is created. False for a session: its folder is deleted when the
        session ends.
    """

    def __init__(self, folder: Path, create_folder: bool = True) -> None:
        self.folder = folder
        self._create_folder = create_folder
        host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "localhost"
        self._stem = f"featx-v{VERSION}-{host}"
        self._pattern = re.compile(
            rf"{re.escape(self._stem)}-[0-9a-f]{{8}}\.sqlite(?P<side>{_UNFINISHED}.*|-\w+)?"
        )

    def find(self, *, create: bool) -> Path:
        """Return the database file of this host.

        Parameters
        ----------
        create : bool
            Whether a missing folder or file is created.

        Returns
        -------
        file : Path
            The file.

        Raises
        ------
        FileNotFoundError
            If there is no file and `create` is False.
        OSError, sqlite3.Error, StoreError
            If the folder cannot be used.
        """
        with contextlib.suppress(FileNotFoundError):
            candidates = self._candidates()
            if len(candidates) == 1 and _identify(candidates[0]) == "ours":
                return candidates[0]
            if candidates:
                return self._settle(create=create)
        if not create:
            raise FileNotFoundError(f"no store in {self.folder}")
        self._make_folder()
        return self._settle(create=True)

    def discard(self, file: Path) -> None:
        """Delete a database with its log. Open connections detect this at their next use."""
        with contextlib.suppress(FileNotFoundError), self._locked():
            _delete_database(file)

    def _settle(self, *, create: bool) -> Path:
        """Delete duplicate, damaged and orphaned files; return the one of this host."""
        with self._locked():
            ours = [file for file in self._candidates() if _identify(file) == "ours"]
            for file in self._candidates():
                if file not in ours[:1] and _identify(file) != "foreign":
                    _delete_database(file)
            self._sweep_orphans()
            if ours:
                return ours[0]
            if not create:
                raise FileNotFoundError(f"no store in {self.folder}")
            return self._create_database()

    def _candidates(self) -> list[Path]:
        return [self.folder / name for name, side in self._listed() if side is None]

    def _listed(self) -> list[tuple[str, str | None]]:
        matches = (self._pattern.fullmatch(name) for name in sorted(os.listdir(self.folder)))  # noqa: PTH208 - names, not paths
        return [(match[0], match["side"]) for match in matches if match]

    def _sweep_orphans(self) -> None:
        """Delete logs without a database, and databases whose creation was interrupted."""
        for name, side in self._listed():
            if side is None:
                continue
            database = self.folder / name.removesuffix(side)
            if side.startswith(_UNFINISHED) or not database.exists():
                (self.folder / name).unlink(missing_ok=True)

    def _make_folder(self) -> None:
        if self._create_folder and not self.folder.exists():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        if not self.folder.is_dir():
            raise StoreError(f"{str(self.folder)!r} is not a folder")

    def _create_database(self) -> Path:
        file = self.folder / f"{self._stem}-{secrets.token_hex(4)}.sqlite"
        unfinished = file.with_name(file.name + _UNFINISHED)
        try:
            _touch(unfinished)
            _write_schema(unfinished)
            unfinished.rename(file)
        except BaseException:
            self._sweep_orphans()
            raise
        return file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder for other processes by an empty SQLite file; a kill releases the lock."""
        path = self.folder / f"{self._stem}.lock"
        for damaged in (False, True):
            with contextlib.suppress(FileExistsError):
                _touch(path)
            connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.DatabaseError as error:
                connection.close()
                if damaged or error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                    raise
                path.unlink(missing_ok=True)
            else:
                break
        try:
            yield
        finally:
            connection.close()


def place_problem(folder: Path) -> str | None:
    """Return why no store can be made at a path; None if it may be made, or is there.

    Parameters
    ----------
    folder : Path
        The folder of a store, which need not exist.
    """
    if (problem := file_problem(folder)) is not None:
        return problem
    with contextlib.suppress(OSError, ValueError):
        there = _nearest(folder)
        # The rows of an existing folder may be readable, whatever can be written.
        if there == folder:
            return None
        if not os.access(there, os.W_OK | os.X_OK):
            return f"no folder can be made in {shown(str(there))}: it is not writable"
        # File systems of the kernel, such as /proc, have no size.
        if shutil.disk_usage(there).total == 0:
            return f"{shown(str(there))} is on a file system that holds no new files"
    return None


def file_problem(folder: Path) -> str | None:
    """Return the sentence about a file in place of a folder of a store; None without one."""
    with contextlib.suppress(OSError, ValueError):
        there = _nearest(folder)
        if not there.is_dir():
            return f"{shown(str(there))} is a file, and a store is a folder"
    return None


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def database_files(file: Path) -> list[Path]:
    """Return the paths of a database and of SQLite's files that belong to it."""
    return [file, *(file.with_name(file.name + side) for side in _SIDE_FILES)]


def _delete_database(file: Path) -> None:
    for path in database_files(file):
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _identify(file: Path) -> Literal["ours", "damaged", "foreign"]:
    """Return the kind of a file, from its header.

    SQLite reads the header: a plain open and close would release the locks that this process holds
    on the file (POSIX). `immutable` takes no lock and creates no log for a foreign database. While
    the log is being emptied, or after an interruption, the header may count pages that only the log
    contains; `writable_schema` prevents SQLite from reporting this as damage.
    """
    if not file.is_file() or file.is_symlink():
        return "foreign"
    connection = sqlite3.connect(f"file:{quote(os.fsencode(file))}?immutable=1", uri=True)
    try:
        connection.execute("PRAGMA writable_schema=ON")
        identity = tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return "damaged"
        raise
    finally:
        connection.close()
    if identity == (APPLICATION_ID, VERSION):
        return "ours"
    return "damaged" if file.stat().st_size == 0 else "foreign"


def _write_schema(file: Path) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        # The file has another name until it is complete: it needs no journal of its own.
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        # `prune` returns the pages of deleted rows to the disk in steps.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        # One transaction: each waits for the disk.
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")
        if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            raise StoreError(f"the file system of {str(file.parent)!r} cannot hold a shared log")
    finally:
        connection.close()
