"""FeatureStore: the handle of a store, and what an owner does with one."""

import os
import re
import sqlite3
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._messages import shown
from . import _file_digests
from ._codec import STORAGES, Storage
from ._database import Database
from ._eviction import Recency, file_budget, shrink
from ._location import database_files
from ._rows import Rows
from ._verification import Verification, verify

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", start=1)},
}
# Below this, pages of 64 KiB and the log leave no room for rows.
MIN_SIZE = 8 * 2**20


@dataclass(frozen=True)
class StoreInfo:
    """What is in a store, and what this process did with it.

    Parameters
    ----------
    path : str
        The store's folder.
    n_rows : int
        Rows in it, of all recipes.
    n_files : int
        Files whose content is known without opening them.
    n_bytes : int
        Size on disk.
    max_size : int
        The most that it may take, in bytes.
    recipes : dict of str to int
        For each recipe, in words where it has any, the number of its rows.
    hits : int
        Rows that this process read.
    misses : int
        Rows that this process looked for in vain.
    repaired : int
        Damaged rows and files that this process removed.
    """

    path: str
    n_rows: int
    n_files: int
    n_bytes: int
    max_size: int
    recipes: dict[str, int]
    hits: int
    misses: int
    repaired: int


class FeatureStore:
    """Rows on disk, shared by all processes of a host, bounded in size.

    A store is a cache: whatever goes wrong with it ends in missing rows and in one `StoreWarning`.
    It is opened when it is first used. A copy, a pickle and a forked process hold its address and
    open it anew.

    The folder may hold other files. Each host keeps a file of its own in it, because SQLite's
    shared log does not work across hosts.

    Parameters
    ----------
    path : str or path-like
        The store's folder; made, readable by its owner only, when it does not exist. ``~`` is the
        home folder.
    max_size : int or str, default="10GB"
        The most that this host's file and log may take: bytes, or a number with a unit
        (``"500MB"``, ``"2GiB"``). At least 8 MiB. Least recently used rows leave first.
    storage : {"float32", "float16", "bfloat16"}, default="float32"
        How float32 rows are kept. float32 is exact; float16 keeps 11 significant bits up to 65504,
        beyond which values become infinite; bfloat16 keeps 8 in the range of float32. Rows of other
        dtypes are kept as they are.

    Raises
    ------
    ValueError
        If `max_size` or `storage` is not one of these.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_featx.store import FeatureStore
    >>> with tempfile.TemporaryDirectory() as folder, FeatureStore(folder) as store:
    ...     rows = store.rows("recipe of the trunk")
    ...     rows.put_many(["image 1", "image 2"], np.ones((2, 3), dtype=np.float32))
    ...     found, values = rows.get_many(["image 2", "image 3"])
    >>> found, values
    (array([ True, False]), array([[1., 1., 1.]], dtype=float32))
    """

    _create_folder = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_size: int | str = "10GB",
        storage: Storage = "float32",
    ) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise ValueError(f"path={shown(path)}: expected the path of a folder.")
        self.path = str(Path(path).expanduser().absolute())
        self.max_size = max_size
        self.storage: Storage = _check_storage(storage)
        self._max_bytes = parse_size(max_size)
        self._opened: _Opened | None = None

    def rows(self, recipe: str, recipe_text: str | None = None) -> Rows:
        """Get the rows of one recipe.

        Parameters
        ----------
        recipe : str
            Digest of all that the rows' numbers depend on, besides the image.
        recipe_text : str, default=None
            The recipe in words, for :meth:`info`.

        Returns
        -------
        rows : Rows
            All rows of one recipe have one shape and dtype.
        """
        opened = self._open()
        text = recipe if recipe_text is None else recipe_text
        return Rows(opened.database, opened.recency, recipe, text, self.storage, self._max_bytes)

    def file_digests(self, files: Sequence[tuple[str, int, int, int, int]]) -> list[str | None]:
        """Recall the digests of files' contents, without opening them.

        The rule: same path, size, modification time, change time and inode mean same content. Who
        doubts it does not ask, but reads the file.

        Parameters
        ----------
        files : sequence of (str, int, int, int, int)
            Absolute path, size, modification time (ns), change time (ns) and inode of each file.

        Returns
        -------
        digests : list of str or None
            One for each file; None when it is not known or has changed.
        """
        states = [_file_digests.FileState(*file) for file in files]
        database = self._open().database
        unknown: tuple[list[str | None], list[bytes]] = ([None] * len(states), [])
        digests, damaged = database.attempt(lambda c: _file_digests.recall(c, states), unknown)
        if damaged:
            database.tally.count(repaired=len(damaged))
            database.attempt(lambda c: _file_digests.forget(c, damaged), None)
        return digests

    def remember_files(
        self, files: Sequence[tuple[str, int, int, int, int]], digests: Sequence[str]
    ) -> None:
        """Remember the digests of files, but for those that changed within the last two seconds.

        Parameters
        ----------
        files : sequence of (str, int, int, int, int)
            As for `file_digests`, taken before the file was read.
        digests : sequence of str
            Digest of each file's content.
        """
        states = [_file_digests.FileState(*file) for file in files]
        self._open().database.attempt(
            lambda c: _file_digests.remember(c, states, digests), None, writing=True
        )

    def info(self) -> StoreInfo:
        """Tell what is in the store, and what this process did with it.

        Returns
        -------
        info : StoreInfo
            Counts, and the size on disk.
        """
        database = self._open().database
        nothing: tuple[dict[str, int], int] = ({}, 0)
        recipes, n_files = database.attempt(_count, nothing)
        tally = database.tally
        return StoreInfo(
            path=self.path,
            n_rows=sum(recipes.values()),
            n_files=n_files,
            n_bytes=_size_on_disk(database.current_file()),
            max_size=self._max_bytes,
            recipes=recipes,
            hits=tally.hits,
            misses=tally.misses,
            repaired=tally.repaired,
        )

    def verify(self) -> Verification:
        """Check every row's checksum and the file's structure; remove what is damaged.

        Returns
        -------
        verification : Verification
            How much was checked, and how much removed.
        """
        return verify(self._open().database)

    def prune(self, max_size: int | str | None = None) -> int:
        """Delete the least recently used rows and give free space back to the disk.

        Parameters
        ----------
        max_size : int or str, default=None
            The size to shrink to, as for the store; None: the store's own limit.

        Returns
        -------
        n_deleted : int
            Rows deleted.

        Raises
        ------
        ValueError
            If `max_size` is not a size.
        """
        opened = self._open()
        max_bytes = self._max_bytes if max_size is None else parse_size(max_size)
        opened.recency.flush()
        budget = file_budget(max_bytes)
        return opened.database.attempt(lambda c: shrink(c, budget), 0)

    def clear(self) -> None:
        """Delete all rows and all that is known of files: this host's, nothing else."""
        self._open().database.discard()

    def close(self) -> None:
        """Close this process's connections; the next use opens them again."""
        if self._opened is not None:
            self._opened.database.close()

    def _open(self) -> "_Opened":
        if self._opened is None:
            self._opened = _opened_at(
                _Address(Path(self.path), self._max_bytes, self._create_folder)
            )
        return self._opened

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., "FeatureStore"], tuple[Any, ...]]:
        return type(self), (self.path, self.max_size, self.storage)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureStore) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self.max_size!r}, {self.storage!r})"


