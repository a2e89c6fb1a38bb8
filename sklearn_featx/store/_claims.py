"""Claims: processes that need the same rows share the computation.

A claim belongs to one thread of one process, and to the workers of that thread. It ends when the
row is put, when the claim is released, when the process ends, or after ten minutes. A claim that
ends too early or too late costs a computation, never a result.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable

from ._database import chunked, marks, transaction
from ._process import is_alive, process_token

# Long enough for one batch on a slow machine. The lease matters only if a dead process cannot be
# distinguished from a living one, or a living one hangs.
_LEASE_SECONDS = 600


def present(connection: sqlite3.Connection, names: Iterable[bytes]) -> set[bytes]:
    """Return the names whose rows are in the store."""
    return {
        name
        for chunk in chunked(list(names))
        for (name,) in connection.execute(
            f"SELECT name FROM entries WHERE name IN ({marks(chunk)})",  # noqa: S608 - question marks
            chunk,
        )
    }


def take(connection: sqlite3.Connection, names: list[bytes], owner: str) -> list[bytes]:
    """Claim the rows that are neither in the store nor claimed by others.

    Parameters
    ----------
    connection : sqlite3.Connection
        A connection without an open transaction.
    names : list of bytes
        Distinct names of rows.
    owner : str
        Result of `this_thread`.

    Returns
    -------
    taken : list of bytes
        The names that the owner holds now.
    """
    with transaction(connection):
        _sweep(connection)
        unavailable = present(connection, names) | held_by_others(connection, names, owner)
        taken = [name for name in names if name not in unavailable]
        now = int(time.time())
        connection.executemany(
            "INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", [(name, owner, now) for name in taken]
        )
    return taken


def give_back(connection: sqlite3.Connection, names: list[bytes], owner: str) -> None:
    """End an owner's claims on rows."""
    with transaction(connection):
        connection.executemany(
            "DELETE FROM claims WHERE name = ? AND owner = ?", [(name, owner) for name in names]
        )


def held_by_others(
    connection: sqlite3.Connection, names: Iterable[bytes], owner: str
) -> set[bytes]:
    """Those of the names that are claimed by others than the owner now."""
    claims = [
        claim
        for chunk in chunked(list(names))
        for claim in connection.execute(
            f"SELECT name, owner, since FROM claims WHERE name IN ({marks(chunk)})",  # noqa: S608 - question marks
            chunk,
        )
    ]
    alive = {other: _holds(other, owner) for other in {other for _, other, _ in claims}}
    now = time.time()
    return {name for name, other, since in claims if alive[other] and _within_lease(since, now)}


def _sweep(connection: sqlite3.Connection) -> None:
    """Delete the claims of ended processes. Only rows under computation have claims: few exist."""
    owners = [owner for (owner,) in connection.execute("SELECT DISTINCT owner FROM claims")]
    dead = [(owner,) for owner in owners if not _lives(owner)]
    connection.executemany("DELETE FROM claims WHERE CAST(owner AS BLOB) = ?", dead)


def this_thread(ident: int | None = None) -> str:
    """Name a thread of this process, the one that calls or another, as the owner of claims."""
    return f"{process_token()}/{threading.get_ident() if ident is None else ident}"


def _holds(other: object, owner: str) -> bool:
    """Whether a claim of another keeps an owner from computing."""
    return _lives(other) and other != owner.encode()


def _lives(owner: object) -> bool:
    return isinstance(owner, bytes) and is_alive(owner.decode(errors="replace").partition("/")[0])


def _within_lease(since: object, now: float) -> bool:
    return isinstance(since, int) and abs(now - since) < _LEASE_SECONDS
