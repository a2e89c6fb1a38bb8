"""DICOM files: recognition, and conversion to levels as a radiologist sees them.

pydicom is imported when a file looks like DICOM. See `_dicom_header`, `_dicom_pixels` and
`_dicom_display` for the steps.
"""

from PIL import Image

from ..._typing import AnyArray, Levels
from ...exceptions import ImageError
from .._frames import number_of
from .._options import ReadOptions
from .._scaling import Note, to_levels
from .._window import refuse_file_without_units
from . import _dicom_header as tags
from ._dicom_display import gray_levels
from ._dicom_header import Header, damaged, read_header
from ._dicom_palette import palette_levels
from ._dicom_pixels import read_frame, read_shape

# Packages that decode, whose versions are part of every row's key.
DICOM_PACKAGES = (
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "python-gdcm",
)
_TYPES = {b"CS", b"UI", b"UL", b"DA", b"SH", b"LO"}
# Elements of group 0008 that a data set begins with.
_FIRST = {0x00, 0x01, 0x05, 0x08, 0x12, 0x14, 0x16, 0x18}
# Bytes that a deflated pixel has at most: 3 samples of 16 bits, and a header.
_BYTES_OF_PIXEL, _BYTES_OF_HEADER = 6, 2**26


def is_dicom(data: bytes) -> bool:
    """Whether a file looks like DICOM: by its prefix, or by its first element without one."""
    if data[128:132] == b"DICM":
        return True
    for order in ("little", "big"):
        group, element = (int.from_bytes(data[i : i + 2], order) for i in (0, 2))
        if group in (2, 8) and element in _FIRST:
            if data[4:6] in _TYPES:
                return True
            length = int.from_bytes(data[4:8], "little")
            return order == "little" and 0 < length <= 128 and length % 2 == 0 and group == 8
    return False


def dicom_levels(
    data: bytes, options: ReadOptions, note: Note | None = None, frame: int = 0
) -> Levels:
    """Convert a frame of a DICOM file to levels (H, W, 1 or 3).

    Raises `ImageError`, without any value of the header that is text, if the file is damaged, has
    no pixels, or needs a package that is missing.
    """
    header = read_header(data, _longest())
    _refuse_without_pixels(header)
    try:
        shape = read_shape(header)
        if note is not None and options.frames == "first" and shape.frames > 1:
            note.frames("DICOM")
        frame = number_of(frame, shape.frames)
        if shape.samples == 3 or shape.photometric == "PALETTE COLOR":
            refuse_file_without_units(options.limits, "DICOM in color")
        pixels = read_frame(header, shape, frame)
        if shape.photometric == "PALETTE COLOR":
            return palette_levels(pixels, header)
        if shape.samples == 3:
            return _color_levels(pixels, header)
        return gray_levels(pixels, header, options, frame, note)
    except (ImageError, Warning):
        raise
    except Exception as error:
        # pydicom converts elements when they are read, and raises errors of any type.
        raise ImageError(damaged("the description of its pixels", error)) from None


def dicom_pixels(data: bytes) -> int | None:
    """Return the number of pixels that the header names; None if it is damaged."""
    try:
        header = read_header(data, _longest(), with_pixels=False)
        return (header.integer(tags.ROWS) or 0) * (header.integer(tags.COLUMNS) or 0) or None
    except Exception:
        # pydicom raises errors of any type for damaged headers. Decoding names the reason.
        return None


def dicom_frames(data: bytes) -> int:
    """Return the number of frames that the header names."""
    header = read_header(data, _longest(), with_pixels=False)
    shape = read_shape(header)
    # A compressed frame has at least 8 bytes, whatever the header claims.
    return min(shape.frames, max(1, header.size // min(shape.frame_bytes, 8)))


def _longest() -> int | None:
    limit = Image.MAX_IMAGE_PIXELS
    return None if limit is None else _BYTES_OF_PIXEL * limit + _BYTES_OF_HEADER


def _refuse_without_pixels(header: Header) -> None:
    if any(tag in header for tag in (tags.PIXELS, tags.FLOAT_PIXELS, tags.DOUBLE_PIXELS)):
        return
    from pydicom.uid import UID_dictionary

    # The name is that of the standard: a text of the file may be anything.
    known = UID_dictionary.get(header.text(tags.SOP_CLASS))
    kind = f": it is a {known[0]}" if known else ""
    raise ImageError(f"the DICOM file has no pixels{kind}.")


def _color_levels(pixels: AnyArray, header: Header) -> Levels:
    bits = header.integer(tags.BITS_STORED, 8) or 8
    white = float(2 ** (8 * pixels.dtype.itemsize if bits <= 8 else bits) - 1)
    return to_levels(pixels.clip(0, None if pixels.dtype.itemsize == 1 else white), (0.0, white))
