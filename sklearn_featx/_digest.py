"""Digests: names derived from content, the same in every process and on every machine.

The prefix of a digest names its algorithm and version (``"b2-1:…"``), so digests of different
versions never compare equal. Pickled bytes are never hashed, because they depend on the process.
"""

import functools
import hashlib
import importlib.metadata
import os
import sys
import time
from typing import TypeAlias

import numpy as np

from ._typing import AnyArray

Data: TypeAlias = bytes | bytearray | memoryview
Part: TypeAlias = Data | str | int | float | bool | None

_PREFIX = "b2-1:"
# 128 bits: two of 10**15 images collide with probability 10**-9.
_DIGEST_BYTES = 16
_RACY_NS = 2_000_000_000
_NUMBERS = (bool, int, float)


def digest(*parts: Part) -> str:
    """Digest a sequence of parts, including their boundaries and types.

    Parameters
    ----------
    *parts : bytes-like, str, int, float, bool or None
        The parts, in order.

    Returns
    -------
    digest : str
        ``"b2-1:"`` and 32 hexadecimal digits.

    Examples
    --------
    >>> from sklearn_featx._digest import digest
    >>> digest("ab", "c") == digest("a", "bc")
    False
    >>> digest("resnet18", 224)
    'b2-1:...'
    """
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        kind, data = _encode(part)
        state.update(b"%b%d:" % (kind, len(data)))
        state.update(data)
    return _PREFIX + state.hexdigest()


def digest_array(array: AnyArray) -> str:
    """Digest an array's dtype, shape and values, independent of its memory order."""
    canonical = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    shape = ",".join(map(str, array.shape))
    return digest(canonical.dtype.str, shape, canonical.reshape(-1).view(np.uint8).data)


def stat_signature(path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    """Return a file's size, modification time, change time (both in ns) and inode.

    A file is considered unchanged while all four values are equal. A replacement of the same size
    and modification time has another change time and, unless written in place, another inode.

    Raises
    ------
    OSError
        If the file cannot be reached.
    """
    # pathlib would take half of the time of a run whose rows are all cached.
    status = os.stat(path)  # noqa: PTH116
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def may_change_unseen(signature: tuple[int, int, int, int]) -> bool:
    """Whether a file is so new that another change may leave its `stat_signature` as it is.

    The reason is the granularity of the clock: git calls such files "racily clean".
    """
    return time.time_ns() - max(signature[1:3]) <= _RACY_NS


def version_of(package: str) -> str:
    """Return the ``__version__`` of an imported package; "" if it has none."""
    return str(getattr(sys.modules.get(package), "__version__", ""))


@functools.cache
def installed_version(distribution: str) -> str:
    """Return the version of an installed distribution; "" if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _encode(part: Part) -> tuple[bytes, Data]:
    if isinstance(part, str):
        return b"s", part.encode()
    if part is None or isinstance(part, _NUMBERS):
        return type(part).__name__.encode(), repr(part).encode()
    data = memoryview(part)
    # A view without bytes has no other format.
    return b"b", data.cast("B") if data.nbytes else b""
