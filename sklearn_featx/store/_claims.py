"""Who computes which row now, so that processes that want the same rows share the work.

A claim belongs to one thread of one process. It ends when the row is put, when it is released, when
its process is gone, or after ten minutes: a claim that outlives its reason costs a computation, and
one that ends too early costs one as well; neither costs a result.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable

from ._database import chunked, marks, transaction
from ._process import is_alive, process_token

# Long enough for one batch on a slow machine; it only ever counts where a dead process cannot be
# told from a living one, or where a living one is stuck.
_LEASE_SECONDS = 600


def present(connection: sqlite3.Connection, names: Iterable[bytes]) -> set[bytes]:
    """Those of the names whose rows are in the store."""
    return {
        name
        for chunk in chunked(list(names))
        for (name,) in connection.execute(
            f"SELECT name FROM entries WHERE name IN ({marks(chunk)})",  # noqa: S608 - question marks
            chunk,
        )
    }


def take(connection: sqlite3.Connection, names: list[bytes], limit: int | None) -> list[bytes]:
    """Claim the first rows that are neither in the store nor claimed by others.

    Parameters
    ----------
    connection : sqlite3.Connection
        A connection outside of any transaction.
    names : list of bytes
        Distinct names of rows, in the order of preference.
    limit : int or None
        The most to claim.

    Returns
    -------
    taken : list of bytes
        The names that this thread holds now.
    """
    with transaction(connection):
        _sweep(connection)
        unavailable = present(connection, names) | held_by_others(connection, names)
        taken = [name for name in names if name not in unavailable][:limit]
        mine, now = _this_thread(), int(time.time())
        connection.executemany(
            "INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", [(name, mine, now) for name in taken]
        )
    return taken


def give_back(connection: sqlite3.Connection, names: list[bytes]) -> None:
    """End this thread's claims on rows."""
    mine = _this_thread()
    with transaction(connection):
        connection.executemany(
            "DELETE FROM claims WHERE name = ? AND owner = ?", [(name, mine) for name in names]
        )


def held_by_others(connection: sqlite3.Connection, names: Iterable[bytes]) -> set[bytes]:
    """Those of the names that another thread or process computes now."""
    claims = [
        claim
        for chunk in chunked(list(names))
        for claim in connection.execute(
            f"SELECT name, owner, since FROM claims WHERE name IN ({marks(chunk)})",  # noqa: S608 - question marks
            chunk,
        )
    ]
    alive = {owner: _holds(owner) for owner in {owner for _, owner, _ in claims}}
    now = time.time()
    return {name for name, owner, since in claims if alive[owner] and _within_lease(since, now)}


def _sweep(connection: sqlite3.Connection) -> None:
    """Delete the claims of processes that are gone: only rows in work have any, so few do."""
    owners = [owner for (owner,) in connection.execute("SELECT DISTINCT owner FROM claims")]
    dead = [(owner,) for owner in owners if not _lives(owner)]
    connection.executemany("DELETE FROM claims WHERE CAST(owner AS BLOB) = ?", dead)


def _this_thread() -> str:
    return f"{process_token()}/{threading.get_ident()}"


def _holds(owner: object) -> bool:
    """Whether a claim of this owner keeps us from computing."""
    return _lives(owner) and owner != _this_thread().encode()


def _lives(owner: object) -> bool:
    return isinstance(owner, bytes) and is_alive(owner.decode(errors="replace").partition("/")[0])


def _within_lease(since: object, now: float) -> bool:
    return isinstance(since, int) and abs(now - since) < _LEASE_SECONDS
