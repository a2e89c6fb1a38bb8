"""The cache: the store that the parameter `cache` names, and the decision to use it."""

import contextlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from .._messages import cause, shown, warn_once
from .._parallel import ForkSafeLock
from ..exceptions import StoreWarning
from ..store import FeatureStore, parse_size, place_problem, session_store
from ._recipe import Recipe

Cache: TypeAlias = bool | str | os.PathLike[str] | FeatureStore

# Handles, whose connections stay open between calls: those used last, since each holds files open.
_kept: OrderedDict[str, FeatureStore] = OrderedDict()
_MOST_KEPT = 16
_lock = ForkSafeLock()

# The share of the store's size, so that one data set does not evict all others; and of the disk.
_LARGEST_SHARE = 0.5
# The reason where nothing is to be cached, or a warning has said that no store can be made.
NO_STORE = "cache=False"


class Decision(NamedTuple):
    """Whether rows are cached, and the reason.

    Parameters
    ----------
    cached : bool
        The decision.
    reason : str
        The reason, for people.
    """

    cached: bool
    reason: str


def open_store(cache: Cache) -> FeatureStore | None:
    """Return the store that the parameter `cache` of an estimator names.

    Parameters
    ----------
    cache : bool, path or FeatureStore
        As in the estimators.

    Returns
    -------
    store : FeatureStore or None
        None if nothing is cached; a store that cannot be made gives a warning.
    """
    # A parameter grid may contain NumPy's True and False.
    if not isinstance(cache, str | os.PathLike | FeatureStore) and not cache:
        return None
    try:
        store = _store_of(cache)
        # The system rejects some paths, such as long ones or those with a null byte.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(store.path)  # noqa: PTH116 (pathlib hides the reason)
        problem = place_problem(Path(store.path))
    except (OSError, ValueError) as error:
        problem = cause(error)
    if problem is not None:
        warn_once(
            f"cache={shown(cache)}: no store can be made ({problem}). Rows are not cached. "
            "Pass another path, or cache=False.",
            StoreWarning,
            stacklevel=2,
        )
        return None
    return store if isinstance(cache, FeatureStore) else _keep(store)


def _store_of(cache: Cache) -> FeatureStore:
    if isinstance(cache, FeatureStore):
        return cache
    return FeatureStore(cache) if isinstance(cache, str | os.PathLike) else session_store()


def _keep(store: FeatureStore) -> FeatureStore:
    """Return the kept handle of a store; the least recently used one is closed."""
    with _lock:
        kept = _kept.setdefault(store.path, store)
        _kept.move_to_end(store.path)
        if len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)[1].close()
    return kept


def decide(
    recipe: Recipe,
    row_shapes: Sequence[Sequence[int]] | None,
    n_rows: int,
    store: FeatureStore | None,
) -> Decision:
    """Decide whether the rows of a recipe are cached.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    row_shapes : sequence of tuple of int or None
        Shape of one row of each tap; None if it is unknown.
    n_rows : int
        Number of rows.
    store : FeatureStore or None
        The store.
    """
    if store is None:
        return Decision(False, NO_STORE)
    if recipe.unnamed is not None:
        return Decision(False, f"{recipe.unnamed:.160}")
    if row_shapes is None:
        return Decision(True, f"{n_rows} rows in {store.path}")
    per_row = sum(recipe.row_bytes(row_shapes, store.storage))
    needed = per_row * n_rows
    size = f"{n_rows} rows of {per_row / 1024:.1f} KiB"
    if needed > _LARGEST_SHARE * parse_size(store.max_size):
        limit = f"max_size={store.max_size}: pass a larger one"
        return Decision(False, f"{size} would take more than half of {limit}")
    if needed > _LARGEST_SHARE * _free_bytes(Path(store.path)):
        limit = f"the free disk space at {store.path}: free some, or name another folder"
        return Decision(False, f"{size} would take more than half of {limit}")
    return Decision(True, f"{size} in {store.path}")


def _free_bytes(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
