"""Formats that Pillow does not decode, behind extras: one file each, recognized by content.

A format is a function that recognizes content, one that converts a frame of it to levels, and some
that return the numbers of pixels, frames and channels that its header names.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

import numpy as np

from ..._typing import Levels
from .._options import ReadOptions
from .._scaling import Note
from ._dicom import DICOM_PACKAGES, dicom_frames, dicom_levels, dicom_pixels, is_dicom
from ._nifti import NIFTI_PACKAGES, is_nifti, nifti_frames, nifti_levels, nifti_pixels
from ._tiff import TIFF_PACKAGES, is_scientific_tiff, tiff_frames, tiff_levels, tiff_pixels
from ._tiff_bands import is_tiff_of_bands, tiff_bands, tiff_channels
from ._tiff_tags import is_tiff

__all__ = [
    "DECODING_PACKAGES",
    "START",
    "Format",
    "format_of",
    "has_scan_name",
    "has_volume_name",
    "is_scan",
    "is_tiff",
    "starts_as_scan",
]

# A folder of scans has an index of this name: DICOM without pixels.
_INDEX = "DICOMDIR"
_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}
# Enough of a file to recognize its format.
START = 512

# Distributions that a decoded picture depends on.
DECODING_PACKAGES = (*DICOM_PACKAGES, *NIFTI_PACKAGES, *TIFF_PACKAGES)


_Read: TypeAlias = Callable[[bytes, ReadOptions, Note | None, int], Levels]


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
        From content to the number of frames; raises errors of any type for damaged content.
    n_channels : callable
        From content, options and the number of a frame to the number of channels; raises
        `ImageError`.
    """

    recognizes: Callable[[bytes], bool]
    levels: _Read
    n_pixels: Callable[[bytes], int | None]
    n_frames: Callable[[bytes], int]
    n_channels: Callable[[bytes, ReadOptions, int], int]
    # Whether its numbers may be in Hounsfield units.
    of_scans: bool = False


def _picked(
    levels: _Read, content: bytes, options: ReadOptions, note: Note | None, frame: int
) -> Levels:
    """Read channels of a scan, whose channels are those of its levels."""
    return np.ascontiguousarray(options.picked(levels(content, options, note, frame)))


def _count(levels: _Read, content: bytes, options: ReadOptions, frame: int) -> int:
    return int(levels(content, options, None, frame).shape[2])


def _scan(
    recognizes: Callable[[bytes], bool],
    levels: _Read,
    n_pixels: Callable[[bytes], int | None],
    n_frames: Callable[[bytes], int],
) -> Format:
    count = partial(_count, levels)
    picked = partial(_picked, levels)
    return Format(recognizes, picked, n_pixels, n_frames, count, of_scans=True)


_TIFF_OF_BANDS = Format(is_tiff_of_bands, tiff_bands, tiff_pixels, tiff_frames, tiff_channels)
_FORMATS = (
    _scan(is_dicom, dicom_levels, dicom_pixels, dicom_frames),
    _scan(is_nifti, nifti_levels, nifti_pixels, nifti_frames),
    Format(is_scientific_tiff, tiff_levels, tiff_pixels, tiff_frames, tiff_channels),
)


def has_scan_name(name: str) -> bool:
    """Whether a file may be DICOM by its name: a suffix of scans, a number as one, or none."""
    suffix = PurePosixPath(name).suffix.lower()
    return not suffix or suffix in _SUFFIXES or suffix[1:].isdigit()


def has_volume_name(name: str) -> bool:
    """Whether a file is NIfTI by its name."""
    return name.lower().endswith((".nii", ".nii.gz"))


def is_scan(path: str | os.PathLike[str]) -> bool:
    """Whether a file has one of these formats: scans often have no suffix, or a number as one."""
    path = Path(path)
    try:
        # A pipe would wait for its writer.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return starts_as_scan(path.name, file.read(START))
    except OSError:
        return False


def starts_as_scan(name: str, start: bytes) -> bool:
    """Whether a file of a name and of these first `START` bytes has one of these formats."""
    return name != _INDEX and format_of(start) is not None


def format_of(data: bytes, *, bands: bool = False) -> Format | None:
    """Return the format of a file's content; None if Pillow is to decode it.

    `bands`: its channels are asked for, and need be no picture.
    """
    formats = (*_FORMATS[:-1], _TIFF_OF_BANDS) if bands else _FORMATS
    return next((found for found in formats if found.recognizes(data)), None)
