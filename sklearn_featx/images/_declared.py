"""Declared ranges: the values of black and white according to a picture's type and file.

==========================================  ======================================
picture                                     black, white
==========================================  ======================================
TIFF with SMinSampleValue, SMaxSampleValue  these; a missing minimum is 0
TIFF with MinSampleValue, MaxSampleValue    likewise
OME-TIFF with SignificantBits               0, the largest value of these bits
16-bit gray, TIFF of 9 to 15 bits           0, the largest value of its bits
16-bit gray otherwise                       0, 65535
32-bit integers from a PNG or PPM           0, 65535, to which Pillow scales them
other integers                              0, 255
float                                       0, 1
==========================================  ======================================

The sBIT chunk of a PNG states the bits of the source, but the values in the file have the full
scale (PNG specification, 11.3.2.7). A copy of a picture in memory loses the declaration of its
file.
"""

import re
from typing import Any

from PIL import Image

from ._scaling import ValueRange

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
TIFF_DESCRIPTION = 270
# Tags 340 and 341 have the type of the values; the older tags 280 and 281 have 16 bits.
_MIN_AND_MAX = ((340, 341), (280, 281))
_OME_BITS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*\bSignificantBits=\"(\d+)\"")


def declared_range(image: Image.Image) -> ValueRange:
    """Return the values of black and white of a gray picture with more than 8 bits."""
    tags: Any = getattr(image, "tag_v2", None) if image.format in ("TIFF", "MPO") else None
    declared = None if tags is None else tiff_range(tags)
    if declared is not None:
        return declared
    if image.mode == "F":
        return 0.0, 1.0
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        return 0.0, 65535.0
    return 0.0, 255.0


def white_is_zero(image: Image.Image) -> bool:
    """Whether a gray picture is stored as a negative: a kind of TIFF.

    Pillow inverts pictures of up to 8 bits, and leaves others as they are stored.
    """
    tags: Any = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    return tags is not None and tags.get(_PHOTOMETRIC) == 0


def tiff_range(tags: Any) -> ValueRange | None:
    """Return the values of black and white that the tags of a TIFF declare; None if none."""
    for low_tag, high_tag in _MIN_AND_MAX:
        low, high = _number(tags.get(low_tag, 0)), _number(tags.get(high_tag))
        if low is not None and high is not None and low < high:
            return low, high
    bits = _number(tags.get(_BITS_PER_SAMPLE)) or 16
    found = _OME_BITS.search(str(tags.get(TIFF_DESCRIPTION, "")))
    significant = int(found[1]) if found else bits
    if 8 < significant < 16 and bits <= 16:
        return 0.0, float(2**significant - 1)
    return None


def declares_bits(description: Any) -> bool:
    """Whether the description of a first page declares the bits of all pages, as OME's does."""
    return _OME_BITS.search(str(description)) is not None


def _number(value: Any) -> float | None:
    """Return a tag's value for the first sample; None if it is no number."""
    first = value[0] if isinstance(value, tuple) and value else value
    try:
        return float(first)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
