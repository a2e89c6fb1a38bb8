"""Keys of images: digests of their content, known for files that have not changed."""

import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

from .._digest import stat_signature
from ..exceptions import ImageError
from ..images import ImageCollection
from ..store import FeatureStore

# Absolute path of a file, and its `stat_signature`.
Signature: TypeAlias = tuple[str, int, int, int, int]


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
