"""The encoding of a row on disk.

::

    magic  version  dtype  ndim  zero  CRC-32   shape          values
    4 B    1 B      1 B    1 B   1 B   4 B      ndim x 4 B     little endian, C order

The checksum covers the row's name, the header and the values. It detects flipped bits and a row
under another row's name. CRC-32 detects every single-bit error, and
is faster than BLAKE2.

Rows are never pickled: a manipulated row can only contain wrong numbers, not code.
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

# Codes on disk, which must never change. bfloat16 is stored as the upper half of a float32.
_BFLOAT16 = 3
_CODES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f2"),
    _BFLOAT16: np.dtype("<u2"),
    4: np.dtype("u1"),
    5: np.dtype("<f8"),
    6: np.dtype("<i8"),
    7: np.dtype("?"),
    # Rows that were put as float16; rows of code 2 were put as float32 and are read as float32.
    8: np.dtype("<f2"),
}
_NARROWED = {"float32": 1, "float16": 2, "bfloat16": _BFLOAT16}
_UNCHANGED = {"uint8": 4, "float64": 5, "int64": 6, "bool": 7, "float16": 8}


class RowFormat(NamedTuple):
    """The dtype code and shape that all rows of one recipe share."""

    code: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a row that is read."""
        narrow = self.code in (2, _BFLOAT16)
        return np.dtype(np.float32) if narrow else _CODES[self.code].newbyteorder("=")


def check_rows(rows: AnyArray, storage: Storage) -> int:
    """Check that an array of rows can be stored, and return its dtype code.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, ...)
        The rows.
    storage : {"float32", "float16", "bfloat16"}
        The storage dtype of float32 rows.

    Returns
    -------
    code : int
        The dtype code.

    Raises
    ------
    ValueError
        If the dtype cannot be stored, or a row has more than eight axes.
    """
    name = rows.dtype.newbyteorder("=").name
    if name != "float32" and name not in _UNCHANGED:
        known = ", ".join(sorted({"float32", *_UNCHANGED}))
        raise ValueError(f"rows of dtype {rows.dtype} cannot be stored; expected one of {known}")
    if rows.ndim > _MAX_NDIM + 1:
        raise ValueError(f"a row has at most {_MAX_NDIM} axes, got {rows.ndim - 1}")
    return _NARROWED[storage] if name == "float32" else _UNCHANGED[name]


def narrow(rows: AnyArray, code: int) -> AnyArray:
    """Return rows in their disk format: contiguous, little endian, in the dtype of their code."""
    if code == _BFLOAT16:
        return _to_bfloat16(rows.astype(np.float32, copy=False))
    # Values beyond the range of float16 become infinite, as documented, without a warning.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=_CODES[code])


def widen(values: AnyArray, code: int) -> AnyArray:
    """Return rows in the dtype of a read, from their disk format."""
    if code == _BFLOAT16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32) if code == 2 else values


def encode_rows(names: list[bytes], rows: AnyArray, code: int) -> Iterator[bytes]:
    """Encode rows, in order.

    Parameters
    ----------
    names : list of bytes
        The name of each row in the database.
    rows : ndarray of shape (n_rows, ...)
        The rows, as returned by `narrow`.
    code : int
        The dtype code.

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


def decode_row(name: bytes, blob: object) -> tuple[RowFormat, AnyArray] | None:
    """Read a row from its blob.

    Parameters
    ----------
    name : bytes
        The name under which the blob was found.
    blob : object
        The value in the database: bytes, unless the database is damaged.

    Returns
    -------
    row : tuple of (RowFormat, ndarray) or None
        The row's format and its values, flat and in the disk dtype; None if the blob is not exactly
        the one that was written under this name.
    """
    if not isinstance(blob, bytes) or len(blob) < _START:
        return None
    end = _START + 4 * blob[_NDIM_AT]
    header = blob[: _HEAD.size] + blob[_START:end]
    row_format = _read_header(header)
    values = memoryview(blob)[end:]
    checksum = zlib.crc32(values, zlib.crc32(name + header))
    if row_format is None or _CHECKSUM.unpack_from(blob, _HEAD.size)[0] != checksum:
        return None
    dtype = _CODES[row_format.code]
    if len(values) != dtype.itemsize * math.prod(row_format.shape):
        return None
    return row_format, np.frombuffer(values, dtype)


# All rows of a recipe have the same header, so it is parsed once.
@functools.lru_cache(maxsize=64)
def _read_header(header: bytes) -> RowFormat | None:
    magic, version, code, ndim, zero = _HEAD.unpack_from(header)
    if (magic, version, zero) != (_MAGIC, _VERSION, 0) or code not in _CODES or ndim > _MAX_NDIM:
        return None
    if len(header) != _HEAD.size + 4 * ndim:
        return None
    return RowFormat(code, struct.unpack_from(f"<{ndim}I", header, _HEAD.size))


def _to_bfloat16(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to nearest, ties to even; NaN stays NaN, with its sign."""
    bits = np.ascontiguousarray(rows).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # Rounding could turn a NaN into infinity: it is truncated and its quiet bit set.
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    narrow_bits = np.where(np.isnan(rows), quiet, rounded).astype(np.uint16)
    return narrow_bits.astype("<u2", copy=False) if sys.byteorder == "big" else narrow_bits
