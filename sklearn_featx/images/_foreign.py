"""Foreign content: recognition of files that are no images, and hints for them."""

import re
from importlib.util import find_spec
from typing import Any

from .formats import is_tiff

# The first bytes of image files in base64: PNG, JPEG, GIF, WebP, TIFF, BMP.
_BASE64_OF_IMAGES = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "Qk0")
_DATA_URL = re.compile(r"data:[\w.+/-]*(;[\w=-]+)*;base64,", re.IGNORECASE)
_NUMBERS = re.compile(r"\s*\[*(-?\d+(\.\d*)?[\s,;]+){8,}")
# A shorter text may be a file name; no image file is that short in base64.
_SHORTEST_BASE64 = 64

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
# In order of precedence: (first bytes, kind of content, hint).
_CONTENTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file", "Run: git lfs pull"),
    (b"%PDF", "a PDF document", "Render its pages to images first"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first"),
    (b"PK\x03\x04", "a zip archive", "Unpack it first"),
    (b"\x93NUMPY", "an array of NumPy", "Pass numpy.load(path)"),
    (b"SIMPLE  =", "a FITS file", "Pass its data as an array"),
    (b"\x89HDF\r\n", "an HDF5 file", "Pass its data as an array"),
    (b"{\\rtf", "a text document", "Pass images"),
)


# Scans that other packages have opened: (package, what it is and the way out).
_OBJECTS = {
    "pydicom": "is a dataset of pydicom. Pass the path of its file, or the bytes",
    "nibabel": "is an image of nibabel. Pass slices of its file: slices(image.get_filename())",
    "openslide": "is a slide of OpenSlide. Pass tiles of its file: tiles(path)",
    "SimpleITK": "is an image of SimpleITK. Pass arrays: SimpleITK.GetArrayFromImage(image)",
}


def object_hint(entry: Any) -> str:
    """Return what an object of another package is, and a hint; empty for other objects."""
    package = type(entry).__module__.partition(".")[0]
    return f"{_OBJECTS[package]}." if package in _OBJECTS else ""


def is_base64_image(text: str) -> bool:
    """Whether a text is an image in base64 or a data URL, not a file name."""
    if _DATA_URL.match(text):
        return True
    return len(text) >= _SHORTEST_BASE64 and text.startswith(_BASE64_OF_IMAGES)


def base64_of(text: str) -> str | None:
    """Return the base64 of an image, without the head of a data URL; None if it is a file name."""
    if not is_base64_image(text):
        return None
    encoded = text.partition(",")[2] if _DATA_URL.match(text) else text
    return "".join(encoded.split())


def numbers_in_text(text: str) -> int:
    """Return how many numbers a text consists of; 0 if it may be a file name."""
    if len(text) < _SHORTEST_BASE64 or _NUMBERS.match(text[:_SHORTEST_BASE64]) is None:
        return 0
    return len(re.split(r"[\s,;]+", text.strip(" []\n")))


def content_hint(data: bytes) -> str:
    """Return the kind of unreadable content and a hint; empty if the kind is unknown."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, name, way_out in _CONTENTS:
        if start.startswith(signature):
            return f" It is {name}. {way_out}."
    lowered = start.lower()
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return " It is a HEIF picture: pip install pillow-heif"
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return " It is a JPEG XL picture: pip install pillow-jxl-plugin"
    if is_tiff(data) and find_spec("tifffile") is None:
        return ' It is a TIFF, which tifffile may read: pip install "sklearn-featx[tiff]"'
    if data[4:8] == b"ftyp":
        return " It is a video. Pass frames of it."
    if lowered.startswith((b"<!doctype html", b"<html")):
        return " It is a web page, perhaps an error of the server. Download the file again."
    if lowered.startswith((b"<svg", b"<?xml")):
        return " It is XML, perhaps a vector graphic (SVG). Render it to pixels first."
    if is_base64_image(start.decode("latin-1")):
        return " It is base64: pass base64.b64decode(...)."
    return ""
