"""Digests: names derived from content, equal in every process and on every machine.

A digest names its algorithm and version (``"b2-1:…"``), so that a change of the rule can never be
mistaken for a change of content. Nothing is hashed through pickle: its bytes depend on the process.
"""

import functools
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from ._typing import AnyArray

Data: TypeAlias = bytes | bytearray | memoryview
Part: TypeAlias = Data | str | int | float | bool | None

_PREFIX = "b2-1:"
# 128 bits: two of 10**15 images collide with probability 10**-9.
_DIGEST_BYTES = 16


def digest(*parts: Part) -> str:
    """Digest of a sequence of parts; the boundaries and types of the parts count.

    Parameters
    ----------
    *parts : bytes-like, str, int, float, bool or None
        What to hash, in order.

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
        flat = memoryview(data)
        view = flat.cast("B") if flat.nbytes else memoryview(b"")
        state.update(f"{kind}{view.nbytes}:".encode())
        state.update(view)
    return _PREFIX + state.hexdigest()


def digest_array(array: AnyArray) -> str:
    """Digest of an array's dtype, shape and values, whatever its memory layout."""
    canonical = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    shape = ",".join(map(str, array.shape))
    return digest(canonical.dtype.str, shape, canonical.reshape(-1).view(np.uint8).data)


def stat_signature(path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    """Size, times of modification and of change (ns), and number of a file.

    While all four stay, the content is taken to stay. A copy that keeps size and modification time
    has another time of change and, unless it was written in place, another number.

    Raises
    ------
    OSError
        If the file cannot be reached.
    """
    # Not pathlib: it would take half of a warm run's time.
    status = os.stat(path)  # noqa: PTH116
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def version_of(package: str) -> str:
    """Return the version of an imported package, as it states it itself; "" if it states none."""
    return str(getattr(sys.modules.get(package), "__version__", ""))


@functools.cache
def installed_version(distribution: str) -> str:
    """Return the version of an installed distribution; "" if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def combine(digests: Iterable[str]) -> str:
    """Digest of several digests, in order."""
    return digest(*digests)


def _encode(part: Part) -> tuple[str, Data]:
    if isinstance(part, str):
        return "s", part.encode()
    if part is None or isinstance(part, bool | int | float):
        return type(part).__name__, repr(part).encode()
    return "b", part
