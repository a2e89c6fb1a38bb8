"""Tags of the first picture in a TIFF, and whether Pillow reads that picture as it is.

The tags are read here, from the first bytes that matter, since the answer is needed for each TIFF
and Pillow's own answer may be a warning.
"""

import re
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

Tags: TypeAlias = Mapping[int, Any]

BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 258, 259, 262, 270
ORIENTATION, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT = 274, 277, 338, 339
# Not a tag: whether the numbers of the file are big-endian.
BIG_ENDIAN = -1
GRAY_WHITE_IS_ZERO, GRAY, RGB = 0, 1, 2
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
PREMULTIPLIED_ALPHA, ALPHA = 1, 2
# Photometric interpretations of numbers; others are palettes and compressed colors.
SCIENTIFIC = (GRAY_WHITE_IS_ZERO, GRAY, RGB)

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Codes of struct and bytes, by type of a tag: bytes, text, shorts, longs and their signed forms.
_TYPES = {1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}
_READ = {BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT}
_MOST_TAGS, _MOST_VALUES, _MOST_TEXT = 1000, 64, 2**20
# What Pillow's libtiff decompresses; others are JPEG 2000, JPEG XR, LERC and the like.
_PILLOW_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946, 34676, 34677, 34925, 50000}
# Bits and sample formats of gray pictures that Pillow reads without loss.
_PILLOW_GRAY = {(b, UNSIGNED) for b in (1, 2, 4, 8, 12, 16)} | {
    (16, SIGNED),
    (32, SIGNED),
    (32, FLOAT),
}
_SWAPPED_TWICE = {(16, SIGNED), (32, SIGNED), (32, FLOAT)}
_IMAGEJ_CHANNELS = re.compile(r"^channels=(\d+)", re.MULTILINE)
_OME_CHANNELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*\bSizeC=\"(\d+)\"")


def is_tiff(data: bytes) -> bool:
    """Whether content begins as a TIFF or BigTIFF."""
    return data.startswith(_MAGIC)


def first_tags(data: bytes) -> dict[int, Any]:
    """Return some tags of the first picture; an empty dictionary if they are damaged.

    Texts are str, other values tuples of int.
    """
    try:
        order, big, start, count = _first_directory(data)
        size = 20 if big else 12
        entries = (start + i * size for i in range(min(count, _MOST_TAGS)))
        found = (_tag(data, at, order, big) for at in entries)
        tags = dict(tag for tag in found if tag is not None)
        return {**tags, BIG_ENDIAN: (int(order == ">"),)} if tags else {}
    except (struct.error, OverflowError):
        return {}


def has_several_pages(data: bytes) -> bool:
    """Whether a second picture follows the first."""
    try:
        order, big, start, count = _first_directory(data)
        code = "Q" if big else "I"
        (following,) = struct.unpack_from(order + code, data, start + count * (20 if big else 12))
        return bool(following)
    except (struct.error, OverflowError):
        return False


def _first_directory(data: bytes) -> tuple[str, bool, int, int]:
    """Return byte order, whether it is a BigTIFF, and the place and number of the first's tags."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    count_code = "Q" if big else "H"
    (count,) = struct.unpack_from(order + count_code, data, at)
    return order, big, at + struct.calcsize(order + count_code), count


def samples(tags: Tags) -> int:
    """Return the number of samples of a pixel."""
    return first(tags, SAMPLES, 1)


def photometric(tags: Tags) -> int:
    """Return the photometric interpretation."""
    return first(tags, PHOTOMETRIC, GRAY)


def pillow_reads(tags: Tags) -> bool:
    """Whether Pillow reads a picture with these tags, with all its bits and channels."""
    n_samples, bits = samples(tags), max(tags.get(BITS, (1,)))
    form, kind = first(tags, SAMPLE_FORMAT, UNSIGNED), photometric(tags)
    if first(tags, COMPRESSION, 1) not in _PILLOW_COMPRESSIONS or _channels_of_pages(tags) > 1:
        return False
    if n_samples == 1:
        # Pillow does not invert a picture of more than 8 bits whose zero is white, and swaps the
        # bytes of some numbers that libtiff has swapped already.
        white_is_zero = kind == GRAY_WHITE_IS_ZERO and bits > 8
        is_native = not first(tags, BIG_ENDIAN, 0) or first(tags, COMPRESSION, 1) == 1
        swapped_twice = not is_native and (bits, form) in _SWAPPED_TWICE
        return (bits, form) in _PILLOW_GRAY and not (white_is_zero or swapped_twice)
    if bits > 8 or form != UNSIGNED:
        return False
    alpha = first(tags, EXTRA_SAMPLES, 0) in (PREMULTIPLIED_ALPHA, ALPHA)
    if kind in (GRAY, GRAY_WHITE_IS_ZERO):
        return kind == GRAY and n_samples == 2 and alpha
    return n_samples in (3, 4)


def _channels_of_pages(tags: Tags) -> int:
    """Return the number of channels that lie in pages of their own."""
    text = str(tags.get(DESCRIPTION, ""))
    pattern = _IMAGEJ_CHANNELS if text.startswith("ImageJ=") else _OME_CHANNELS
    found = pattern.search(text)
    return int(found[1]) if found and samples(tags) == 1 else 1


def first(tags: Tags, code: int, default: int) -> int:
    """Return the first value of a tag."""
    value: Any = tags.get(code)
    number: Any = value[0] if isinstance(value, tuple | list) and value else value
    return default if number is None or isinstance(number, str) else int(number)


def _tag(data: bytes, at: int, order: str, big: bool) -> tuple[int, Any] | None:
    code, kind, count = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, at)
    if code not in _READ or kind not in _TYPES:
        return None
    letter, size = _TYPES[kind]
    count = min(count, _MOST_TEXT if letter == "s" else _MOST_VALUES)
    place, inline = (at + 12, 8) if big else (at + 8, 4)
    if size * count > inline:
        (place,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, place)
    if letter == "s":
        return code, data[place : place + count].decode("utf-8", "replace")
    return code, struct.unpack_from(f"{order}{count}{letter}", data, place)
