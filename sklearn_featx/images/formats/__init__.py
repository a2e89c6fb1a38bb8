"""Formats that Pillow does not decode, behind extras: one file each, recognized by content.

A format is a function that recognizes content, one that converts a frame of it to levels, and two
that return the numbers of pixels and of frames that its header names.
"""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..._typing import Levels
from .._options import ReadOptions
from .._scaling import Note
from ._dicom import DICOM_PACKAGES, dicom_frames, dicom_levels, dicom_pixels, is_dicom
from ._nifti import NIFTI_PACKAGES, is_nifti, nifti_frames, nifti_levels, nifti_pixels
from ._tiff import TIFF_PACKAGES, is_scientific_tiff, tiff_frames, tiff_levels, tiff_pixels

__all__ = ["DECODING_PACKAGES", "Format", "format_of", "has_scan_name", "is_scan"]

# A folder of scans has an index of this name: DICOM without pixels.
_INDEX = "DICOMDIR"
_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}
# Enough of a file to recognize its format.
_START = 512

# Distributions that a decoded picture depends on.
DECODING_PACKAGES = (*DICOM_PACKAGES, *NIFTI_PACKAGES, *TIFF_PACKAGES)


class Format(NamedTuple):
    """A format of files.

    Parameters
    ----------
    recognizes : callable
        Whether a file's content has the format.
    levels : callable
        From content, options, a record of values and the number of a frame, which may count from
        the last, to levels (H, W, C); raises `ImageError`.
    n_pixels : callable
        From content to the number of pixels in the header; None if it is unknown.
    n_frames : callable
        From content to the number of frames; 1 if it is unknown.
    """

    recognizes: Callable[[bytes], bool]
    levels: Callable[[bytes, ReadOptions, Note | None, int], Levels]
    n_pixels: Callable[[bytes], int | None]
    n_frames: Callable[[bytes], int]


_FORMATS = (
    Format(is_dicom, dicom_levels, dicom_pixels, dicom_frames),
    Format(is_nifti, nifti_levels, nifti_pixels, nifti_frames),
    Format(is_scientific_tiff, tiff_levels, tiff_pixels, tiff_frames),
)


def has_scan_name(name: str) -> bool:
    """Whether a file may be DICOM by its name: a suffix of scans, a number as one, or none."""
    suffix = PurePosixPath(name).suffix.lower()
    return not suffix or suffix in _SUFFIXES or suffix[1:].isdigit()


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
