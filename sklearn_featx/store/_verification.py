"""Verification of a store: check every row and remove damaged ones."""

import contextlib
import sqlite3
from dataclasses import dataclass

from . import _file_digests
from ._codec import decode_row
from ._database import Database, transaction
from ._eviction import delete_rows

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Verification:
    """The result of :meth:`FeatureStore.verify`.

    Parameters
    ----------
    n_rows : int
        Number of rows that were checked.
    n_removed : int
        Number of damaged rows and file records that were removed.
    rebuilt : bool
        Whether the database was damaged, so that all its rows were removed.
    """

    n_rows: int
    n_removed: int
    rebuilt: bool


def verify(database: Database) -> Verification:
    """Check every row of a store and the structure of its file; remove damaged parts.

    Parameters
    ----------
    database : Database
        The database of the store.

    Returns
    -------
    verification : Verification
        The counts.
    """
    before = database.tally.repaired
    nothing: tuple[int, list[tuple[bytes, int]]] = (0, [])
    no_files: list[bytes] = []
    n_rows, bad = database.attempt(_check_rows, nothing)
    files = database.attempt(_file_digests.damaged_records, no_files)
    n_removed = len(bad) + len(files)
    database.tally.count(repaired=n_removed)
    database.attempt(lambda c: _remove(c, bad, files), None)
    sound = database.attempt(_is_sound, True)
    if not sound:
        database.tally.count(repaired=1)
        database.discard()
    # `attempt` has already deleted a file that could not be read to its end.
    rebuilt = database.tally.repaired - before > n_removed
    return Verification(n_rows, n_removed, rebuilt)


def _check_rows(connection: sqlite3.Connection) -> tuple[int, list[tuple[bytes, int]]]:
    n_rows = 0
    bad: list[tuple[bytes, int]] = []
    last = b""
    while True:
        rows = connection.execute(
            "SELECT name, payload, data FROM entries LEFT JOIN payloads ON id = payload"
            " WHERE name > ? ORDER BY name LIMIT ?",
            (last, _ROWS_AT_ONCE),
        ).fetchall()
        if not rows:
            return n_rows, bad
        n_rows += len(rows)
        bad += [(name, payload) for name, payload, blob in rows if decode_row(name, blob) is None]
        last = rows[-1][0]


def _remove(
    connection: sqlite3.Connection, rows: list[tuple[bytes, int]], files: list[bytes]
) -> None:
    _file_digests.forget(connection, files)
    with transaction(connection):
        delete_rows(connection, rows)
        connection.execute("DELETE FROM payloads WHERE id NOT IN (SELECT payload FROM entries)")


def _is_sound(connection: sqlite3.Connection) -> bool:
    with contextlib.suppress(sqlite3.DatabaseError):
        return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == b"ok")
    return False
