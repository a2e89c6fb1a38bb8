"""One folder's database in this process: connections, and what happens when something fails.

Everything that touches the disk is a function of a connection, run by :meth:`Database.attempt`. It
returns the function's result or, whatever went wrong, the caller's default: the store is a cache,
and a miss is always a right answer. A damaged file is discarded and the function run again.

A connection belongs to one thread, and none is ever open across a fork: SQLite's locks belong to a
process, and a child that used its parent's would damage the file.

The file is read, not memory-mapped: when a mapped file is cut short or its disk fails, the system
kills the process (SIGBUS; seen here with SQLite's own mapping). SQLite always maps its small
``-shm`` file, so that one is looked at before each use.
"""

import atexit
import contextlib
import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..exceptions import StoreError, StoreWarning
from ._location import PAGE_BYTES, Location, database_files

T = TypeVar("T")
# Statements with more variables than this fail on old builds of SQLite.
MAX_VARIABLES = 900

# A writer holds the lock for milliseconds, an eviction for a second.
_BUSY_SECONDS = 20.0
# After a failure the store rests, so that a disk that blocks is not waited for in every batch.
_REST_SECONDS = 10.0
_MAX_WAL_BYTES = 64 * 2**20
_CACHE_KIB = 16 * 1024

_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        # Our values fit our columns: where they do not, the schema was damaged.
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    }
)
_LOST_SCHEMA = ("no such table", "no such column", "has no column")


@dataclass
class Tally:
    """What happened in this process to one folder's store."""

    hits: int = 0
    misses: int = 0
    repaired: int = 0
    warned: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, *, hits: int = 0, misses: int = 0, repaired: int = 0) -> None:
        """Add to the counts."""
        with self.lock:
            self.hits += hits
            self.misses += misses
            self.repaired += repaired


class Connection:
    """One thread's connection, opened at its first use and whenever its files were exchanged."""

    def __init__(self, wal_bytes: int) -> None:
        self.lock = threading.RLock()
        self.file: Path | None = None
        self._raw: sqlite3.Connection | None = None
        self._wal_bytes = wal_bytes
        self._seen: dict[Path, tuple[int, int]] = {}

    def open(self, location: Location, *, create: bool) -> sqlite3.Connection:
        """Connect to the file that lies in the folder now, or stay connected to it."""
        if self._raw is not None and not self._is_current():
            self.close()
        if self._raw is None:
            self.file = location.find(create=create)
            self._raw = sqlite3.connect(
                self.file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            _configure(self._raw, self._wal_bytes)
            self._seen = dict(_inodes(self.file))
        return self._raw

    def close(self) -> None:
        """Close; the next use opens again."""
        raw, self._raw = self._raw, None
        if raw is not None:
            self._restore_shm()
            self._seen = {}
            with contextlib.suppress(sqlite3.Error):
                raw.close()

    def _is_current(self) -> bool:
        """Whether the open files are still the ones in the folder, and none was cut short."""
        assert self.file is not None
        self._restore_shm()
        now = dict(_inodes(self.file))
        return all(now.get(path, (0, 0))[0] == inode for path, (inode, _) in self._seen.items())

    def _restore_shm(self) -> None:
        """Lengthen a ``-shm`` file that was cut short; SQLite finds the zeros and rebuilds it."""
        for path, (inode, size) in self._seen.items():
            if path.name.endswith("-shm"):
                with contextlib.suppress(OSError):
                    now = path.stat()
                    if now.st_ino == inode and now.st_size < size:
                        os.truncate(path, size)

    def __del__(self) -> None:
        self.close()


class Database:
    """The database of one folder, shared by all handles of this process.

    Parameters
    ----------
    folder : Path
        The store's folder.
    max_bytes : int
        The most that the store may take.
    create_folder : bool, default=True
        Whether a folder that does not exist is made.
    """

    def __init__(self, folder: Path, max_bytes: int, create_folder: bool = True) -> None:
        self.folder = folder
        self.wal_bytes = log_limit(max_bytes)
        self.before_close: Callable[[], None] = lambda: None
        self._location = Location(folder, create_folder)
        self._local = threading.local()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._resting_until = {False: 0.0, True: 0.0}
        _DATABASES.add(self)

    @property
    def tally(self) -> Tally:
        """The counts of this process."""
        return _TALLIES.setdefault(self.folder, Tally())

    def attempt(
        self, work: Callable[[sqlite3.Connection], T], otherwise: T, *, writing: bool = False
    ) -> T:
        """Do some work, or nothing.

        Parameters
        ----------
        work : callable
            Takes an open connection. It may run twice: what it changes outside the database must
            bear that.
        otherwise : object
            What to return when the work cannot be done.
        writing : bool, default=False
            Whether the work writes: then folder and file are made when there are none.

        Returns
        -------
        result : object
            What `work` returned, or `otherwise`.
        """
        if time.monotonic() < self._resting_until[writing]:
            return otherwise
        connection = self._connection()
        with connection.lock:
            failure = self._try(connection, work, writing)
            if isinstance(failure, _Failure) and self._may_retry(failure.error, connection.file):
                failure = self._try(connection, work, writing)
        if not isinstance(failure, _Failure):
            return failure
        if isinstance(failure.error, FileNotFoundError) and not writing:
            return otherwise
        self._resting_until[writing] = time.monotonic() + _REST_SECONDS
        self._warn(failure.error)
        return otherwise

    def discard(self) -> None:
        """Delete this host's file, when there is one; the next write starts a new one."""
        try:
            self._location.discard(self._location.find(create=False))
        except FileNotFoundError:
            return
        except (OSError, sqlite3.Error) as error:
            self._warn(error)

    def current_file(self) -> Path | None:
        """Find the file of this host, when there is one."""
        try:
            return self._location.find(create=False)
        except (OSError, sqlite3.Error, StoreError):
            return None

    def close(self) -> None:
        """Close the connections of all threads; the next use opens them again."""
        self.before_close()
        for connection in self.connections():
            with connection.lock:
                connection.close()

    def connections(self) -> list[Connection]:
        """List the connections of all threads."""
        return list(self._connections)

    def _connection(self) -> Connection:
        if not hasattr(self._local, "connection"):
            # Not while this process forks: the child would inherit it.
            with _NEW_CONNECTION:
                self._local.connection = Connection(self.wal_bytes)
                self._connections.add(self._local.connection)
        connection: Connection = self._local.connection
        return connection

    def _try(
        self, connection: Connection, work: Callable[[sqlite3.Connection], T], writing: bool
    ) -> "T | _Failure":
        try:
            return work(connection.open(self._location, create=writing))
        except (sqlite3.Error, OSError, StoreError) as error:
            connection.close()
            return _Failure(error)

    def _may_retry(self, error: Exception, file: Path | None) -> bool:
        """Remove what stands in the way of a second try; False when it would fail the same way."""
        if isinstance(error, StoreError):
            return False
        if file is not None and _is_damage(error):
            self.tally.count(repaired=1)
            with contextlib.suppress(OSError, sqlite3.Error):
                self._location.discard(file)
            return True
        return _code(error) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)

    def _warn(self, error: Exception) -> None:
        tally = self.tally
        with tally.lock:
            warned, tally.warned = tally.warned, True
        if not warned:
            warnings.warn(
                f"the store in {str(self.folder)!r} does not work ({error}). Results are right, "
                "but rows are computed that could be remembered. Check the folder, its "
                "permissions and the free disk space, or choose another `cache`.",
                StoreWarning,
                stacklevel=2,
            )


