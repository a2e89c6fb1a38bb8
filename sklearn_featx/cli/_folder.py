"""Image files of a folder and its subfolders, found by suffix, and a count of all other files.

No file is skipped silently: each one is either found or counted.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, TypeVar

from .._messages import short, shown
from ..exceptions import InputError

_MOST_SUFFIXES = 5
_Name = TypeVar("_Name")


class FoundImages(NamedTuple):
    """The image files of a folder and its subfolders.

    Parameters
    ----------
    paths : list of PurePath
        Relative to the folder, sorted.
    skipped : str
        Number of other files of each kind, as text; empty if there are none.
    """

    paths: list[PurePath]
    skipped: str


def find_images(
    folder: Path, *, follow_links: bool = False, argument: str = "SOURCE"
) -> FoundImages:
    """Find the image files in a folder and its subfolders, by suffix; scans by their content.

    Hidden files and folders are skipped.

    Parameters
    ----------
    folder : Path
        The folder.
    follow_links : bool, default=False
        Whether to follow links to files and folders, which may lead out of the folder.
    argument : str, default="SOURCE"
        The argument of the command that names the folder, for messages.

    Returns
    -------
    found : FoundImages
        The files, and a summary of those that were skipped.

    Raises
    ------
    InputError
        If the folder does not exist or contains no image.
    """
    if not folder.is_dir():
        raise InputError(f"{argument}: there is no folder {shown(str(folder))}.")
    # Here: a wrong folder does not wait for Pillow.
    from ..images import image_suffixes

    suffixes = image_suffixes()
    found: list[PurePath] = []
    others = _Others()
    walk = os.walk(folder, followlinks=follow_links, onerror=others.note_unreadable)
    for root, folders, names in walk:
        here = Path(root)
        folders[:] = [name for name in folders if others.enters(here, name, follow_links)]
        for name in names:
            if others.takes(here / name, suffixes, follow_links):
                found.append((here / name).relative_to(folder))  # noqa: PERF401 (it has a name)
    return FoundImages(sorted(_some(found, others, str(folder), argument)), others.in_words())


class FoundNames(NamedTuple):
    """The image files of a bucket's folder or of an archive.

    Parameters
    ----------
    names : list of str
        Their paths, as listed and sorted: a bucket may have ``a//b.jpg`` and ``a/b.jpg``.
    skipped : str
        Number of other files of each kind, as text; empty if there are none.
    """

    names: list[str]
    skipped: str


def images_among(
    names: Iterable[str],
    where: str,
    are_scans: Callable[[list[str]], Sequence[bool | None]],
) -> FoundNames:
    """Find the names of image files, by the suffixes that Pillow reads; others are counted.

    Parameters
    ----------
    names : iterable of str
        Paths with forward slashes.
    where : str
        Their folder or archive, for messages.
    are_scans : callable
        Returns whether each of some names is a scan by its content, None if that is unknown.

    Returns
    -------
    found : FoundNames
        The files, and a summary of those that were skipped.

    Raises
    ------
    InputError
        If there is no image.
    """
    # Here, as in `find_images`.
    from ..images import image_suffixes

    suffixes = image_suffixes()
    others = _Others()
    paths = {name: PurePosixPath(name) for name in names}
    asked = [name for name, path in paths.items() if _may_be_scan(path) and not _is_hidden(path)]
    scans = dict(zip(asked, are_scans(asked), strict=True))
    found = [
        name
        for name, path in paths.items()
        if scans.get(name) or others.takes_below(path, suffixes, unread=scans.get(name, ()) is None)
    ]
    found.sort(key=lambda name: (paths[name], name))
    return FoundNames(_some(found, others, where), others.in_words())


def _may_be_scan(path: PurePath) -> bool:
    """Whether the content decides: the name of a scan may end in a part of an identifier."""
    from ..images import has_scan_name

    return not path.suffix[1:].isalpha() and has_scan_name(path.name)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _some(
    found: list[_Name], others: "_Others", where: str, argument: str = "SOURCE"
) -> list[_Name]:
    """Return files that were found; raise an error if there are none."""
    if not found:
        there = f"Skipped: {others.in_words()}." if others.in_words() else "It is empty."
        raise InputError(
            f"{argument}: no image file in {shown(where)}, by the suffixes that Pillow reads "
            f"(.jpg, .png, ...). {there}"
        )
    return found


class _Others:
    """Counts of the skipped files and folders, by kind."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._suffixes: Counter[str] = Counter()

    def takes(self, path: Path, suffixes: frozenset[str], follow_links: bool) -> bool:
        """Whether a file has an image's suffix or is a scan; other files are counted."""
        from ..images import is_scan

        if path.name.startswith("."):
            return self._note("hidden")
        if path.is_symlink() and not follow_links:
            return self._note("links")
        if _may_be_scan(path) and is_scan(path):
            return True
        return self.takes_name(path, suffixes)

    def takes_below(self, path: PurePath, suffixes: frozenset[str], *, unread: bool) -> bool:
        """Whether a relative path has an image's suffix and is in no hidden folder."""
        if _is_hidden(path):
            return self._note("hidden")
        if unread and path.suffix.lower() not in suffixes:
            return self._note("no suffix and unreadable or empty")
        return self.takes_name(path, suffixes)

    def takes_name(self, path: PurePath, suffixes: frozenset[str]) -> bool:
        """Whether a name has an image's suffix; other names are counted."""
        from ..images import has_scan_name, has_volume_name

        suffix = path.suffix.lower()
        if path.name.startswith("."):
            return self._note("hidden")
        if suffix in suffixes or (suffix[1:].isalpha() and has_scan_name(path.name)):
            return True
        if has_volume_name(path.name):
            return True
        if not suffix:
            return self._note("no suffix")
        self._suffixes[suffix] += 1
        return False

    def enters(self, here: Path, name: str, follow_links: bool) -> bool:
        """Whether a folder is searched; other folders are counted."""
        folder = here / name
        if name.startswith("."):
            return self._note("hidden")
        if not folder.is_symlink():
            return True
        if not follow_links:
            return self._note("links")
        return not _is_loop(folder) or self._note("links in a circle")

    def note_unreadable(self, error: OSError) -> None:
        """Count a folder that cannot be listed."""
        self._note(f"unreadable folders ({short(str(error.strerror))})")

    def in_words(self) -> str:
        """Return the counts as text."""
        notes = {"links": " (--follow-links follows them)"}
        kinds = [f"{kind} {count}{notes.get(kind, '')}" for kind, count in self._kinds.items()]
        if self._suffixes:
            most = self._suffixes.most_common(_MOST_SUFFIXES)
            names = ", ".join(f"{short(suffix)} {count}" for suffix, count in most)
            more = ", ..." if len(self._suffixes) > len(most) else ""
            kinds.append(f"other suffixes {self._suffixes.total()} ({names}{more})")
        return ", ".join(kinds)

    def _note(self, kind: str) -> bool:
        self._kinds[kind] += 1
        return False


def _is_loop(folder: Path) -> bool:
    """Whether a link leads to one of its own parent folders."""
    return folder.resolve() in {parent.resolve() for parent in folder.parents}
