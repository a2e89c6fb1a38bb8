"""A row and its bytes on disk.

::

    magic  version  dtype  ndim  zero  CRC-32   shape          values
    4 B    1 B      1 B    1 B   1 B   4 B      ndim x 4 B     little endian, C order

The checksum covers the row's name, the header and the values, so neither a flipped bit nor a row
under another row's name can be read as this row. CRC-32 finds every single flipped bit; it runs at
2.2 GB/s here, BLAKE2 at 0.6.

No pickle: a row that was tampered with can be wrong numbers at worst, never code.
"""

import functools
import math
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray

Storage: TypeAlias = Literal["float32", "float16", "bfloat16"]
STORAGES: tuple[str, ...] = get_args(Storage)

_MAGIC = b"fxrw"
_VERSION = 1
_HEAD = struct.Struct("<4sBBBB")
_CHECKSUM = struct.Struct("<I")
_START = _HEAD.size + _CHECKSUM.size
_NDIM_AT = 6
_MAX_NDIM = 8

# Codes on disk: never renumber. bfloat16 is kept as the upper half of a float32.
_BFLOAT16 = 3
_CODES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f2"),
    _BFLOAT16: np.dtype("<u2"),
    4: np.dtype("u1"),
    5: np.dtype("<f8"),
    6: np.dtype("<i8"),
    7: np.dtype("?"),
    # float16 rows that were given as float16, unlike code 2, which is read as float32.
    8: np.dtype("<f2"),
}
_NARROWED = {"float32": 1, "float16": 2, "bfloat16": _BFLOAT16}
_UNCHANGED = {"uint8": 4, "float64": 5, "int64": 6, "bool": 7, "float16": 8}


class Layout(NamedTuple):
    """What all rows of one recipe have in common."""

    code: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which a row is handed out."""
        narrow = self.code in (2, _BFLOAT16)
        return np.dtype(np.float32) if narrow else _CODES[self.code].newbyteorder("=")


def check_rows(rows: AnyArray, storage: Storage) -> int:
    """Check that an array of rows can be kept, and choose its code on disk.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, ...)
        The rows.
    storage : {"float32", "float16", "bfloat16"}
        How float32 rows are kept.

    Returns
    -------
    code : int
        The code of their dtype on disk.

    Raises
    ------
    ValueError
        If the dtype cannot be kept, or a row has more than eight axes.
    """
    name = rows.dtype.newbyteorder("=").name
    if name != "float32" and name not in _UNCHANGED:
        known = ", ".join(sorted({"float32", *_UNCHANGED}))
        raise ValueError(f"rows of dtype {rows.dtype} cannot be kept; expected one of {known}")
    if rows.ndim > _MAX_NDIM + 1:
        raise ValueError(f"a row has at most {_MAX_NDIM} axes, got {rows.ndim - 1}")
    return _NARROWED[storage] if name == "float32" else _UNCHANGED[name]


def narrow(rows: AnyArray, code: int) -> AnyArray:
    """Rows as they lie on disk: contiguous, little endian, in the dtype of their code."""
    if code == _BFLOAT16:
        return _to_bfloat16(rows.astype(np.float32, copy=False))
    # Beyond float16's range a value becomes infinite, as documented: no warning per batch.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=_CODES[code])


def widen(values: AnyArray, code: int) -> AnyArray:
    """Rows as they are handed out, from what lies on disk."""
    if code == _BFLOAT16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32) if code == 2 else values


def encode_rows(names: list[bytes], rows: AnyArray, code: int) -> Iterator[bytes]:
    """Blobs of rows, in order.

    Parameters
    ----------
    names : list of bytes
        The name of each row in the database.
    rows : ndarray of shape (n_rows, ...)
        The rows, as `narrow` returned them.
    code : int
        The code of their dtype.

    Yields
    ------
    blob : bytes
        Header, checksum and values of one row.
    """
    shape = rows.shape[1:]
    head = _HEAD.pack(_MAGIC, _VERSION, code, len(shape), 0)
    axes = struct.pack(f"<{len(shape)}I", *shape)
    flat = rows.reshape(len(rows), -1) if rows.size else np.empty((len(rows), 0), rows.dtype)
    for name, row in zip(names, flat, strict=True):
        values = row.view(np.uint8).data
        checksum = zlib.crc32(values, zlib.crc32(name + head + axes))
        yield b"".join((head, _CHECKSUM.pack(checksum), axes, values))


def decode_row(name: bytes, blob: object) -> tuple[Layout, AnyArray] | None:
    """Read a row from its blob.

    Parameters
    ----------
    name : bytes
        The name under which the blob was found.
    blob : object
        What the database returned: bytes, unless it is damaged.

    Returns
    -------
    row : tuple of (Layout, ndarray) or None
        The row's layout and its values, still narrow and flat; None for a blob that is not exactly
        what was written under this name.
    """
    if not isinstance(blob, bytes) or len(blob) < _START:
        return None
    end = _START + 4 * blob[_NDIM_AT]
    header = blob[: _HEAD.size] + blob[_START:end]
    layout = _read_header(header)
    values = memoryview(blob)[end:]
    checksum = zlib.crc32(values, zlib.crc32(name + header))
    if layout is None or _CHECKSUM.unpack_from(blob, _HEAD.size)[0] != checksum:
        return None
    dtype = _CODES[layout.code]
    if len(values) != dtype.itemsize * math.prod(layout.shape):
        return None
    return layout, np.frombuffer(values, dtype)


# Rows of one recipe have one header: it is read once, not once per row.
@functools.lru_cache(maxsize=64)
def _read_header(header: bytes) -> Layout | None:
    magic, version, code, ndim, zero = _HEAD.unpack_from(header)
    if (magic, version, zero) != (_MAGIC, _VERSION, 0) or code not in _CODES or ndim > _MAX_NDIM:
        return None
    if len(header) != _HEAD.size + 4 * ndim:
        return None
    return Layout(code, struct.unpack_from(f"<{ndim}I", header, _HEAD.size))


def _to_bfloat16(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to nearest, ties to even; NaN stays NaN, with its sign."""
    bits = np.ascontiguousarray(rows).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # Rounding could carry a NaN into infinity or beyond: cut it and set its quiet bit instead.
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    narrow_bits = np.where(np.isnan(rows), quiet, rounded).astype(np.uint16)
    return narrow_bits.astype("<u2", copy=False) if sys.byteorder == "big" else narrow_bits
