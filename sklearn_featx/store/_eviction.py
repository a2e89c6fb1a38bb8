"""Keeping a store within its size: least recently used rows leave first.

Room is made before rows are written, in the same transaction, so the file never grows beyond its
budget: pages of deleted rows are used again. Only `shrink` gives them back to the disk.

When a row was last used is kept in memory and written now and then for thousands of rows at once,
so that reading does not become writing.
"""

import os
import sqlite3
import time

from ._database import Database, log_limit, transaction
from ._location import PAGE_BYTES

# An eviction frees this share of the budget at least: it sorts all entries, so it should be rare.
_EVICTED_SHARE = 0.05
# Pages beside the rows' own: inner nodes, entries, the map that lets pages move.
_SPARE_PAGES = 8
# How often, and after which pauses (s), to try to empty a log that others use.
_LOG_PAUSES = (0.002, 0.005, *(0.01,) * 200)
_FLUSH_ROWS = 10_000
_FLUSH_SECONDS = 30.0


def file_budget(max_bytes: int) -> int:
    """Pages that the database file may have; the rest of `max_bytes` is for its log."""
    # The log grows past its limit while several writers wait for readers to let it be emptied:
    # with a reserve of three limits, four writers came to 0.1 % above `max_bytes` once.
    return (max_bytes - 4 * log_limit(max_bytes)) // PAGE_BYTES


def pages_for(sizes: list[int]) -> int:
    """Pages that rows of these sizes take, rather too many than too few."""
    small = sum(size for size in sizes if size <= PAGE_BYTES // 8)
    large = sum(size // PAGE_BYTES + 2 for size in sizes if size > PAGE_BYTES // 8)
    return int(1.2 * small / PAGE_BYTES) + large + _SPARE_PAGES


def make_room(connection: sqlite3.Connection, n_pages: int, budget: int) -> None:
    """Delete the least recently used rows until `n_pages` more fit into the budget.

    Parameters
    ----------
    connection : sqlite3.Connection
        A connection inside a write transaction.
    n_pages : int
        Pages about to be written.
    budget : int
        Pages that the file may have.
    """
    excess = _used_pages(connection) + n_pages - budget
    if excess > 0:
        _evict(connection, max(excess, int(_EVICTED_SHARE * budget)))


def shrink(connection: sqlite3.Connection, budget: int) -> int:
    """Delete rows until the store fits into the budget, and give free pages back to the disk.

    Parameters
    ----------
    connection : sqlite3.Connection
        A connection outside of any transaction.
    budget : int
        Pages that the file may have.

    Returns
    -------
    n_deleted : int
        Rows deleted.
    """
    n_deleted = 0
    with transaction(connection):
        excess = _used_pages(connection) - budget
        if excess > 0:
            n_deleted = _evict(connection, excess)
    while _pragma(connection, "freelist_count"):
        # In steps: each moves pages through the log, which is emptied in between.
        connection.execute("PRAGMA incremental_vacuum(32)").fetchall()
        empty_log(connection, 0)
    return n_deleted


def empty_log(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Move the log into the database when it has grown beyond its limit.

    SQLite does so after commits, but never waits for readers: under constant reading the log would
    grow for ever. Here readers are waited for; so are others that empty the log, for whom SQLite
    does not wait.
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
    """Empty the log; True when somebody else was busy with it."""
    return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])


class Recency:
    """When rows were last used, collected in memory.

    Parameters
    ----------
    database : Database
        Where it is written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: dict[bytes, int] = {}
        self._flushed = time.monotonic()
        database.before_close = self.flush

    def touch(self, names: list[bytes]) -> None:
        """Note that rows were used; now and then, write it down."""
        self._used.update(dict.fromkeys(names, time.time_ns()))
        late = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if late or len(self._used) >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write down what was noted."""
        # No lock, which a fork could leave locked: two threads here may at worst lose a note.
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
    """Free pages by deleting rows; remembered files go last, when no rows are left."""
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
    """Delete entries with their payloads, unless an entry was written anew in the meantime."""
    connection.executemany("DELETE FROM entries WHERE name = ? AND payload IS ?", rows)
    connection.executemany("DELETE FROM payloads WHERE id = ?", [(row[1],) for row in rows])
