"""The rows of one recipe: lookup, read, write, claim.

A row's name in the database is a digest of the recipe, of the storage dtype and of the row's key,
so float16 and float32 stores in one folder do not share rows.
"""

import copy
import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray
from . import _claims
from ._codec import RowFormat, Storage, check_rows, decode_row, encode_rows, narrow, widen
from ._database import Database, chunked, marks, transaction
from ._eviction import Recency, delete_rows, empty_log, file_budget, make_room, pages_for

_NAME_BYTES = 16
# The maximum size of a transaction: other writers wait for it.
_MAX_TRANSACTION_BYTES = 16 * 2**20
_FIRST_POLL_SECONDS = 0.005
_LAST_POLL_SECONDS = 0.2


class RecipeRows:
    """The rows of one recipe, as returned by :meth:`FeatureStore.rows`.

    The methods return positions in their argument `keys`. Of a repeated key, only the first
    position is ever missing or claimed.

    Parameters
    ----------
    database : Database
        The database of the rows.
    recency : Recency
        The times of their last use.
    recipe : str
        Digest of everything but the image that the rows depend on.
    text : str
        Description of the recipe.
    storage : {"float32", "float16", "bfloat16"}
        The storage dtype of float32 rows.
    max_bytes : int
        The maximum size of the store.
    """

    def __init__(
        self,
        database: Database,
        recency: Recency,
        recipe: str,
        text: str,
        storage: Storage,
        max_bytes: int,
    ) -> None:
        self.recipe = recipe
        self._database = database
        self._recency = recency
        self._text = text
        self._storage = storage
        self._max_bytes = max_bytes
        # Whose claims these are; None: those of the thread that calls.
        self._claimant: int | None = None
        self._prefix = hashlib.blake2b(f"{recipe}\0{storage}\0".encode(), digest_size=_NAME_BYTES)

    def for_workers(self) -> Self:
        """Return the same rows, whose claims are this thread's whichever thread makes them."""
        shared = copy.copy(self)
        shared._claimant = threading.get_ident()
        return shared

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the positions of the keys whose rows are not in the store.

        Parameters
        ----------
        keys : sequence of str
            Digests of images.

        Returns
        -------
        positions : list of int
            Positions in ascending order; of a repeated key, only the first.
        """
        first = self._first_positions(keys)
        known = self._present(first)
        absent = [position for name, position in first.items() if name not in known]
        self._database.tally.count(misses=len(absent))
        return absent

    def get_many(self, keys: Sequence[str]) -> tuple[npt.NDArray[np.bool_], AnyArray]:
        """Read rows.

        Parameters
        ----------
        keys : sequence of str
            Digests of images.

        Returns
        -------
        found : ndarray of shape (n_keys,), dtype=bool
            Which rows were read.
        values : ndarray of shape (n_found, ...)
            Their values, in the order of `keys`; of shape (0,) if no row was found.
        """
        names = self._names(keys)
        positions: dict[bytes, list[int]] = {}
        for position, name in enumerate(names):
            positions.setdefault(name, []).append(position)
        reader = _Reader(positions, len(names))
        for chunk in chunked(list(positions)):
            self._database.attempt(lambda c, chunk=chunk: reader.read(c, chunk), None)  # type: ignore[misc]
        self._drop(reader.bad)
        found = reader.found
        self._recency.touch([name for name in positions if found[positions[name][0]]])
        n_found = int(found.sum())
        self._database.tally.count(hits=n_found, misses=len(names) - n_found)
        return found, reader.values()

    def put_many(self, keys: Sequence[str], values: AnyArray) -> None:
        """Write rows and release the claims on them. Existing rows are not changed.

        Parameters
        ----------
        keys : sequence of str
            Digests of images.
        values : ndarray of shape (n_keys, ...)
            The rows: float32, converted to the storage dtype, or uint8, bool, int64, float16 or
            float64, stored unchanged.

        Raises
        ------
        ValueError
            If there is not one row for each key, or the dtype cannot be stored.
        """
        values = np.asarray(values)
        if values.ndim == 0 or len(values) != len(keys):
            raise ValueError(f"expected one row for each of {len(keys)} keys, got {values.shape}")
        code = check_rows(values, self._storage)
        names = self._names(keys)
        per_row = max(1, values[:1].nbytes)
        step = max(1, min(_MAX_TRANSACTION_BYTES, self._database.wal_bytes // 2) // per_row)
        for start in range(0, len(names), step):
            part = slice(start, start + step)
            blobs = list(encode_rows(names[part], narrow(values[part], code), code))
            self._write(dict(zip(names[part], blobs, strict=True)))

    def roundtrip(self, values: AnyArray) -> AnyArray:
        """Return rows as a later read will return them.

        Computed rows pass through this function, so that a hit equals the earlier miss bit for bit.

        Parameters
        ----------
        values : ndarray of shape (n_rows, ...)
            Rows, as for :meth:`put_many`.

        Returns
        -------
        values : ndarray of shape (n_rows, ...)
            The same rows, rounded to the storage dtype and back.
        """
        code = check_rows(values, self._storage)
        return widen(narrow(values, code), code)

    def claim(self, keys: Sequence[str]) -> list[int]:
        """Choose the rows that this thread should compute now.

        A claim ends when its row is put or released, or when its process dies. Processes that claim
        some rows at once share the work on the same keys.

        Parameters
        ----------
        keys : sequence of str
            Digests of images.

        Returns
        -------
        positions : list of int
            Rows that are neither in the store nor claimed by others, in ascending order; all
            missing rows if the store does not work.
        """
        first = self._first_positions(keys)
        known = self._present(first)
        absent = [name for name in first if name not in known]
        if not absent:
            return []
        owner = self._owner()
        taken = self._database.attempt(
            lambda c: _claims.take(c, absent, owner), absent, writing=True
        )
        return [first[name] for name in taken]

    def wait(self, keys: Sequence[str], timeout: float) -> list[int]:
        """Wait for rows that other threads compute. Put or release your own claims first.

        Parameters
        ----------
        keys : sequence of str
            Digests of images.
        timeout : float
            The maximum time to wait, in seconds.

        Returns
        -------
        positions : list of int
            Rows that are not in the store because their claim or the timeout ended.
        """
        first = self._first_positions(keys)
        owner = self._owner()
        deadline = time.monotonic() + timeout
        pause = _FIRST_POLL_SECONDS
        alone: tuple[list[bytes], set[bytes]] = (list(first), set())
        while True:
            absent, pending = self._database.attempt(lambda c: _progress(c, first, owner), alone)
            remaining = deadline - time.monotonic()
            if not pending or remaining <= 0:
                return [first[name] for name in absent]
            time.sleep(min(pause, remaining))
            pause = min(_LAST_POLL_SECONDS, 1.5 * pause)

    def release(self, keys: Sequence[str]) -> None:
        """Release this thread's claims on rows that it will not compute.

        Parameters
        ----------
        keys : sequence of str
            Digests of images.
        """
        names, owner = self._names(keys), self._owner()
        self._database.attempt(lambda c: _claims.give_back(c, names, owner), None)

    def _owner(self) -> str:
        return _claims.this_thread(self._claimant)

    def _names(self, keys: Sequence[str]) -> list[bytes]:
        names = []
        for key in keys:
            state = self._prefix.copy()
            state.update(key.encode())
            names.append(state.digest())
        return names

    def _first_positions(self, keys: Sequence[str]) -> dict[bytes, int]:
        first: dict[bytes, int] = {}
        for position, name in enumerate(self._names(keys)):
            first.setdefault(name, position)
        return first

    def _present(self, names: Iterable[bytes]) -> set[bytes]:
        nothing: set[bytes] = set()
        return self._database.attempt(lambda c: _claims.present(c, names), nothing)

    def _write(self, blobs: dict[bytes, bytes]) -> None:
        budget = file_budget(self._max_bytes)
        if pages_for([len(blob) for blob in blobs.values()]) > budget // 2:
            return  # too large for the store: it would evict all other rows
        self._database.attempt(lambda c: self._insert(c, blobs, budget), None, writing=True)

    def _insert(
        self, connection: sqlite3.Connection, blobs: dict[bytes, bytes], budget: int
    ) -> None:
        with transaction(connection):
            known = _claims.present(connection, blobs)
            new = {name: blob for name, blob in blobs.items() if name not in known}
            make_room(connection, pages_for([len(blob) for blob in new.values()]), budget)
            recipe, now = self._recipe_id(connection), time.time_ns()
            entries = []
            for name, blob in new.items():
                cursor = connection.execute("INSERT INTO payloads(data) VALUES (?)", (blob,))
                entries.append((name, cursor.lastrowid, recipe, len(blob), now))
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", entries)
            connection.executemany("DELETE FROM claims WHERE name = ?", [(name,) for name in blobs])
        empty_log(connection, self._database.wal_bytes)

    def _recipe_id(self, connection: sqlite3.Connection) -> int:
        row = connection.execute(
            "SELECT id FROM recipes WHERE digest = ?", (self.recipe,)
        ).fetchone()
        if row is not None:
            return int(row[0])
        cursor = connection.execute(
            "INSERT INTO recipes(digest, text) VALUES (?, ?)", (self.recipe, self._text)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _drop(self, bad: list[tuple[bytes, int]]) -> None:
        if bad:
            self._database.tally.count(repaired=len(bad))
            self._database.attempt(lambda c: _delete(c, bad), None)


class _Reader:
    """Reads rows into one array, which is allocated when the first row is known."""

    def __init__(self, positions: dict[bytes, list[int]], n_rows: int) -> None:
        self.found = np.zeros(n_rows, dtype=bool)
        self.bad: list[tuple[bytes, int]] = []
        self._positions = positions
        self._format: RowFormat | None = None
        self._rows: AnyArray | None = None

    def read(self, connection: sqlite3.Connection, names: list[bytes]) -> None:
        cursor = connection.execute(
            "SELECT name, payload, data FROM entries LEFT JOIN payloads ON id = payload"  # noqa: S608 - question marks
            f" WHERE name IN ({marks(names)})",
            names,
        )
        for name, payload, blob in cursor:
            row = decode_row(name, blob)
            if row is None or not self._place(name, *row):
                self.bad.append((name, payload))

    def values(self) -> AnyArray:
        """Return the rows that were found, in the dtype of a read."""
        if self._format is None or self._rows is None:
            return np.empty(0, dtype=np.float32)
        rows = self._rows if self.found.all() else self._rows[self.found]
        wide = widen(rows, self._format.code)
        return wide.reshape(len(wide), *self._format.shape).astype(self._format.dtype, copy=False)

    def _place(self, name: bytes, row_format: RowFormat, row: AnyArray) -> bool:
        if self._format is None:
            self._format = row_format
            self._rows = np.empty((len(self.found), row.size), dtype=row.dtype)
        if row_format != self._format or name not in self._positions:
            return False
        assert self._rows is not None
        for position in self._positions[name]:
            self._rows[position] = row
            self.found[position] = True
        return True


def _progress(
    connection: sqlite3.Connection, first: dict[bytes, int], owner: str
) -> tuple[list[bytes], set[bytes]]:
    """Names that are absent, and those of them that someone else computes."""
    # Claims first: a row that is put between the two statements is then present, not lost.
    pending = _claims.held_by_others(connection, first, owner)
    known = _claims.present(connection, first)
    return [name for name in first if name not in known], pending - known


def _delete(connection: sqlite3.Connection, rows: list[tuple[bytes, int]]) -> None:
    with transaction(connection):
        delete_rows(connection, rows)
