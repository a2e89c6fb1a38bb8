"""Stored pixels of DICOM files: one frame, as an array of what the file stores.

pydicom and its plugins decode. Sizes are compared before a byte is decoded: those of the header
with the data, and those of a compressed stream with the header.
"""

import importlib
import math
from typing import Any, NamedTuple

import numpy as np

from ..._typing import AnyArray
from ...exceptions import ImageError
from .._pillow import refuse_bomb
from . import _dicom_header as tags
from ._dicom_header import Header, damaged

_GRAY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# The packages of permissive licenses that decode a transfer syntax: (last parts of the UIDs below
# 1.2.840.10008.1.2.4, kind, packages).
_CODECS = (
    (("50", "51"), "JPEG", "pillow python-gdcm"),
    (("57", "70"), "lossless JPEG", "python-gdcm"),
    (("80", "81"), "JPEG-LS", "python-gdcm"),
    (("90", "91"), "JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    (("201", "202", "203"), "High-Throughput JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
)
# The modules of these packages.
_MODULES = {
    "pillow": "PIL",
    "pylibjpeg": "pylibjpeg",
    "pylibjpeg-openjpeg": "openjpeg",
    "python-gdcm": "gdcm",
}
_UIDS = "1.2.840.10008.1.2.4."
_VIDEO = tuple(f"{_UIDS}{n}" for n in (*range(100, 109), "110.1"))
_EXTENDED = "1.2.840.10008.1.2.4.51"
_RLE = "1.2.840.10008.1.2.5"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
# JPEG and JPEG 2000, whose samples of a pixel lie together.
_OF_PIXELS = tuple(_UIDS + n for n in ("50", "51", "57", "70", "90", "91", "201", "202", "203"))
# Markers of JPEG streams: frames with a size, and markers without a length.
_SIZED = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_BARE = {0x01, *range(0xD0, 0xD9), 0xFF}


class Shape(NamedTuple):
    """Size and kind of the pixels, according to the header."""

    rows: int
    columns: int
    samples: int
    bits: int
    frames: int
    photometric: str

    @property
    def frame_bytes(self) -> int:
        """Number of bytes of one frame that is not compressed."""
        pixels = self.rows * self.columns
        if self.photometric == "YBR_FULL_422":
            return (pixels + pixels % 2) * 2 * self.bits // 8
        return math.ceil(pixels * self.samples * self.bits / 8)


def read_shape(header: Header) -> Shape:
    """Return a valid shape of the pixels; raise `ImageError` otherwise, also for a bomb."""
    rows, columns = (header.integer(tag) or 0 for tag in (tags.ROWS, tags.COLUMNS))
    if rows <= 0 or columns <= 0:
        raise ImageError("the DICOM file names no size (Rows, Columns) of its pixels.")
    refuse_bomb(rows * columns)
    shape = Shape(
        rows,
        columns,
        header.integer(tags.SAMPLES, 1) or 1,
        header.integer(tags.BITS_ALLOCATED, 0) or 0,
        _n_frames(header.text(tags.FRAMES)),
        header.text(tags.PHOTOMETRIC) or "MONOCHROME2",
    )
    if shape.photometric not in (*_GRAY, *_COLOR):
        raise ImageError(
            "the DICOM file has pixels of a retired or unknown kind (PhotometricInterpretation). "
            f"Expected one of {', '.join((*_GRAY, *_COLOR))}."
        )
    if shape.samples != (1 if shape.photometric in _GRAY else 3):
        raise ImageError(
            f"the DICOM file has {shape.samples} samples for each pixel, which does not fit "
            f"{shape.photometric}."
        )
    if shape.bits not in (1, 8, 16, 32, 64):
        raise ImageError(f"the DICOM file has pixels of {shape.bits} bits, which is not valid.")
    return shape


def _check_length(shape: Shape, data: bytes) -> None:
    """Check the number of bytes of pixels that are not compressed."""
    expected, length = shape.frame_bytes * shape.frames, len(data)
    if length < expected:
        raise ImageError(
            f"the DICOM file is truncated: it has {length} of {expected} bytes of pixels."
        )
    # Some writers pad the pixels with zeros. A wrong number of rows or columns leaves one over.
    line = min(shape.rows, shape.columns) * shape.samples * shape.bits // 8
    left_over = length - expected >= max(line, 2) and data[expected:].strip(b"\0")
    if left_over and shape.photometric != "YBR_FULL_422":
        raise ImageError(
            f"the DICOM file has {length} bytes of pixels, and its header (Rows, Columns, "
            f"BitsAllocated, NumberOfFrames) tells of {expected}. Correct one of them."
        )


def read_frame(header: Header, shape: Shape, frame: int = 0) -> AnyArray:
    """Decode one frame, (H, W) or (H, W, 3): raw words of gray pixels, RGB of others."""
    pixels = next(t for t in (tags.PIXELS, tags.FLOAT_PIXELS, tags.DOUBLE_PIXELS) if t in header)
    if frame >= shape.frames:
        raise ImageError(f"the DICOM file has {shape.frames} frames, no frame {frame}.")
    options = _options(header, shape, pixels)
    decoder = _decoder(header.transfer_syntax, header.encapsulated(pixels))
    data: Any = header.data(pixels)
    if header.encapsulated(pixels):
        _check_stream(header, shape, frame)
    else:
        _check_length(shape, data)
    if header.transfer_syntax == _EXTENDED and 8 < options["bits_stored"] <= 12:
        return _decode_12_bits(header, shape, frame)
    try:
        array, _ = decoder.as_array(data, index=frame, validate=False, **options)
    except Warning:
        raise
    except Exception as error:
        # Decoders raise errors of any type for damaged data.
        kind, packages = _codec(header.transfer_syntax)
        if missing := _missing(packages):
            # Another package may decode some files of a syntax only.
            raise ImageError(
                f"the DICOM file has pixels compressed as {kind}, which the installed packages do "
                f"not decode ({type(error).__name__}). Install: pip install {' '.join(missing)}"
            ) from None
        raise ImageError(damaged("its pixels", error)) from None
    decoded: AnyArray = array
    return decoded


def _n_frames(text: str) -> int:
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    return max(1, int(digits or 1))


def _decode_12_bits(header: Header, shape: Shape, frame: int) -> AnyArray:
    """Decode a JPEG of 12 bits by gdcm, which can do so; pydicom does not ask it."""
    from pydicom.encaps import get_frame

    try:
        gdcm = importlib.import_module("gdcm")
    except ImportError:
        raise ImageError(
            "the DICOM file has pixels compressed as JPEG of 12 bits, for which a package is "
            "missing. Install it with: pip install python-gdcm"
        ) from None
    stream = get_frame(header.data(tags.PIXELS), frame, number_of_frames=shape.frames)
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(stream)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((shape.columns, shape.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    try:
        words = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), "<u2")
        return words.reshape(shape.rows, shape.columns)
    except Exception as error:
        # GDCM's bindings raise errors of any type; a buffer of another length fits no shape.
        raise ImageError(damaged("its pixels", error)) from None


def _options(header: Header, shape: Shape, pixels: int) -> dict[str, Any]:
    keyword = {tags.FLOAT_PIXELS: "FloatPixelData", tags.DOUBLE_PIXELS: "DoubleFloatPixelData"}
    stored = min(header.integer(tags.BITS_STORED, shape.bits) or shape.bits, shape.bits)
    options = {
        "rows": shape.rows,
        "columns": shape.columns,
        "samples_per_pixel": shape.samples,
        "bits_allocated": shape.bits,
        "bits_stored": stored,
        "number_of_frames": shape.frames,
        "photometric_interpretation": shape.photometric,
        "pixel_representation": 1 if header.integer(tags.SIGNED, 0) else 0,
        "planar_configuration": 1 if header.integer(tags.PLANAR, 0) else 0,
        "pixel_keyword": keyword.get(pixels, "PixelData"),
        "pixel_vr": header.representation(pixels) or "OW",
        "allow_excess_frames": False,
    }
    if not header.encapsulated(pixels):
        # `_dicom_display` extracts the bits, for any HighBit.
        options["correct_unused_bits"] = False
        little = header.transfer_syntax != _NATIVE[2]
        options["view_only"] = little and shape.samples == 1 and shape.bits > 1
    elif header.transfer_syntax in _OF_PIXELS:
        # Whatever the header says: PS3.5, 8.2.
        options["planar_configuration"] = 0
    if header.is_filled(tags.OFFSETS) and header.is_filled(tags.OFFSET_LENGTHS):
        found = (header.data(tags.OFFSETS), header.data(tags.OFFSET_LENGTHS))
        if len(found[0]) == len(found[1]):
            options["extended_offsets"] = found
    return options


def _decoder(syntax: str, encapsulated: bool) -> Any:
    """Return pydicom's decoder; raise `ImageError` with the package that is missing."""
    if encapsulated and syntax in _NATIVE:
        raise ImageError("the DICOM file has compressed pixels and names no transfer syntax.")
    if syntax.startswith(_VIDEO):
        raise ImageError("the DICOM file is a video (MPEG). Pass frames of it.")
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ImageError(
            "the DICOM file has pixels in a transfer syntax that the installed pydicom does not "
            "decode. Convert it with another program, such as gdcmconv --raw."
        ) from None
    if not decoder.is_available:
        raise ImageError(_missing_codec(syntax))
    return decoder


def _missing_codec(syntax: str) -> str:
    kind, packages = _codec(syntax)
    if not kind:
        return (
            "the DICOM file has compressed pixels. "
            'Install their codecs with: pip install "sklearn-featx[dicom]"'
        )
    return (
        f"the DICOM file has pixels compressed as {kind}, for which a package is missing. "
        f"Install it with: pip install {' '.join(_missing(packages) or packages)}"
    )


def _codec(syntax: str) -> tuple[str, list[str]]:
    """Return the kind of a transfer syntax, and the packages that decode it."""
    for ends, kind, packages in _CODECS:
        if syntax in [_UIDS + end for end in ends]:
            return kind, packages.split()
    return "", []


def _missing(packages: list[str]) -> list[str]:
    return [name for name in packages if not _is_importable(_MODULES[name])]


def _is_importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:
        # An incomplete installation raises errors of other types.
        return False
    return True


def _check_stream(header: Header, shape: Shape, frame: int) -> None:
    """Compare the size in a compressed stream with the header's, before memory is taken for it."""
    from pydicom.encaps import get_frame

    if header.transfer_syntax == _RLE:
        # Has no header of its own, and its segments grow at most 64 times.
        return
    try:
        stream = get_frame(header.data(tags.PIXELS), frame, number_of_frames=shape.frames)
    except Warning:
        raise
    except Exception as error:
        # pydicom raises errors of any type for damaged fragments.
        raise ImageError(damaged("its compressed pixels", error)) from None
    found = _stream_size(stream)
    if found is None:
        raise ImageError(
            "the DICOM file is damaged or truncated: its compressed pixels have no header."
        )
    if found != (shape.rows, shape.columns, shape.samples):
        raise ImageError(
            f"the DICOM file is damaged: its header names {shape.columns} x {shape.rows} pixels "
            f"with {shape.samples} channels, its compressed pixels {found[1]} x {found[0]} with "
            f"{found[2]}."
        )


def _stream_size(stream: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, components) of a JPEG, JPEG-LS or JPEG 2000 stream."""
    if stream[:2] == b"\xff\xd8":
        return _jpeg_size(stream)
    start = stream.find(b"\xff\x4f\xff\x51")
    return None if start < 0 else _jpeg_2000_size(stream[start:])


def _jpeg_2000_size(stream: bytes) -> tuple[int, int, int] | None:
    """Read the SIZ marker, ISO 15444-1, A.5.1."""
    if len(stream) < 42:
        return None
    right, bottom, left, top = (int(n) for n in np.frombuffer(stream, ">u4", 4, 8))
    return bottom - top, right - left, int.from_bytes(stream[40:42], "big")


def _jpeg_size(stream: bytes) -> tuple[int, int, int] | None:
    """Read the frame header, ISO 10918-1, B.2.2."""
    at = 2
    while at + 9 < len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker in _SIZED:
            rows = int.from_bytes(stream[at + 5 : at + 7], "big")
            return rows, int.from_bytes(stream[at + 7 : at + 9], "big"), stream[at + 9]
        if marker in _BARE:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None
