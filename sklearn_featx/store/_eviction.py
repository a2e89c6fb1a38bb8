"""Eviction: the least recently used rows are deleted so that a store keeps its maximum size.

Rows are deleted before others are written, in the same transaction, so the file never exceeds its
budget: pages of deleted rows are reused. Only `shrink` returns them to the disk.

The time of a row's last use is collected in memory and written for thousands of rows together, so
that a read does not cause a write.
"""

import os
import sqlite3
import time

from ._database import Database, log_limit, transaction
from ._location import PAGE_BYTES

# The minimum share of the budget that an eviction frees. It sorts all entries and should be rare.
_EVICTED_SHARE = 0.05
# Pages in addition to those of the rows: inner nodes, entries, the pointer map of auto_vacuum.
_SPARE_PAGES = 8
# Pauses (s) between the attempts to empty a log that others use.
_LOG_PAUSES = (0.002, 0.005, *(0.01,) * 200)
_FLUSH_ROWS = 10_000
_FLUSH_SECONDS = 30.0


def file_budget(max_bytes: int) -> int:
    """Return the maximum number of pages of the database file; the rest is for its log."""
    # The log exceeds its limit while several writers wait for readers before it can be emptied.
    # With a reserve of three limits, four writers once exceeded `max_bytes`.
    return (max_bytes - 4 * log_limit(max_bytes)) // PAGE_BYTES


def pages_for(sizes: list[int]) -> int:
    """Estimate the number of pages that rows of these sizes need, on the high side."""
    small = sum(size for size in sizes if size <= PAGE_BYTES // 8)
    large = sum(size // PAGE_BYTES + 2 for size in sizes if size > PAGE_BYTES // 8)
    return int(1.2 * small / PAGE_BYTES) + large + _SPARE_PAGES


def make_room(connection: sqlite3.Connection, n_pages: int, budget: int) -> None:
    """Delete the least recently used rows until `n_pages` more pages fit into the budget.

    Parameters
    ----------
    connection : sqlite3.Connection
        A connection with an open write transaction.
    n_pages : int
        Number of pages that will be written.
    budget : int
        Maximum number of pages of the file.
    """
    excess = _used_pages(connection) + n_pages - budget
    if excess > 0:
        _evict(connection, max(excess, int(_EVICTED_SHARE * budget)))


def shrink(connection: sqlite3.Connection, budget: int) -> int:
    """Delete rows until the store fits into the budget, and return free pages to the disk.

    Parameters
    ----------
    connection : sqlite3.Connection
        A connection without an open transaction.
    budget : int
        Maximum number of pages of the file.

    Returns
    -------
    n_deleted : int
        Number of deleted rows.
    """
    n_deleted = 0
    with transaction(connection):
        excess = _used_pages(connection) - budget
        if excess > 0:
            n_deleted = _evict(connection, excess)
    while _pragma(connection, "freelist_count"):
        # Each step moves pages through the log, which is emptied after it.
        connection.execute("PRAGMA incremental_vacuum(32)").fetchall()
        empty_log(connection, 0)
    return n_deleted


def empty_log(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Move the log into the database if it exceeds its limit.

    SQLite does so after commits, but never waits for readers, so the log would grow without limit
    under constant reading. This function waits for readers and for other processes that empty the
    log.
    """
    file = os.fsdecode(connection.execute("PRAGMA database_list").fetchone()[2])
    for pause in _LOG_PAUSES:
        if _log_bytes(file) <= max_bytes or not _truncate_log(connection):
            return
        time.sleep(pause)


def _log_bytes(file: str) -> int:
    try:
        return os.stat(f"{file}-wal").st_size  # noqa: PTH116 - once per write: no Path
    except FileNotFoundError:
        return 0


def _truncate_log(connection: sqlite3.Connection) -> bool:
    """Empty the log; return True if another process was using it."""
    return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])


class Recency:
    """The times of the rows' last use, collected in memory.

    Parameters
    ----------
    database : Database
        The database to which they are written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: dict[bytes, int] = {}
        self._flushed = time.monotonic()
        database.before_close = self.flush

    def touch(self, names: list[bytes]) -> None:
        """Record that rows were used; write the collected times from time to time."""
        self._used.update(dict.fromkeys(names, time.time_ns()))
        late = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if late or len(self._used) >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the collected times."""
        # Without a lock, which would stay locked after a fork, two threads may lose a few times.
        used, self._used = self._used, {}
        self._flushed = time.monotonic()
        if used:
            rows = [(when, name) for name, when in list(used.items())]
            self._database.attempt(lambda connection: _write_recency(connection, rows), None)


def _write_recency(connection: sqlite3.Connection, rows: list[tuple[int, bytes]]) -> None:
    with transaction(connection):
        connection.executemany("UPDATE entries SET used = ? WHERE name = ?", rows)


def _used_pages(connection: sqlite3.Connection) -> int:
    return _pragma(connection, "page_count") - _pragma(connection, "freelist_count")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _evict(connection: sqlite3.Connection, n_pages: int) -> int:
    """Free pages by deleting rows; the records of files are deleted last, after all rows."""
    n_deleted = 0
    target = _used_pages(connection) - n_pages
    while _used_pages(connection) > target:
        n_victims = _delete_oldest(connection, _used_pages(connection) - target)
        if not n_victims:
            connection.execute("DELETE FROM files")
            break
        n_deleted += n_victims
    connection.execute("DELETE FROM recipes WHERE id NOT IN (SELECT DISTINCT recipe FROM entries)")
    return n_deleted


def _delete_oldest(connection: sqlite3.Connection, n_pages: int) -> int:
    n_rows, n_bytes = connection.execute("SELECT count(*), total(size) FROM entries").fetchone()
    n_victims = int(n_pages * PAGE_BYTES * n_rows / max(n_bytes, 1)) + 1
    victims = connection.execute(
        "SELECT name, payload FROM entries ORDER BY used, payload LIMIT ?", (n_victims,)
    ).fetchall()
    delete_rows(connection, victims)
    return len(victims)


def delete_rows(connection: sqlite3.Connection, rows: list[tuple[bytes, int]]) -> None:
    """Delete entries with their payloads, except entries that were replaced in the meantime."""
    connection.executemany("DELETE FROM entries WHERE name = ? AND payload IS ?", rows)
    connection.executemany("DELETE FROM payloads WHERE id = ?", [(row[1],) for row in rows])
