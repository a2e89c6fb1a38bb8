"""Foreign content: recognition of files and names that are no images, and hints for them."""

import os
import re
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

from .._messages import shown
from ._encoded import is_encoded
from .formats import is_tiff

_NUMBERS = re.compile(r"\s*\[*(-?\d+(\.\d*)?[\s,;]+){8,}")
# A shorter text may be a file name.
_SHORTEST_NUMBERS = 64
# Of a path, in characters: PATH_MAX of Linux.
_LONGEST_NAME = 4096
# Texts of objects, as str() and CSV files write them: literals, and others.
_LITERAL = re.compile(r"[\[({]*\s*b?(['\"]).*(\1|[\])}])\s*", re.DOTALL)
_REPR = re.compile(r"<[^<>]+ at 0x[0-9a-f]+>|(tensor|array)\(.*|\[\[.*", re.DOTALL | re.IGNORECASE)
_NAME_OF_IMAGE = re.compile(
    rb"[^\0\r\n]{1,1024}\.(png|jpe?g|gif|webp|tiff?|bmp|jp2|avif|heic|dcm)\s*", re.IGNORECASE
)

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


def numbers_in_text(text: str) -> int:
    """Return how many numbers a text consists of; 0 if it may be a file name."""
    if len(text) < _SHORTEST_NUMBERS or _NUMBERS.match(text[:_SHORTEST_NUMBERS]) is None:
        return 0
    return len(re.split(r"[\s,;]+", text.strip(" []\n")))


def name_hint(path: str) -> str:
    """Return what a name without a file may be, and a hint; empty if nothing is known."""
    if path.startswith("~"):
        return " Pass Path(path).expanduser()."
    for other, way_out in _other_names(path):
        if other != path and os.path.isfile(other):  # noqa: PTH113 (Path raises for long names)
            return f" There is a file {shown(other)}: pass {way_out}."
    if _REPR.fullmatch(path):
        return " It is the text of an object, without its pixels. Pass the object."
    if _LITERAL.fullmatch(path):
        return " It is the text of an object: pass ast.literal_eval(text)."
    if "*" in path:
        return " Pass the files: sorted(Path(folder).glob(pattern))."
    return ""


def _other_names(path: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a path has lost on its way through text files and other systems."""
    if "\0" in path or len(path) > _LONGEST_NAME:
        return
    yield path.strip().strip("'\""), "text without white space and quotes"
    yield path.replace("\\", "/"), 'text.replace("\\\\", "/")'
    yield unquote(path), "urllib.parse.unquote(text)"
    for form in ("NFC", "NFD"):
        yield unicodedata.normalize(form, path), f'unicodedata.normalize("{form}", text)'
    yield re.split("[;|]", path)[0], "a list of paths, and bag_pooling"


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
    return _text_hint(data)


def _text_hint(data: bytes) -> str:
    if is_encoded(data[:512].decode("latin-1")):
        return " It is base64: pass it as text, data.decode()."
    if _NAME_OF_IMAGE.fullmatch(data):
        return " It is the name of a file: pass it as text, data.decode(); of HDF5 asstr()[:]."
    return ""
