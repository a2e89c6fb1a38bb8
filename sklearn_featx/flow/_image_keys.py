"""Keys of images: digests of their content, which the store knows for unchanged files."""

import os
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple, TypeAlias

from .._digest import stat_signature
from .._parallel import in_threads
from .._typing import OnError
from ..engines import count_threads
from ..exceptions import ImageError
from ..images import Bags, BytesItem, ImageCollection
from ..store import FeatureStore

# Absolute path of a file, and its `stat_signature`.
Signature: TypeAlias = tuple[str, int, int, int, int]


def file_signatures(
    images: ImageCollection, positions: Sequence[int], store: FeatureStore | None
) -> list[Signature | None]:
    """Return path and state of each image's file, without opening it.

    Parameters
    ----------
    images : ImageCollection
        The images.
    positions : sequence of int
        Which of them.
    store : FeatureStore or None
        Servers are asked for the states of those remote files that it has a record of.

    Returns
    -------
    signatures : list of (str, int, int, int, int) or None
        None if the image has no file, and for other remote files: the state of such a file comes
        with its content.
    """
    names = {i: name for i in positions if (name := images.remote_name(i)) is not None}
    known = store.recorded_files(list(names.values())) if names and store else set()
    asked = [i for i, name in names.items() if name in known]
    states = dict(zip(asked, images.remote_states(asked), strict=True)) if asked else {}
    return [states.get(i) if i in names else _signature(images.path(i)) for i in positions]


def row_keys(
    images: ImageCollection,
    store: FeatureStore | None,
    on_error: OnError = "raise",
    n_jobs: int | None = None,
) -> list[str]:
    """Return the digest of each image; files whose state the store knows are not opened.

    Parameters
    ----------
    images : ImageCollection
        The images.
    store : FeatureStore or None
        Knows files by path and state.
    on_error : {"raise", "nan"}, default="raise"
        Whether the first unreadable image raises an error, or has an empty key.
    n_jobs : int, default=None
        Number of threads that read files, as in `count_threads`.

    Returns
    -------
    keys : list of str
        One for each image.

    Raises
    ------
    ImageError
        If a file cannot be read and `on_error` is "raise".
    """
    if isinstance(images, Bags):
        keys_of_images = row_keys(images.images, store, on_error, n_jobs=n_jobs)
        return [_key_of_bag(images, i, keys_of_images) for i in range(len(images))]
    signatures = file_signatures(images, range(len(images)), store)
    keys, failures = known_keys(images, store, signatures, on_error)
    failed = {failure.row for failure in failures}
    unknown = [i for i, key in enumerate(keys) if key is None and i not in failed]
    learned = {}
    n_threads = count_threads(n_jobs)
    contents = in_threads(partial(_content, images), unknown, n_threads, in_flight=2 * n_threads)
    with images.reading_ahead(unknown, with_states=store is not None), closing(contents):
        for i, content in zip(unknown, contents, strict=True):
            if not isinstance(content, ImageError):
                keys[i] = images.digest_of(i, content.digest)
                state = signatures[i] or content.state
                if state is not None:
                    learned[state] = content.digest
            elif on_error == "raise":
                raise content
    if learned and store:
        store.remember_files(list(learned), list(learned.values()))
    return [key or "" for key in keys]


class _Content(NamedTuple):
    """Digest of a file's bytes, and the state that a server named for them."""

    digest: str
    state: Signature | None


def _content(images: ImageCollection, i: int) -> _Content | ImageError:
    """Read and digest a file; return the reason if it is unreadable."""
    item = open_file(images, i)
    return _Content(item.content(), item.state) if isinstance(item, BytesItem) else item


def _key_of_bag(bags: Bags, i: int, keys: Sequence[str]) -> str:
    """Return the digest of a bag; empty if one of its images cannot be read."""
    digests = [keys[k] for k in bags.members(i)]
    return bags.digest_of_members(digests) if all(digests) else ""


def known_keys(
    images: ImageCollection,
    store: FeatureStore | None,
    signatures: Sequence[Signature | None],
    on_error: OnError,
) -> tuple[list[str | None], list[ImageError]]:
    """Return the digest of each image whose file need not be opened.

    Parameters
    ----------
    images : ImageCollection
        The images.
    store : FeatureStore or None
        Knows files by path and state.
    signatures : sequence of (str, int, int, int, int) or None
        The signatures of all files.
    on_error : {"raise", "nan"}
        Whether the first unreadable image raises an error.

    Returns
    -------
    keys : list of str or None
        None for a file whose state the store does not know, and for an unreadable image.
    failures : list of ImageError
        The unreadable images.
    """
    files = [signature for signature in signatures if signature is not None]
    known = dict(zip(files, store.file_digests(files), strict=True)) if files and store else {}
    keys: list[str | None] = []
    failures = []
    for i, signature in enumerate(signatures):
        if signature is not None or images.remote_name(i) is not None:
            content = known.get(signature) if signature is not None else None
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
    """Read the file of one image; return the error if that fails.

    Parameters
    ----------
    images : ImageCollection
        The images.
    i : int
        Position of the image.

    Returns
    -------
    item : BytesItem or ImageError
        The content of the file, or the reason why it is unreadable.
    """
    try:
        return images.opened(i)
    except ImageError as error:
        return _failure(error, images, i)


def _failure(error: ImageError, images: ImageCollection, i: int) -> ImageError:
    # A new error: the traceback of the old one keeps the bytes of the file alive.
    return ImageError(error.reason, i, error.path or images.path(i))


def _signature(path: str | None) -> Signature | None:
    if path is None:
        return None
    try:
        state = stat_signature(path)
    except OSError:
        # The reader raises an error with the row.
        return None
    absolute = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH117, PTH118
    return (absolute, *state)
