"""DICOM headers: the values that the meaning of pixels depends on, and no others.

pydicom finds the elements of `_TAGS` and skips all others: no name, date or number of a patient
enters memory as text. Values are converted here, from their bytes: pydicom's own conversion warns
with the value, and stops at values of a wrong type that say clearly enough what they mean.
"""

import re
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Self

import numpy as np

from ..._optional import import_optional
from ...exceptions import ImageError
from .._pillow import pixel_limit

# Attributes of the pixels: PS3.3, C.7.6.3, C.11.1, C.11.2, C.11.4 and C.11.6.
SOP_CLASS = 0x00080016
MODALITY = 0x00080060
SAMPLES = 0x00280002
PHOTOMETRIC = 0x00280004
PLANAR = 0x00280006
FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
BITS_ALLOCATED = 0x00280100
BITS_STORED = 0x00280101
HIGH_BIT = 0x00280102
SIGNED = 0x00280103
PADDING = 0x00280120
PADDING_LIMIT = 0x00280121
CENTER = 0x00281050
WIDTH = 0x00281051
INTERCEPT = 0x00281052
SLOPE = 0x00281053
RESCALE_TYPE = 0x00281054
VOI_FUNCTION = 0x00281056
RED_DESCRIPTOR, GREEN_DESCRIPTOR, BLUE_DESCRIPTOR = 0x00281101, 0x00281102, 0x00281103
RED, GREEN, BLUE = 0x00281201, 0x00281202, 0x00281203
SEGMENTED_RED, SEGMENTED_GREEN, SEGMENTED_BLUE = 0x00281221, 0x00281222, 0x00281223
MODALITY_LUT = 0x00283000
LUT_DESCRIPTOR = 0x00283002
LUT_DATA = 0x00283006
VOI_LUT = 0x00283010
PRESENTATION_LUT = 0x20500010
PRESENTATION_SHAPE = 0x20500020
DOSE_SCALING = 0x3004000E
SHARED_GROUPS = 0x52009229
FRAME_GROUPS = 0x52009230
_FRAME_VOI = 0x00289132
_FRAME_RESCALE = 0x00289145
OFFSETS, OFFSET_LENGTHS = 0x7FE00001, 0x7FE00002
FLOAT_PIXELS, DOUBLE_PIXELS, PIXELS = 0x7FE00008, 0x7FE00009, 0x7FE00010

_TAGS = [
    *(SOP_CLASS, MODALITY, SAMPLES, PHOTOMETRIC, PLANAR, FRAMES, ROWS, COLUMNS, BITS_ALLOCATED),
    *(BITS_STORED, HIGH_BIT, SIGNED, PADDING, PADDING_LIMIT, CENTER, WIDTH, INTERCEPT, SLOPE),
    *(RESCALE_TYPE, VOI_FUNCTION, RED_DESCRIPTOR, GREEN_DESCRIPTOR, BLUE_DESCRIPTOR, RED, GREEN),
    *(BLUE, SEGMENTED_RED, SEGMENTED_GREEN, SEGMENTED_BLUE, MODALITY_LUT, VOI_LUT),
    *(PRESENTATION_LUT, PRESENTATION_SHAPE, DOSE_SCALING, SHARED_GROUPS, FRAME_GROUPS, OFFSETS),
    *(OFFSET_LENGTHS, FLOAT_PIXELS, DOUBLE_PIXELS, PIXELS),
]
_NUMERIC = {"US": "u2", "SS": "i2", "UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8", "OV": "u8"}
_DAMAGED = "the DICOM file is damaged or truncated: {}"
_UID = re.compile(rb"[0-9.]{0,64}[ \0]*")
# End of the preamble and the prefix; types (VR) whose length has four bytes: PS3.5, table 7.1-1.
_PREFIX_END = 132
_LONG_TYPES = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# Offset of the data set in a file whose group 0002 is empty: preamble, prefix, group length.
_AFTER_LENGTH = 144


