"""What may be remembered, under which keys, in which store: decided here, done elsewhere."""

import contextlib
import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from ._digest import stat_signature
from ._messages import cause, shown
from ._recipe import Recipe
from .exceptions import ImageError, StoreWarning
from .images import ImageCollection
from .store import FeatureStore, parse_size, session_store

# Absolute path of a file, and its `stat_signature`.
Signature: TypeAlias = tuple[str, int, int, int, int]
Cache: TypeAlias = Literal["session"] | str | os.PathLike[str] | FeatureStore | None

# Handles that keep their connections open between calls.
_kept: dict[str, FeatureStore] = {}

# Of the store's size, so that one data set does not push out all others; of the free disk space.
_LARGEST_SHARE = 0.5


class Decision(NamedTuple):
    """Whether rows are remembered, and why.

    Parameters
    ----------
    remember : bool
        The decision.
    reason : str
        In words, for people.
    """

    remember: bool
    reason: str


def open_store(cache: Cache) -> FeatureStore | None:
    """Return the store that a user named.

    Parameters
    ----------
    cache : "session", path, FeatureStore or None
        As in the estimators.
    """
    if cache is None or isinstance(cache, FeatureStore):
        return cache
    try:
        store = session_store() if cache == "session" else FeatureStore(cache)
        # A path that the system refuses, too long or with a null byte, is found out here.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(store.path)  # noqa: PTH116 (pathlib hides what is wrong)
    except (OSError, ValueError) as error:
        warnings.warn(
            f"cache={shown(cache)}: no store can be made ({cause(error)}). Rows are computed, "
            "not remembered.",
            StoreWarning,
            stacklevel=2,
        )
        return None
    return _kept.setdefault(store.path, store)


def announce(cache: Cache) -> None:
    """Make the session's store, so that worker processes that start from now on find it."""
    if isinstance(cache, str) and cache == "session":
        open_store(cache)


def decide(
    recipe: Recipe,
    row_shapes: Sequence[Sequence[int]] | None,
    n_rows: int,
    store: FeatureStore | None,
) -> Decision:
    """Decide whether the rows of a recipe are remembered.

    Parameters
    ----------
    recipe : Recipe
        What a row is.
    row_shapes : sequence of tuple of int or None
        Shape of one row of each tap; None where it is not known yet.
    n_rows : int
        How many rows there are.
    store : FeatureStore or None
        Where they would be kept.
    """
    if store is None:
        return Decision(False, "cache=None")
    if not recipe.deterministic:
        return Decision(False, "preprocessing is a function, which may be random")
    if recipe.network_taps and (unnamed := recipe.backbone.unnamed):
        return Decision(False, f"what the network computes cannot be named: {unnamed[0]:.100}")
    if row_shapes is None:
        return Decision(True, f"{n_rows} rows in {store.path}")
    per_row = sum(
        math.prod(shape) * (1 if tap.layer == 0 else 4)
        for tap, shape in zip(recipe.taps, row_shapes, strict=True)
    )
    needed = per_row * n_rows
    size = f"{n_rows} rows of {per_row / 1024:.1f} KiB"
    if needed > _LARGEST_SHARE * parse_size(store.max_size):
        return Decision(False, f"{size} would take more than half of max_size={store.max_size}")
    if needed > _LARGEST_SHARE * _free_bytes(Path(store.path)):
        return Decision(False, f"{size} would take more than half of the free disk space")
    return Decision(True, f"{size} in {store.path}")


def file_signatures(images: ImageCollection, positions: Sequence[int]) -> list[Signature | None]:
    """Path and state of each image's file, without opening it.

    Parameters
    ----------
    images : ImageCollection
        The images.
    positions : sequence of int
        Which of them.

    Returns
    -------
    signatures : list of (str, int, int, int, int) or None
        None where the image lies in memory.
    """
    return [_signature(images.path(i)) for i in positions]


def row_keys(
    images: ImageCollection,
    store: FeatureStore | None,
    signatures: Sequence[Signature | None] | None = None,
    failures: list[ImageError] | None = None,
) -> list[str]:
    """Digest of each image; files whose state is known to the store are not opened.

    Parameters
    ----------
    images : ImageCollection
        The images.
    store : FeatureStore or None
        Knows files by path and state.
    signatures : sequence of (str, int, int, int, int) or None, default=None
        Those of all files, where they are known already.
    failures : list of ImageError, default=None
        Gets an error for each image that cannot be read, whose key is then empty. None: the first
        is raised.

    Returns
    -------
    keys : list of str
        One for each image, by content.

    Raises
    ------
    ImageError
        If a file cannot be read, where `failures` is None.
    """
    if signatures is None:
        signatures = file_signatures(images, range(len(images)))
    files = [signature for signature in signatures if signature is not None]
    known = dict(zip(files, store.file_digests(files), strict=True)) if files and store else {}
    keys, learned = [], {}
    for i, signature in enumerate(signatures):
        if signature is None:
            keys.append(_noted(images.digest, images, i, failures))
            continue
        content = known.get(signature)
        if content is None:
            content = _noted(images.content, images, i, failures)
            if content:
                learned[signature] = content
        keys.append(images.digest_of(i, content) if content else "")
    if learned and store:
        store.remember_files(list(learned), list(learned.values()))
    return keys


def _noted(
    ask: Callable[[int], str], images: ImageCollection, i: int, failures: list[ImageError] | None
) -> str:
    """Return what is asked of one image; "" and a note if it cannot be read."""
    try:
        return ask(i)
    except ImageError as error:
        if failures is None:
            raise
        # Without its cause: the traceback of that keeps the bytes of the file alive.
        failures.append(ImageError(error.reason, i, error.path or images.path(i)))
        return ""


def _signature(path: str | None) -> Signature | None:
    if path is None:
        return None
    try:
        state = stat_signature(path)
    except OSError:
        # Reading it will say what is wrong, with the row.
        return None
    absolute = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH117, PTH118
    return (absolute, *state)


def _free_bytes(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