@dataclass
class _Failure:
    error: Exception


_DATABASES: weakref.WeakSet[Database] = weakref.WeakSet()
# Kept for the life of the process: a new handle to a broken store does not warn again.
_TALLIES: dict[Path, Tally] = {}


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of a block's changes, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT may have rolled back already.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def log_limit(max_bytes: int) -> int:
    """Choose how large the log of a store may grow, in bytes."""
    return min(_MAX_WAL_BYTES, max_bytes // 8)


def chunked(items: list[T], size: int = MAX_VARIABLES) -> Iterator[list[T]]:
    """Cut a list into pieces that fit one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))


def marks(items: list[bytes]) -> str:
    """Write the variables of a statement's IN clause."""
    return ",".join("?" * len(items))


def _configure(connection: sqlite3.Connection, wal_bytes: int) -> None:
    pragmas = {
        # A power cut may cost the last rows, never the file; a kill costs nothing.
        "synchronous": "NORMAL",
        "mmap_size": 0,
        "cache_size": -_CACHE_KIB,
        # Damaged pages are reported, not followed.
        "cell_size_check": "ON",
        "secure_delete": "OFF",
        "temp_store": "MEMORY",
        "trusted_schema": "OFF",
        "wal_autocheckpoint": max(1, wal_bytes // 2 // PAGE_BYTES),
        "journal_size_limit": wal_bytes,
    }
    # Text as bytes: what damage left behind need not be UTF-8.
    connection.text_factory = bytes
    for name, value in pragmas.items():
        connection.execute(f"PRAGMA {name}={value}")
    # A first read opens the log and its map, whose inodes are watched from now on.
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _inodes(file: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    for path in database_files(file):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield path, (status.st_ino, status.st_size)


def _code(error: Exception) -> int:
    """SQLite's code of an error; 0 for errors of Python or of the system."""
    return getattr(error, "sqlite_errorcode", 0)


def _is_damage(error: Exception) -> bool:
    code = _code(error)
    return (
        code & 0xFF in _DAMAGE
        or code == sqlite3.SQLITE_IOERR_SHORT_READ
        or any(sign in str(error) for sign in _LOST_SCHEMA)
    )


def _before_fork() -> None:
    """Wait for what other threads do, and close: the child must inherit no connection."""
    _NEW_CONNECTION.acquire()
    for database in list(_DATABASES):
        _FORK_HELD.extend(database.connections())
    for connection in _FORK_HELD:
        connection.lock.acquire()
        connection.close()


def _after_fork() -> None:
    while _FORK_HELD:
        _FORK_HELD.pop().lock.release()
    _NEW_CONNECTION.release()


def _after_fork_in_child() -> None:
    _after_fork()
    # Counts and warnings are those of a process.
    _TALLIES.clear()


def _close_all() -> None:
    for database in list(_DATABASES):
        database.close()


_FORK_HELD: list[Connection] = []
_NEW_CONNECTION = threading.Lock()
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_child,
    )
