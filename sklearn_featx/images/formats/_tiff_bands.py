"""Channels of TIFF files: samples of a pixel, or pages that are channels.

- OME and ImageJ: the description says which pages are the channels of one picture.
- Several samples for each pixel, interleaved or in planes: these.
- Other files of several gray pages of one kind: the pages, as `tifffile.imread` stacks them, unless
  frames are asked for.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Levels
from .._declared import tiff_range
from .._frames import number_of
from .._options import ReadOptions
from .._scaling import Note
from . import _tiff as tiff
from . import _tiff_tags as t
from ._numbers import numbers_to_levels


def is_tiff_of_bands(data: bytes) -> bool:
    """Whether tifffile reads a file's channels; Pillow reads gray and RGB of one page."""
    if not t.is_tiff(data):
        return False
    tags = t.first_tags(data)
    if not tags:
        # Pillow reports damaged tags.
        return False
    return not t.pillow_reads(tags) or (
        t.photometric(tags) in t.SCIENTIFIC and (t.samples(tags) > 3 or t.has_several_pages(data))
    )


def tiff_bands(
    data: bytes, options: ReadOptions, note: Note | None = None, frame: int = 0
) -> Levels:
    """Convert the chosen channels to levels (H, W, C); raise `ImageError` if that fails."""
    with tiff.errors_of_tifffile(), tiff.opened(data) as file:
        pages, n_frames = _pages_of_frame(file, options, frame)
        values, tags = _read(file, pages, options, len(data))
    tiff.refuse_colors(tags)
    if note is not None and options.frames == "first" and n_frames > 1:
        note.frames("TIFF")
    levels = numbers_to_levels(values, tiff_range(tags), options, note)
    if t.photometric(tags) == t.GRAY_WHITE_IS_ZERO:
        levels = 255 - levels
    return np.ascontiguousarray(tiff.upright(levels, tags))


def tiff_channels(data: bytes, options: ReadOptions, frame: int = 0) -> int:
    """Return the number of channels; raise `ImageError` if the file is damaged."""
    with tiff.errors_of_tifffile(), tiff.opened(data) as file:
        return _n_channels(_pages_of_frame(file, options, frame).pages)


class _Pages(NamedTuple):
    """The pages of one picture, and the number of pictures in the file."""

    pages: list[Any]
    n_frames: int


def _pages_of_frame(file: Any, options: ReadOptions, frame: int) -> _Pages:
    if tiff.is_described(file):
        return _Pages(tiff.pages_of(file, frame), len(tiff.page_numbers(file.series[0])))
    pages = [page.aspage() for page in file.pages]
    if options.frames == "first" and _is_stack(pages):
        return _Pages(pages, 1)
    number = number_of(frame, len(pages)) if frame else 0
    return _Pages([pages[number]], len(pages))


def _is_stack(pages: Sequence[Any]) -> bool:
    """Whether pages are gray and of one kind; smaller copies of a picture are not."""
    first = pages[0]
    return all(
        page.samplesperpixel == 1 and page.shape == first.shape and page.dtype == first.dtype
        for page in pages
    )


def _n_channels(pages: Sequence[Any]) -> int:
    return sum(int(page.samplesperpixel) for page in pages)


def _read(file: Any, pages: Sequence[Any], options: ReadOptions, n_bytes: int) -> tiff.Plane:
    """Read the chosen channels; pages of other channels are not decoded."""
    n_channels = _n_channels(pages)
    chosen = options.picked(np.arange(n_channels)).tolist()
    if len(pages) == n_channels:
        return tiff.read_pages(file, [pages[k] for k in chosen], options, n_bytes)
    values, tags = tiff.read_pages(file, pages, options, n_bytes)
    return tiff.Plane(options.picked(values), tags)
