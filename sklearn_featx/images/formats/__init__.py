"""Formats that Pillow does not decode, behind extras: one file each, recognized by content.

A format is a function that recognizes content, one that converts it to levels, and one that
returns the number of pixels that its header names.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..._typing import Levels
from .._options import ReadOptions
from .._scaling import Note
from ._dicom import DICOM_PACKAGES, dicom_levels, dicom_pixels, is_dicom

__all__ = ["DECODING_PACKAGES", "Format", "format_of", "is_scan"]

# A folder of scans has an index of this name: DICOM without pixels.
_INDEX = "DICOMDIR"
# Enough of a file to recognize its format.
_START = 512

# Distributions that a decoded picture depends on.
DECODING_PACKAGES = DICOM_PACKAGES


class Format(NamedTuple):
    """A format of files.

    Parameters
    ----------
    recognizes : callable
        Whether a file's content has the format.
    levels : callable
        From content, options and a record of values to levels (H, W, C); raises `ImageError`.
    n_pixels : callable
        From content to the number of pixels in the header; None if it is unknown.
    """

    recognizes: Callable[[bytes], bool]
    levels: Callable[[bytes, ReadOptions, Note | None], Levels]
    n_pixels: Callable[[bytes], int | None]


_FORMATS = (Format(is_dicom, dicom_levels, dicom_pixels),)


def is_scan(path: str | os.PathLike[str]) -> bool:
    """Whether a file has one of these formats: scans often have no suffix, or a number as one."""
    if Path(path).name == _INDEX:
        return False
    try:
        with Path(path).open("rb") as file:
            return format_of(file.read(_START)) is not None
    except OSError:
        return False


def format_of(data: bytes) -> Format | None:
    """Return the format of a file's content; None if Pillow is to decode it."""
    return next((found for found in _FORMATS if found.recognizes(data)), None)
