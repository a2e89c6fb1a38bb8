"""FeatureStore: the public handle of a store."""

import os
import re
import sqlite3
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._messages import shown
from ..exceptions import StoreError
from . import _file_digests
from ._codec import STORAGES, Storage
from ._database import Database
from ._eviction import Recency, file_budget, shrink
from ._location import database_files, file_problem
from ._rows import RecipeRows
from ._verification import Verification, verify

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", start=1)},
}
# In a smaller store, pages of 64 KiB and the log would leave no space for rows.
MIN_SIZE = 8 * 2**20


@dataclass(frozen=True)
class StoreInfo:
    """The content of a store, and its use by this process.

    Parameters
    ----------
    path : str
        The store's folder.
    n_rows : int
        Number of rows of all recipes.
    n_files : int
        Number of files whose content digest is recorded.
    n_bytes : int
        Size on disk.
    max_size : int
        The maximum size, in bytes.
    recipes : dict of str to int
        Number of rows by the description of their recipe.
    hits : int
        Number of rows that this process found in the store.
    misses : int
        Number of rows that this process did not find.
    repaired : int
        Number of damaged rows, file records and databases that this process removed.
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
    """Cache of rows on disk, shared by all processes of a host and bounded in size.

    A failure of the store causes missing rows and one `StoreWarning`, never an error of an
    estimator. `info`, `verify`, `prune` and `clear` raise a `StoreError` if the path is that of a
    file. The store is opened at its first use. Copies, pickles and forked processes contain only
    its path and settings and open it again.

    The folder may contain other files. Each host has its own file in it, because SQLite's shared
    log does not work across hosts.

    Parameters
    ----------
    path : str or path-like
        The store's folder. A missing folder is created, readable only by its owner. ``~`` is the
        home folder.
    max_size : int or str, default="10GB"
        Maximum size of this host's file and log, at least 8 MiB: bytes, or a number with a unit
        (``"500MB"``, ``"2GiB"``). The least recently used rows are deleted first.
    storage : {"float32", "float16", "bfloat16"}, default="float32"
        The dtype of float32 rows on disk. float32 is exact. float16 has 11 significant bits, and
        values beyond 65504 become infinite. bfloat16 has 8 significant bits and the range of
        float32. Rows of other dtypes are stored unchanged.

    Raises
    ------
    ValueError
        If `path`, `max_size` or `storage` is invalid.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn_featx import FeatureStore, PretrainedFeatureExtractor
    >>> photographs = load_sample_images().images
    >>> with tempfile.TemporaryDirectory() as folder, FeatureStore(folder) as store:
    ...     extractor = PretrainedFeatureExtractor(image_size=64, cache=store)
    ...     features = extractor.fit_transform(photographs)
    ...     store.info().n_rows
    2
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

    def rows(self, recipe: str, recipe_text: str | None = None) -> RecipeRows:
        """Return the rows of one recipe.

        Parameters
        ----------
        recipe : str
            Digest of everything but the image that the rows depend on.
        recipe_text : str, default=None
            Description of the recipe, for :meth:`info`.

        Returns
        -------
        rows : RecipeRows
            The rows, which all have the same shape and dtype.
        """
        opened = self._open()
        text = recipe if recipe_text is None else recipe_text
        return RecipeRows(
            opened.database, opened.recency, recipe, text, self.storage, self._max_bytes
        )

    def file_digests(self, files: Sequence[tuple[str, int, int, int, int]]) -> list[str | None]:
        """Return the recorded content digests of files, without opening them.

        The rule: equal path, size, modification time, change time and inode mean equal content.

        Parameters
        ----------
        files : sequence of (str, int, int, int, int)
            Absolute path, size, modification time (ns), change time (ns) and inode of each file.

        Returns
        -------
        digests : list of str or None
            The digest of each file; None if it is not recorded or the file has changed.
        """
        states = [_file_digests.FileState(*file) for file in files]
        database = self._open().database
        unknown: tuple[list[str | None], list[bytes]] = ([None] * len(states), [])
        digests, damaged = database.attempt(lambda c: _file_digests.recall(c, states), unknown)
        if damaged:
            database.tally.count(repaired=len(damaged))
            database.attempt(lambda c: _file_digests.forget(c, damaged), None)
        return digests

    def recorded_files(self, paths: Sequence[str]) -> set[str]:
        """Return those of some paths that have a record, whatever the state of their files.

        Parameters
        ----------
        paths : sequence of str
            Paths, or names of remote files.

        Returns
        -------
        recorded : set of str
            The paths with a record.
        """
        database = self._open().database
        found: set[str] = database.attempt(lambda c: _file_digests.recorded(c, paths), set())
        return found

    def remember_files(
        self, files: Sequence[tuple[str, int, int, int, int]], digests: Sequence[str]
    ) -> None:
        """Record the digests of files, except files that changed within the last two seconds.

        Parameters
        ----------
        files : sequence of (str, int, int, int, int)
            As for `file_digests`, measured before the file was read.
        digests : sequence of str
            Digest of each file's content.
        """
        states = [_file_digests.FileState(*file) for file in files]
        self._open().database.attempt(
            lambda c: _file_digests.remember(c, states, digests), None, writing=True
        )

    def info(self) -> StoreInfo:
        """Return the content of the store, and its use by this process.

        Returns
        -------
        info : StoreInfo
            The counts, and the size on disk.

        Raises
        ------
        StoreError
            If the path is that of a file.
        """
        database = self._checked().database
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
        """Check every row's checksum and the file's structure; remove damaged parts.

        Returns
        -------
        verification : Verification
            The number of checked and of removed rows.

        Raises
        ------
        StoreError
            If the path is that of a file.
        """
        return verify(self._checked().database)

    def prune(self, max_size: int | str | None = None) -> int:
        """Delete the least recently used rows and return free space to the disk.

        Parameters
        ----------
        max_size : int or str, default=None
            The target size, as for the store. None: the maximum size of the store.

        Returns
        -------
        n_deleted : int
            Number of deleted rows.

        Raises
        ------
        ValueError
            If `max_size` is invalid.
        StoreError
            If the path is that of a file.
        """
        opened = self._checked()
        max_bytes = self._max_bytes if max_size is None else parse_size(max_size)
        opened.recency.flush()
        budget = file_budget(max_bytes)
        return opened.database.attempt(lambda c: shrink(c, budget), 0)

    def clear(self) -> None:
        """Delete all rows and file records of this host. Other files in the folder stay.

        Raises
        ------
        StoreError
            If the path is that of a file.
        """
        self._checked().database.discard()

    def close(self) -> None:
        """Close the connections of this process; the next use opens them again."""
        if self._opened is not None:
            self._opened.database.close()

    def _open(self) -> "_Opened":
        if self._opened is None:
            self._opened = _opened_at(
                _Address(Path(self.path), self._max_bytes, self._create_folder)
            )
        return self._opened

    def _checked(self) -> "_Opened":
        """Open the store; a path that no folder can have is an error, not a warning."""
        if (problem := file_problem(Path(self.path))) is not None:
            raise StoreError(f"path={shown(self.path)}: {problem}. Pass another path.")
        return self._open()

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
    """Convert a size to bytes.

    Parameters
    ----------
    size : int or str
        Bytes, or a number with a unit: ``"500MB"`` (powers of 1000), ``"2GiB"`` (of 1024).

    Returns
    -------
    n_bytes : int
        The size in bytes.

    Raises
    ------
    ValueError
        If the size is invalid or too small for a store.

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
    """The state that all handles of one address share in a process."""

    def __init__(self, address: _Address) -> None:
        self.database = Database(*address)
        self.recency = Recency(self.database)


_OPENED: weakref.WeakValueDictionary[_Address, _Opened] = weakref.WeakValueDictionary()


def _opened_at(address: _Address) -> _Opened:
    # If two threads open the same address at the same time, `setdefault` keeps one.
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
