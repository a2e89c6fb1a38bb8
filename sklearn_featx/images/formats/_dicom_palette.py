"""Palettes of DICOM files, plain or in segments (PS3.3, C.7.6.3.1.5 and C.7.9.2)."""

from typing import Any

import numpy as np

from ..._typing import AnyArray, Levels
from ...exceptions import ImageError
from .._scaling import to_levels
from . import _dicom_header as tags
from ._dicom_header import Header

_DESCRIPTORS = (tags.RED_DESCRIPTOR, tags.GREEN_DESCRIPTOR, tags.BLUE_DESCRIPTOR)
_PLAIN = (tags.RED, tags.GREEN, tags.BLUE)
_SEGMENTED = (tags.SEGMENTED_RED, tags.SEGMENTED_GREEN, tags.SEGMENTED_BLUE)
_MOST = 2**16
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def palette_levels(words: AnyArray, header: Header) -> Levels:
    """Look up the colors of words (H, W); return levels (H, W, 3)."""
    channels = [_read(header, *both) for both in zip(_DESCRIPTORS, _PLAIN, _SEGMENTED, strict=True)]
    colors = np.stack([_mapped(words, first, entries) for first, entries in channels], axis=2)
    if colors.dtype == np.uint8:
        return colors
    if not any((entries & 255).any() for _, entries in channels):
        # Entries of 8 bits, in the upper byte of 16.
        return (colors >> 8).astype(np.uint8)
    return to_levels(colors, (0.0, 65535.0))


def _read(header: Header, descriptor: int, plain: int, segmented: int) -> tuple[int, AnyArray]:
    """Return the first value that is mapped, and the entries."""
    words: Any = header.words(descriptor) if descriptor in header else ()
    if len(words) != 3:
        raise ImageError("the DICOM file has a palette without a description.")
    count, bits = int(words[0]) or _MOST, int(words[2])
    signed = header.representation(descriptor) == "SS"
    first = int(words[1].astype(np.int16)) if signed else int(words[1])
    if header.is_filled(plain):
        size = len(header.data(plain))
        wide = size >= 2 * count
        entries = header.words(plain) if wide else np.frombuffer(header.data(plain), np.uint8)
    elif header.is_filled(segmented):
        wide = bits > 8
        entries = _expanded(header.words(segmented, "u2" if wide else "u1"))
    else:
        raise ImageError("the DICOM file has colors of a palette that it does not contain.")
    if not len(entries):
        raise ImageError("the DICOM file has an empty palette.")
    if wide and bits <= 8 and entries.max() < 256:
        entries = entries.astype(np.uint8)
    return first, entries[:count].astype(entries.dtype.newbyteorder("="))


def _mapped(words: AnyArray, first: int, entries: AnyArray) -> AnyArray:
    found: AnyArray = entries[(words.astype(np.int64) - first).clip(0, len(entries) - 1)]
    return found


def _expanded(data: AnyArray) -> AnyArray:
    """Expand a palette in segments."""
    found: list[int] = []
    _append_segments([int(n) for n in data], 0, len(data), found, nested=False)
    return np.array(found[:_MOST], data.dtype)


def _append_segments(
    data: list[int], at: int, most: int, found: list[int], *, nested: bool
) -> None:
    """Append the entries of at most `most` segments from a position on."""
    while most and at + 1 < len(data) and len(found) < _MOST:
        kind, count = data[at], data[at + 1]
        at, most = at + 2, most - 1
        if kind == _DISCRETE:
            found += data[at : at + count]
            at += count
        elif kind == _LINEAR and at < len(data) and found:
            # The segment begins after the last entry, and ends with its own.
            found += np.rint(np.linspace(found[-1], data[at], count + 1)[1:]).astype(int).tolist()
            at += 1
        elif kind == _INDIRECT and not nested:
            # The offset of the first segment to repeat, in bytes or words, low half first.
            size = 16 if max(data) > 255 else 8
            parts = data[at : at + 32 // size] if size == 8 else data[at : at + 2]
            offset = sum(part << (size * i) for i, part in enumerate(parts))
            at += len(parts)
            _append_segments(data, offset, count, found, nested=True)
        else:
            return
