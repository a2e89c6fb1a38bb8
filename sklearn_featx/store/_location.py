"""Which file of a folder is this host's database: found, created, discarded.

The folder may be on a network disk and may hold anything else; WAL does not work across hosts, so
each host has a file of its own, ``featx-v2-<host>-<8 hex digits>.sqlite``. The digits are new for
each file: SQLite finds a database's log by name, so a name that was used again could pair a new
database with an old log.

A file is ours when its header carries our application id and version. A file under our name that is
no database is ours as well (it was one, and is damaged) and may be deleted. A database of another
program or version is foreign whatever its name: it is left alone, and ours lies beside it.
"""

import contextlib
import os
import re
import secrets
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from ..exceptions import StoreError

APPLICATION_ID = 0x66656174  # "feat"
VERSION = 2
PAGE_BYTES = 65536  # SQLite's largest: a row of 5 KiB shares one, a row of 400 KiB needs seven

# How long a process waits while another creates or discards a file: milliseconds of work.
_LOCK_SECONDS = 10.0
_SIDE_FILES = ("-wal", "-shm", "-journal")
_UNFINISHED = ".new"

# Rows have no index besides their names, and payloads are appended: a look-up reads a small tree,
# and a write touches few pages. Every table is WITHOUT ROWID or keyed by its rowid, so that no
# damage can leave an index that disagrees with its table.
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
    """A store's folder, as one host sees it.

    Parameters
    ----------
    folder : Path
        The folder.
    create_folder : bool, default=True
        Whether a folder that does not exist is made. A session's folder is not: it was deleted
        because its session ended.
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
        """Find the database file of this host.

        Parameters
        ----------
        create : bool
            Whether folder and file are made when there are none.

        Returns
        -------
        file : Path
            A file that is ours.

        Raises
        ------
        FileNotFoundError
            If there is none and none is to be made.
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
        """Delete a database of ours, with its log. Connections to it notice and move on."""
        with contextlib.suppress(FileNotFoundError), self._locked():
            _delete_database(file)

    def _settle(self, *, create: bool) -> Path:
        """Under the folder's lock: one file of ours, nothing damaged, nothing orphaned."""
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
        """Delete logs without their database, and databases that nobody finished creating."""
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
        """One process at a time. An empty SQLite file is the lock: a kill frees it."""
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


def database_files(file: Path) -> list[Path]:
    """List a database and the files that SQLite keeps beside it."""
    return [file, *(file.with_name(file.name + side) for side in _SIDE_FILES)]


def _delete_database(file: Path) -> None:
    for path in database_files(file):
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _identify(file: Path) -> Literal["ours", "damaged", "foreign"]:
    """Whose file this is, read from its header.

    SQLite does the reading: a plain open and close would drop the locks that this process holds
    on the file (POSIX). `immutable` takes no lock, and creates no log beside a foreign database.
    The header may count pages that only the log holds, while the log is emptied or when that was
    interrupted: `writable_schema` keeps SQLite from calling this damage.
    """
    if not file.is_file() or file.is_symlink():
        return "foreign"
    connection = sqlite3.connect(f"file:{quote(str(file))}?immutable=1", uri=True)
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
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        # Deleted rows' pages are given back in steps, by `prune`.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        for statement in _SCHEMA:
            connection.execute(statement)
        if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            raise StoreError(f"the file system of {str(file.parent)!r} cannot hold a shared log")
    finally:
        connection.close()
