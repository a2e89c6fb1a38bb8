"""Sources of images: their files, fetched ahead of their use where they are remote."""

from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import AbstractContextManager

from ..images import Bags, ImageCollection, RemoteItem, Source


def fetched_ahead(
    images: ImageCollection, is_read: Callable[[Source], bool]
) -> AbstractContextManager[None]:
    """Context manager in which remote files are fetched ahead of `file_of`.

    Parameters
    ----------
    images : ImageCollection
        The images.
    is_read : callable
        Whether the file of a source will be read.
    """
    each = images.images if isinstance(images, Bags) else images
    read = [k for k in range(len(each)) if any(map(is_read, each.sources(k)))]
    return each.reading_ahead(read, with_states=False)


def file_of(source: Source) -> str | bytes | None:
    """Return the path of a file, or its content, which is fetched if it is remote.

    Parameters
    ----------
    source : str, bytes, RemoteItem or None
        A source of an image.
    """
    return source.fetched(with_state=False).data if isinstance(source, RemoteItem) else source


def distinct(sources: Sequence[Source]) -> Collection[Source]:
    """Return each of some sources once: the frames of a file have one.

    Parameters
    ----------
    sources : sequence of str, bytes, RemoteItem or None
        Sources of images.
    """
    found: dict[Hashable, Source] = {}
    for source in sources:
        found.setdefault(source.path if isinstance(source, RemoteItem) else source, source)
    return found.values()