class Header:
    """The elements of a data set or of an item of a sequence.

    Parameters
    ----------
    dataset : pydicom.Dataset
        The data set.
    transfer_syntax : str, default=""
        UID of the encoding of the pixels; "" if the file names none.
    size : int, default=0
        Number of bytes of the file, not deflated.
    """

    def __init__(self, dataset: Any, transfer_syntax: str = "", size: int = 0) -> None:
        self.size = size
        self._dataset = dataset
        self._elements = {int(tag): dataset.get_item(tag) for tag in dataset.keys()}  # noqa: SIM118
        self.transfer_syntax = transfer_syntax

    def __contains__(self, tag: int) -> bool:
        return tag in self._elements

    def is_filled(self, tag: int) -> bool:
        """Whether an element has a value."""
        return tag in self and bool(self._element(tag).value)

    def representation(self, tag: int) -> str:
        """Return the type (VR) that the file names for an element; "" if it names none."""
        return str(self._element(tag).VR or "") if tag in self else ""

    def data(self, tag: int) -> bytes:
        """Return the bytes of an element; empty if it is missing."""
        value = self._element(tag).value if tag in self else b""
        return value if isinstance(value, bytes) else b""

    def encapsulated(self, tag: int) -> bool:
        """Whether the pixels are a sequence of compressed fragments."""
        return bool(getattr(self._element(tag), "length", 0) == 0xFFFFFFFF)

    def text(self, tag: int) -> str:
        """Return the first value of a text."""
        return self.data(tag).split(b"\\")[0].decode("ascii", "replace").strip(" \0")

    def numbers(self, tag: int, kind: str = "DS") -> list[float]:
        """Return the values of a number; `kind` is the type (VR) where the file names none."""
        data, named = self.data(tag), self.representation(tag)
        stored = _NUMERIC.get(named) or _NUMERIC.get(kind)
        if named in ("DS", "IS") or stored is None:
            return [_number(part) for part in data.split(b"\\") if part.strip(b" \0")]
        return [float(n) for n in self.words(tag, stored)]

    def number(self, tag: int, kind: str = "DS") -> float | None:
        """Return the first value of a number; None if it is missing."""
        found = self.numbers(tag, kind)
        return found[0] if found else None

    def integer(self, tag: int, default: int | None = None) -> int | None:
        """Return the first value of a number of 16 bits without a sign, or of a text."""
        found = self.number(tag, "US")
        return default if found is None else int(found)

    def words(self, tag: int, dtype: str = "u2") -> Any:
        """Return the bytes of an element as an array of numbers."""
        data = self.data(tag)
        order = "<" if getattr(self._element(tag), "is_little_endian", True) else ">"
        size = np.dtype(dtype).itemsize
        return np.frombuffer(data[: len(data) // size * size], order + dtype)

    def items(self, tag: int) -> list[Self]:
        """Return the items of a sequence."""
        if tag not in self:
            return []
        value = self._dataset[tag].value
        return [type(self)(item) for item in value] if isinstance(value, Sequence) else []

    def of_frame(self, tag: int, frame: int) -> "Header":
        """Return the place of an attribute: this header, or the functional groups of a frame."""
        if self.is_filled(tag) or not (SHARED_GROUPS in self or FRAME_GROUPS in self):
            return self
        groups = [*self.items(FRAME_GROUPS)[frame : frame + 1], *self.items(SHARED_GROUPS)[:1]]
        for group in groups:
            for sequence in (_FRAME_VOI, _FRAME_RESCALE):
                for item in group.items(sequence)[:1]:
                    if item.is_filled(tag):
                        return item
        return self

    def _element(self, tag: int) -> Any:
        return self._elements.get(tag)


def read_header(data: bytes, longest: int | None, *, with_pixels: bool = True) -> Header:
    """Read a file's header.

    Parameters
    ----------
    data : bytes
        The content of the file.
    longest : int or None
        The maximum number of bytes of a deflated data set.
    with_pixels : bool, default=True
        Whether pixels are wanted as well.

    Returns
    -------
    header : Header
        The elements, with their bytes.

    Raises
    ------
    ImageError
        If pydicom is missing, or the file is damaged.
    """
    pydicom = import_pydicom()
    _refuse_damaged_syntax(data)
    syntax = ""
    start = _start_of_deflated(data)
    if start is not None:
        data, syntax = _inflated(data[start:], longest), "1.2.840.10008.1.2.1"
    try:
        dataset = pydicom.dcmread(
            BytesIO(data), force=True, specific_tags=_TAGS, stop_before_pixels=not with_pixels
        )
        meta = getattr(dataset, "file_meta", None) or {}
        named = str(meta.get("TransferSyntaxUID", "") or "").strip(" \0")
        return Header(dataset, syntax or named or _native_syntax(dataset), len(data))
    except Warning:
        raise
    except Exception as error:
        # pydicom raises errors of any type for damaged headers.
        raise ImageError(damaged("its header", error)) from None


def _refuse_damaged_syntax(data: bytes) -> None:
    """Raise `ImageError` for a transfer syntax that is no UID.

    pydicom would quote it in a warning and a log. After a damaged length, it is the text of other
    elements.
    """
    start = _PREFIX_END if data[:_PREFIX_END].endswith(b"DICM") else 0
    while data[start : start + 2] == b"\x02\x00":
        first, value = _place_of_length(data[start + 4 : start + 6])
        value += start
        end = value + int.from_bytes(data[start + first : value], "little")
        if data[start + 2 : start + 4] == b"\x10\x00" and not _UID.fullmatch(data[value:end]):
            raise ImageError(_DAMAGED.format("its transfer syntax is no UID."))
        start = end


def _place_of_length(representation: bytes) -> tuple[int, int]:
    """Return where the length of an element begins and ends, from the element's start."""
    if not (representation.isalpha() and representation.isupper()):
        # pydicom takes an element without a type (VR) for implicit.
        return 4, 8
    return (8, 12) if representation in _LONG_TYPES else (6, 8)


def import_pydicom() -> Any:
    """Import pydicom; raise `ImageError` with the way to install it."""
    try:
        return import_optional("pydicom", extra="dicom", purpose="a DICOM file")
    except Exception as error:
        # An incomplete installation raises errors of other types.
        reason = str(error) if isinstance(error, ImportError) else type(error).__name__
        raise ImageError(f"pydicom cannot be imported: {reason}") from error


def damaged(part: str, error: Exception) -> str:
    """Describe a damaged file by the type of an error: its message may contain a patient's name."""
    return _DAMAGED.format(f"{part} cannot be read ({type(error).__name__}).")


def _native_syntax(dataset: Any) -> str:
    implicit, little = dataset.original_encoding
    if implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def _start_of_deflated(data: bytes) -> int | None:
    """Return the offset of a deflated data set; None if it is not deflated."""
    if data[128:138] != b"DICM\x02\0\0\0UL":
        return None
    start = _AFTER_LENGTH + int.from_bytes(data[140:144], "little")
    return start if _DEFLATED in data[_AFTER_LENGTH:start][:4096] else None


def _inflated(data: bytes, longest: int | None) -> bytes:
    """Decompress a data set; pydicom would do so without a limit."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(data, longest or 0)
    except zlib.error as error:
        raise ImageError(damaged("its deflated data set", error)) from None
    if inflater.unconsumed_tail:
        raise ImageError(
            f"the deflated DICOM data set has more than {longest} bytes, the limit that follows "
            f"from {pixel_limit()}"
        )
    return plain


def _number(text: bytes) -> float:
    return float(text.strip(b" \0").decode("ascii", "replace"))
