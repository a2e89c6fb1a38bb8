"""Keys of images: digests of their content, known for files that have not changed."""

import os
from collections.abc import Sequence
from typing import TypeAlias

from .._digest import stat_signature
from .._typing import OnError
from ..exceptions import ImageError
from ..images import BytesItem, ImageCollection
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
    images: ImageCollection, store: FeatureStore | None, on_error: OnError = "raise"
) -> list[str]:
    """Digest of each image; files whose state is known to the store are not opened.

    Parameters
    ----------
    images : ImageCollection
        The images.
    store : FeatureStore or None
        Knows files by path and state.
    on_error : {"raise", "nan"}, default="raise"
        Whether the first image that cannot be read is an error, or its key is empty.

    Returns
    -------
    keys : list of str
        One for each image, by content.

    Raises
    ------
    ImageError
        If a file cannot be read, where `on_error` is "raise".
    """
    signatures = file_signatures(images, range(len(images)))
    keys, failures = known_keys(images, store, signatures, on_error)
    failed = {failure.row for failure in failures}
    learned = {}
    for i, signature in enumerate(signatures):
        if keys[i] is None and signature is not None and i not in failed:
            item = open_file(images, i)
            if isinstance(item, BytesItem):
                learned[signature] = item.content()
                keys[i] = images.digest_of(i, learned[signature])
            elif on_error == "raise":
                raise item
    if learned and store:
        store.remember_files(list(learned), list(learned.values()))
    return [key or "" for key in keys]


def known_keys(
    images: ImageCollection,
    store: FeatureStore | None,
    signatures: Sequence[Signature | None],
    on_error: OnError,
) -> tuple[list[str | None], list[ImageError]]:
    """Digest of each image for which no file has to be opened.

    Parameters
    ----------
    images : ImageCollection
        The images.
    store : FeatureStore or None
        Knows files by path and state.
    signatures : sequence of (str, int, int, int, int) or None
        Those of all files.
    on_error : {"raise", "nan"}
        Whether the first image that cannot be read is an error.

    Returns
    -------
    keys : list of str or None
        None for a file whose state the store does not know, and for a failure.
    failures : list of ImageError
        Images that cannot be read.
    """
    files = [signature for signature in signatures if signature is not None]
    known = dict(zip(files, store.file_digests(files), strict=True)) if files and store else {}
    keys: list[str | None] = []
    failures = []
    for i, signature in enumerate(signatures):
        if signature is not None:
            content = known.get(signature)
            keys.append(images.digest_of(i, content) if content else None)
            continue
        try:
            keys.append(images.digest(i))
        except ImageError as error:
            if on_error == "raise":
                raise
            keys.append(None)
            failures.append(_failure(error, images, i))
    return keys, failures


def open_file(images: ImageCollection, i: int) -> BytesItem | ImageError:
    """Read the file of one image; an error where that fails.

    Parameters
    ----------
    images : ImageCollection
        The images.
    i : int
        Position of the image.

    Returns
    -------
    item : BytesItem or ImageError
        The open file, or why it cannot be read.
    """
    try:
        return images.opened(i)
    except ImageError as error:
        return _failure(error, images, i)


def _failure(error: ImageError, images: ImageCollection, i: int) -> ImageError:
    # Without its cause: the traceback of that keeps the bytes of the file alive.
    return ImageError(error.reason, i, error.path or images.path(i))


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