def parse_size(size: int | str) -> int:
    """Read a size.

    Parameters
    ----------
    size : int or str
        Bytes, or a number with a unit: ``"500MB"`` (powers of 1000), ``"2GiB"`` (of 1024).

    Returns
    -------
    n_bytes : int
        The size.

    Raises
    ------
    ValueError
        If it is no size, or too small for a store.

    Examples
    --------
    >>> from sklearn_featx.store._store import parse_size
    >>> parse_size("500MB"), parse_size("2GiB")
    (500000000, 2147483648)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(size), re.IGNORECASE)
    if isinstance(size, bool) or match is None or match[2].upper() not in _UNITS:
        raise ValueError(
            f'max_size={shown(size)}: expected bytes or a size such as "500MB" or "2GiB"'
        )
    n_bytes = int(float(match[1]) * _UNITS[match[2].upper()])
    if n_bytes < MIN_SIZE:
        raise ValueError(f"max_size={shown(size)}: a store takes at least {MIN_SIZE} bytes (8 MiB)")
    return n_bytes


class _Address(NamedTuple):
    folder: Path
    max_bytes: int
    create_folder: bool


class _Opened:
    """What all handles with one address share in a process."""

    def __init__(self, address: _Address) -> None:
        self.database = Database(*address)
        self.recency = Recency(self.database)


_OPENED: weakref.WeakValueDictionary[_Address, _Opened] = weakref.WeakValueDictionary()


def _opened_at(address: _Address) -> _Opened:
    # Two threads may open the same address at once: both ways work, `setdefault` keeps one.
    return _OPENED.get(address) or _OPENED.setdefault(address, _Opened(address))


def _check_storage(storage: str) -> Any:
    if storage not in STORAGES:
        raise ValueError(f"storage={shown(storage)}: expected one of {', '.join(STORAGES)}")
    return storage


def _count(connection: sqlite3.Connection) -> tuple[dict[str, int], int]:
    recipes: dict[str, int] = {}
    for text, n_rows in connection.execute(
        "SELECT text, count(*) FROM entries LEFT JOIN recipes ON id = recipe GROUP BY recipe"
    ):
        words = text.decode(errors="replace") if isinstance(text, bytes) else "unknown"
        recipes[words] = recipes.get(words, 0) + n_rows
    return recipes, int(connection.execute("SELECT count(*) FROM files").fetchone()[0])


def _size_on_disk(file: Path | None) -> int:
    if file is None:
        return 0
    return sum(path.stat().st_size for path in database_files(file) if path.exists())
