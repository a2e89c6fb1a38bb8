"""Encoded pictures: base64 and data URLs in text, and vectors of the bytes of a file."""

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from .._messages import cause
from ..exceptions import ImageError
from ._recognize import is_tensor, tensor_to_array

# The first bytes of image files in base64: PNG, JPEG, GIF, WebP, TIFF, BMP.
_BASE64_OF_IMAGES = ("iVBORw0KGgo", "/9j/", "_9j_", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "Qk0")
# RFC 2397: data:[type][;attribute=value][;base64],data. A value in quotes may hold commas.
_DATA_URL = re.compile(r'\s*data:((?:[^,"]|"[^"]*")*),', re.IGNORECASE)
# RFC 4648, section 5.
_URL_SAFE = str.maketrans("-_", "+/")
# A shorter text may be a file name; no image file is that short in base64.
_SHORTEST_BASE64 = 64

# The first bytes of image files: PNG, JPEG, GIF, WebP, TIFF, BigTIFF, BMP, JPEG XL, JPEG 2000.
_STARTS: tuple[bytes, ...] = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_STARTS += (b"II+\0", b"MM\0+", b"BM", b"\xff\x0a", b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ")
_LONGEST_START = 132


def is_encoded(text: str) -> bool:
    """Whether a text is an image in base64 or a data URL, not a file name."""
    return _head(text) is not None or _is_base64(text)


def decoded(text: str) -> bytes | None:
    """Return the bytes of an image in base64 or in a data URL; None if the text is a file name.

    Raises `ImageError` if the text is damaged.
    """
    head = _head(text)
    if head is None:
        return _of_base64(text) if _is_base64(text) else None
    data = text[head.end() :]
    if not _is_of_base64(head):
        return unquote_to_bytes(data)
    return _of_base64(unquote(data) if "%" in data else data)


def _is_base64(text: str) -> bool:
    if len(text) < _SHORTEST_BASE64:
        return False
    return text[:_SHORTEST_BASE64].lstrip().startswith(_BASE64_OF_IMAGES)


def _head(text: str) -> re.Match[str] | None:
    head = _DATA_URL.match(text)
    if head is None or not (_is_of_base64(head) or head.group(1).lower().startswith("image/")):
        return None
    return head


def _is_of_base64(head: re.Match[str]) -> bool:
    return "".join(head.group(1).split()).lower().endswith(";base64")


def _of_base64(text: str) -> bytes:
    """Decode base64 of both alphabets, with line breaks, with or without padding."""
    text = text.strip()
    if " " in text:
        # Without them it could be another picture.
        raise ImageError(
            "is damaged base64: it has spaces, in place of + or of line breaks. Pass "
            'text.replace(" ", "+") or text.replace(" ", "").',
            path=text,
        )
    encoded = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"is damaged base64: {cause(error)}", path=text) from error


def is_buffer(value: Any) -> bool:
    """Whether a value is a vector of uint8 that begins like an image file.

    OpenCV's `imencode`, torchvision's `read_file` and HDF5 datasets of variable length give them.
    """
    if not (is_tensor(value) or isinstance(value, np.ndarray)):
        return False
    if value.ndim != 1 or not str(value.dtype).endswith("uint8"):
        return False
    start = value[:_LONGEST_START]
    data = (tensor_to_array(start) if is_tensor(start) else start).tobytes()
    return data.startswith(_STARTS) or data[4:8] == b"ftyp" or data[128:132] == b"DICM"
