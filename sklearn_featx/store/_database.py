"""The database of one folder: connections, failures and forks.

Each access to the disk is a function of a connection that :meth:`Database.attempt` runs. It returns
the function's result or, after any failure, the caller's default: the store is a cache, and a miss
is always a correct answer. A damaged file is deleted and the function runs again.

A connection belongs to one thread and is closed before a fork: SQLite's locks belong to a process,
and a child that used its parent's connection would damage the file.

The file is not memory-mapped: if a mapped file is truncated or its disk fails, the system kills the
process (SIGBUS, observed with SQLite's own mapping). SQLite always maps its small ``-shm`` file, so
the size of that file is checked before each use.
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
# The maximum number of variables of a statement in old builds of SQLite is 999.
MAX_VARIABLES = 900

# Timeout for the lock: a writer holds it for milliseconds, an eviction for a second.
_BUSY_SECONDS = 20.0
# After a failure the store is not used for this time: a blocked disk would delay every batch.
_REST_SECONDS = 10.0
_MAX_WAL_BYTES = 64 * 2**20
_CACHE_KIB = 16 * 1024

_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        # All values fit their columns; an error means that the schema is damaged.
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    }
)
_LOST_SCHEMA = ("no such table", "no such column", "has no column")


@dataclass
class Tally:
    """Counts of one folder's store in this process."""

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
    """The connection of one thread, opened at its first use and after its files were replaced."""

    def __init__(self, wal_bytes: int) -> None:
        self.lock = threading.RLock()
        self.file: Path | None = None
        self._raw: sqlite3.Connection | None = None
        self._wal_bytes = wal_bytes
        self._seen: dict[Path, tuple[int, int]] = {}

    def open(self, location: Location, *, create: bool) -> sqlite3.Connection:
        """Return a connection to the folder's current file."""
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
        """Close the connection; the next use opens it again."""
        raw, self._raw = self._raw, None
        if raw is not None:
            self._restore_shm()
            self._seen = {}
            with contextlib.suppress(sqlite3.Error):
                raw.close()

    def _is_current(self) -> bool:
        """Whether the open files are still those of the folder; restores a truncated ``-shm``."""
        assert self.file is not None
        self._restore_shm()
        now = dict(_inodes(self.file))
        return all(now.get(path, (0, 0))[0] == inode for path, (inode, _) in self._seen.items())

    def _restore_shm(self) -> None:
        """Extend a truncated ``-shm`` file; SQLite detects the zeros and rebuilds it."""
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
        The maximum size of the store.
    create_folder : bool, default=True
        Whether a missing folder is created.
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
        """Counts of this process."""
        return _TALLIES.setdefault(self.folder, Tally())

    def attempt(
        self, work: Callable[[sqlite3.Connection], T], otherwise: T, *, writing: bool = False
    ) -> T:
        """Run a function on the database, or return a default if it fails.

        Parameters
        ----------
        work : callable
            Takes an open connection. It may run twice, so its effects outside the database must be
            repeatable.
        otherwise : object
            The default.
        writing : bool, default=False
            Whether the function writes; a missing folder or file is then created.

        Returns
        -------
        result : object
            The result of `work`, or `otherwise`.
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
        """Delete this host's file, if it exists; the next write creates a new one."""
        try:
            self._location.discard(self._location.find(create=False))
        except FileNotFoundError:
            return
        except (OSError, sqlite3.Error) as error:
            self._warn(error)

    def current_file(self) -> Path | None:
        """Return this host's file, or None."""
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
            # A connection that is created during a fork would be inherited by the child.
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
        """Delete a damaged file; return whether a second attempt may succeed."""
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
                f"the store in {str(self.folder)!r} does not work ({error}). Results are correct, "
                "but rows are not cached. Check the folder, its "
                "permissions and the free disk space, or choose another `cache`.",
                StoreWarning,
                stacklevel=2,
            )


@dataclass
class _Failure:
    error: Exception


_DATABASES: weakref.WeakSet[Database] = weakref.WeakSet()
# Kept for the life of the process, so that a new handle to a broken store does not warn again.
_TALLIES: dict[Path, Tally] = {}


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of a block's changes, or none of them."""
    # Threads of this process wait here: SQLite would let them sleep and look again.
    with _WRITING:
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
    """Return the maximum size of a store's log, in bytes."""
    return min(_MAX_WAL_BYTES, max_bytes // 8)


def chunked(items: list[T], size: int = MAX_VARIABLES) -> Iterator[list[T]]:
    """Split a list into parts that fit into one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))


def marks(items: list[bytes]) -> str:
    """Return the placeholders of an IN clause."""
    return ",".join("?" * len(items))


def _configure(connection: sqlite3.Connection, wal_bytes: int) -> None:
    pragmas = {
        # A power failure may lose the last rows, never the file; a kill loses nothing.
        "synchronous": "NORMAL",
        "mmap_size": 0,
        "cache_size": -_CACHE_KIB,
        # SQLite reports damaged pages and does not follow them.
        "cell_size_check": "ON",
        "secure_delete": "OFF",
        "temp_store": "MEMORY",
        "trusted_schema": "OFF",
        "wal_autocheckpoint": max(1, wal_bytes // 2 // PAGE_BYTES),
        "journal_size_limit": wal_bytes,
    }
    # Text is read as bytes: damaged text may not be UTF-8.
    connection.text_factory = bytes
    for name, value in pragmas.items():
        connection.execute(f"PRAGMA {name}={value}")
    # The first read opens the log and the ``-shm`` file, whose inodes are checked from now on.
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _inodes(file: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    for path in database_files(file):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield path, (status.st_ino, status.st_size)


def _code(error: Exception) -> int:
    """Return SQLite's code of an error; 0 for errors of Python or of the system."""
    return getattr(error, "sqlite_errorcode", 0)


def _is_damage(error: Exception) -> bool:
    code = _code(error)
    return (
        code & 0xFF in _DAMAGE
        or code == sqlite3.SQLITE_IOERR_SHORT_READ
        or any(sign in str(error) for sign in _LOST_SCHEMA)
    )


def _before_fork() -> None:
    """Wait for all threads and close their connections, which a child must not inherit."""
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
    # Counts and warnings belong to a process.
    _TALLIES.clear()


def _close_all() -> None:
    for database in list(_DATABASES):
        database.close()


_FORK_HELD: list[Connection] = []
_NEW_CONNECTION = threading.Lock()
# Open at every fork: who holds it holds the lock of a connection, which a fork waits for.
_WRITING = threading.Lock()
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_child,
    )
