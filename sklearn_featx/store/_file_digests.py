"""File records: the content digests of unchanged files, found without opening the files.

The rule: equal path, size, modification time, change time and inode mean equal content. A program
can set the modification time, but only the system sets the change time, so a replacement of the
same size and modification time is detected. A file that changed within the last two seconds is not
recorded, because a second change within the clock's granularity would not show (git's "racily
clean" rule).

Each record has a checksum, since a flipped bit in a path may give the path of another image.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .._digest import may_change_unseen
from ._database import chunked, marks, transaction


class FileState(NamedTuple):
    """The path and state of a file."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def encode(self) -> bytes:
        """Encode all fields but the path as text: an inode may not fit into SQLite's integers."""
        return b"%d %d %d %d" % self[1:]


def recall(
    connection: sqlite3.Connection, files: Sequence[FileState]
) -> tuple[list[str | None], list[bytes]]:
    """Return the digests of files that have not changed.

    Returns
    -------
    digests : list of str or None
        The digest of each file; None if it has no record or has changed.
    damaged : list of bytes
        Paths of damaged records.
    """
    paths = [os.fsencode(file.path) for file in files]
    records = _records(connection, paths)
    damaged = [path for path, record in records.items() if not _is_sound(path, record)]
    sound = {path: record for path, record in records.items() if path not in set(damaged)}
    digests = [
        _matching_digest(sound.get(path), file) for path, file in zip(paths, files, strict=True)
    ]
    return digests, damaged


def recorded(connection: sqlite3.Connection, paths: Sequence[str]) -> set[str]:
    """Return the paths that have a record."""
    return {os.fsdecode(path) for path in _records(connection, [os.fsencode(p) for p in paths])}


def remember(
    connection: sqlite3.Connection, files: Sequence[FileState], digests: Sequence[str]
) -> None:
    """Record the digests of files, except files that changed within the last two seconds."""
    records = []
    for file, digest in zip(files, digests, strict=True):
        if not may_change_unseen(file[1:]):
            record = (os.fsencode(file.path), file.encode(), digest.encode())
            records.append((*record, _checksum(*record)))
    with transaction(connection):
        connection.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, CAST(? AS TEXT), ?)", records
        )


def forget(connection: sqlite3.Connection, paths: list[bytes]) -> None:
    """Delete records."""
    with transaction(connection):
        connection.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in paths])


def damaged_records(connection: sqlite3.Connection) -> list[bytes]:
    """Return the paths of all damaged records."""
    rows: Iterable[tuple[bytes, ...]] = connection.execute("SELECT * FROM files")
    return [path for path, *record in rows if not _is_sound(path, tuple(record))]


def _records(connection: sqlite3.Connection, paths: list[bytes]) -> dict[bytes, tuple[object, ...]]:
    return {
        path: tuple(record)
        for chunk in chunked(paths)
        for path, *record in connection.execute(
            f"SELECT * FROM files WHERE path IN ({marks(chunk)})",  # noqa: S608 - question marks
            chunk,
        )
    }


def _is_sound(path: object, record: tuple[object, ...]) -> bool:
    match path, *record:
        case bytes(), bytes(), bytes(), int():
            return bool(_checksum(path, *record[:2]) == record[2])  # type: ignore[arg-type]
    return False


def _matching_digest(record: tuple[object, ...] | None, file: FileState) -> str | None:
    if record is None or record[0] != file.encode():
        return None
    assert isinstance(record[1], bytes)
    return record[1].decode(errors="replace")


def _checksum(path: bytes, state: bytes, digest: bytes) -> int:
    return zlib.crc32(b"%d %d " % (len(path), len(state)) + path + state + digest)
