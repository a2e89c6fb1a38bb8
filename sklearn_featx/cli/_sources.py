"""The source of ``sklearn-featx extract``: a folder, a table, an archive, a bucket or a list.

Each becomes a list of entries, which the extractor reads, with the names and classes of the output.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

from .._messages import shown
from ..exceptions import ImageError, InputError
from ._folder import find_images, images_among
from ._lines import in_utf_8
from ._option_words import in_options
from ._table import TABLES, below, path_of, read_column


class Source(NamedTuple):
    """The images of a source.

    Parameters
    ----------
    entries : list
        Paths, addresses or contents of the images.
    paths : list of str or None
        Their paths in the output; None for an image in a cell of a table.
    classes : list of str
        Their top-level subfolders; empty for an image without one.
    skipped : str
        Number of other files of each kind, as text; empty if there are none.
    root : str or None
        The folder that relative paths of a table start from; None for other sources.
    """

    entries: list[Any]
    paths: list[str | None]
    classes: list[str]
    skipped: str = ""
    root: str | None = None

    def name(self, row: int) -> str:
        """Name of an image in the output: its path, or its row."""
        path = self.paths[row]
        return f"row {row}" if path is None else path

    def printed_name(self, row: int, error_path: str | None) -> str:
        """Name of an image beside its error, whose path is an address without credentials."""
        name = self.name(row)
        return name if error_path is None or "://" not in name else error_path

    def reason(self, row: int, reason: str) -> str:
        """Say why an image is unreadable, in the words of the command."""
        path = self.paths[row]
        text = in_options(reason)
        if self.root is None or path is None or not reason.startswith("no such file."):
            return text
        if os.path.isabs(path):  # noqa: PTH117
            return text
        start = f"Relative paths of the table start at {shown(self.root)}"
        return f"{text} {start}; --root names another folder."

    def explained(self, error: ImageError) -> ImageError:
        """Return the error of an image with its reason in the words of the command."""
        if error.row is None:
            return error
        return ImageError(self.reason(error.row, error.reason), error.row, error.path)

    @property
    def names(self) -> list[str]:
        """Names of all images in the output."""
        return [self.name(row) for row in range(len(self.paths))]


def open_source(arguments: argparse.Namespace) -> Source:
    """Return the images of the source that a user named.

    Parameters
    ----------
    arguments : Namespace
        `source`, `column`, `root`, `follow_links`, `storage_options` and `output`.

    Returns
    -------
    source : Source
        The images, none of which is read.

    Raises
    ------
    InputError
        If the source does not exist or has no images, if an option has no effect on it, or if the
        output would replace it.
    """
    source = _opened(arguments)
    return source._replace(
        paths=[path if path is None else in_utf_8(path) for path in source.paths],
        classes=[in_utf_8(name) for name in source.classes],
    )


def _opened(arguments: argparse.Namespace) -> Source:
    source = _local(arguments.source)
    path = Path(source)
    is_table = path.suffix.lower() in TABLES and not path.is_dir()
    _refuse_idle_options(arguments, is_table=is_table, is_folder=path.is_dir())
    _refuse_own_output(path, arguments.output)
    if source == "-":
        return _from_lines(sys.stdin.buffer.read())
    # "zip://folder::photos.zip" names its archive itself.
    archive = None if "::" in source else _archive(path.name)
    if "://" in source or (archive and path.is_file()):
        return _from_address(source, archive, arguments.storage_options)
    if path.is_dir():
        found = find_images(path, follow_links=arguments.follow_links)
        return _named([str(path / p) for p in found.paths], found.paths, found.skipped)
    if not path.exists():
        raise InputError(f"SOURCE: there is no file or folder {shown(source)}.")
    if is_table:
        cells = read_column(path, arguments.column)
        # Absolute: a missing file was not looked up in the working directory.
        root = (path.parent if arguments.root is None else arguments.root).absolute()
        return Source(
            [below(root, cell) for cell in cells],
            [path_of(cell) for cell in cells],
            [""] * len(cells),
            root=str(root),
        )
    raise InputError(
        f"SOURCE: {shown(source)} is neither a folder nor a table ({', '.join(TABLES)}) nor an "
        f"archive. For single files pass their paths as lines: ls *.jpg | sklearn-featx extract -"
    )


def _local(source: str) -> str:
    """Return the path of a ``file://`` address; any other source as it is."""
    if not source.lower().startswith("file://"):
        return source
    # Here: help does not wait for Pillow.
    from ..images import foreign_host, local_path

    if host := foreign_host(source):
        raise InputError(
            f"SOURCE: {shown(source)} names the host {shown(host)}, not a folder. Write three "
            "slashes, as in file:///home/photos, or the plain path."
        )
    return local_path(source)


def _refuse_own_output(source: Path, output: Path | None) -> None:
    """Refuse to write the output in place of the source."""
    if output is not None and output.exists() and source.exists() and output.samefile(source):
        raise InputError(
            f"--output: {shown(str(output))} is SOURCE, which would be lost. Name another file."
        )


def _refuse_idle_options(arguments: argparse.Namespace, *, is_table: bool, is_folder: bool) -> None:
    """Refuse options that have no effect on a source of this kind."""
    source = shown(arguments.source)
    table = f"no table ({', '.join(TABLES)})"
    for option, given, is_idle, kind in (
        ("--column", arguments.column is not None, not is_table, table),
        ("--root", arguments.root is not None, not is_table, table),
        ("--follow-links", arguments.follow_links, not is_folder, "no folder"),
        ("--storage-options", arguments.storage_options is not None, is_folder, "a local folder"),
    ):
        if given and is_idle:
            raise InputError(f"{option} has no effect: {source} is {kind}. Leave it out.")


def _archive(name: str) -> str | None:
    """Return the scheme that reads an archive of a name; None for other names."""
    low = name.lower()
    if low.endswith((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")):
        return "tar"
    return "zip" if low.endswith(".zip") else None


def _from_address(source: str, archive: str | None, options: dict[str, Any] | None) -> Source:
    """Return the images of a bucket's folder, or of an archive."""
    # Here: help does not wait for fsspec.
    from ..images import are_remote_scans, remote_listing

    where = source if "://" in source else str(Path(source).resolve())
    addresses = remote_listing(f"{archive}://::{where}" if archive else where, options)
    found = images_among(
        addresses, source, lambda names: are_remote_scans([addresses[n] for n in names], options)
    )
    return Source(
        [addresses[name] for name in found.names],
        # `tar -C photos .` writes ./ before each path.
        [name.removeprefix("./") for name in found.names],
        [class_of(PurePosixPath(name)) for name in found.names],
        found.skipped,
    )


def _named(entries: list[str], paths: Sequence[PurePath], skipped: str = "") -> Source:
    """Return images with paths below a folder, whose top-level subfolders are their classes."""
    classes = [class_of(path) for path in paths]
    return Source(entries, [path.as_posix() for path in paths], classes, skipped)


def class_of(path: PurePath) -> str:
    """Return the first folder of a relative path; empty for a file without a folder."""
    return path.parts[0] if len(path.parts) > 1 else ""


def _from_lines(content: bytes) -> Source:
    """Return the images whose paths are lines; ``find -print0`` separates them by null bytes."""
    separator = b"\0" if b"\0" in content else b"\n"
    paths = [os.fsdecode(line.rstrip(b"\r")) for line in content.split(separator) if line.strip()]
    if not paths:
        raise InputError("SOURCE: there are no paths on standard input.")
    return Source(list(paths), list(paths), [""] * len(paths))
