"""Scientific TIFF: what Pillow does not read, or not with all its bits and channels.

tifffile reads 16 bits and floats in several channels, channels in pages of their own (OME, ImageJ),
types that Pillow lacks, JPEG 2000 and other compressions. Every other TIFF is left to Pillow. Black
and white are those that the file declares, else those of the type, as for all files.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..._messages import cause
from ..._optional import import_optional
from ..._typing import AnyArray, Levels
from ...exceptions import FeatxError, ImageError
from .._channels import CHOOSE_CHANNELS
from .._declared import tiff_range
from .._frames import number_of
from .._options import ReadOptions
from .._pillow import pixel_limit, refuse_bomb
from .._scaling import Note, ValueRange, over_white
from . import _tiff_tags as t
from ._numbers import numbers_to_levels

TIFF_PACKAGES = ("tifffile", "imagecodecs")

_PLAIN = ReadOptions()

# Bytes of all channels of a picture, for each pixel that a picture may have.
_MOST_BYTES_OF_PIXEL = 16


class Plane(NamedTuple):
    """One picture of a file.

    Parameters
    ----------
    values : ndarray of shape (H, W, C)
        As they are stored.
    tags : mapping of int to object
        Tags of its page.
    """

    values: AnyArray
    tags: t.Tags


def is_scientific_tiff(data: bytes) -> bool:
    """Whether content is a TIFF that is left to tifffile."""
    if not t.is_tiff(data):
        return False
    tags = t.first_tags(data)
    if not tags or t.pillow_reads(tags):
        # Pillow reports damaged tags.
        return False
    # Without tifffile, Pillow reads 8 of the 16 bits of a color picture, and some of the gray ones
    # whose zero is white.
    partly = t.pillow_reads({**tags, t.BITS: (8,)})
    return not partly or find_spec("tifffile") is not None


def tiff_levels(
    data: bytes, options: ReadOptions, note: Note | None = None, frame: int = 0
) -> Levels:
    """Convert one picture to levels (H, W, 1 or 3); raise `ImageError` if it cannot be read."""
    values, tags = _pixels(read_plane(data, frame, options))
    if note is not None and options.frames == "first" and _has_frames(data):
        note.frames("TIFF")
    levels = _shown(values, tags, tiff_range(tags), options, note)
    return np.ascontiguousarray(upright(levels, tags))


def tiff_frames(data: bytes) -> int:
    """Return the number of pictures, of which channels are parts."""
    with errors_of_tifffile(), opened(data) as file:
        return len(page_numbers(file.series[0])) if is_described(file) else len(file.pages)


def _has_frames(data: bytes) -> bool:
    """Whether there are several pictures; damage behind the first one is no error of it."""
    try:
        return tiff_frames(data) > 1
    except ImageError:
        return False


def tiff_pixels(data: bytes) -> int | None:
    """Return the number of pixels of the first picture; None if the file is damaged."""
    try:
        with opened(data) as file:
            page = file.pages[0]
            return int(page.imagewidth) * int(page.imagelength)
    except Exception:
        # tifffile raises errors of any type for damaged data. Decoding names the reason.
        return None


def read_plane(data: bytes, frame: int, options: ReadOptions = _PLAIN) -> Plane:
    """Read one picture with all its channels.

    Parameters
    ----------
    data : bytes
        Content of the file.
    frame : int
        Number of the picture; the channels of a picture are no frames.
    options : ReadOptions
        The user's values of black and white.

    Raises
    ------
    ImageError
        If the file is damaged, has no such picture or too large a one.
    MissingDependencyError
        If tifffile is not installed.
    """
    with errors_of_tifffile(), opened(data) as file:
        return read_pages(file, pages_of(file, frame), options, len(data))


def read_pages(file: Any, pages: Sequence[Any], options: ReadOptions, n_bytes: int) -> Plane:
    """Read the pages of one picture of an opened file of `n_bytes`.

    Raises `ImageError` if one is too large or truncated, or if their numbers have different
    meanings, and errors of any type for damaged data.
    """
    for page in pages:
        _refuse_damaged(page, len(pages), n_bytes)
    parts = [_channels_last(page.asarray(maxworkers=1), page.axes) for page in pages]
    # In OME, the first page of the file describes all.
    described = {t.DESCRIPTION: file.pages[0].description} if file.is_ome else {}
    tags = [{tag.code: tag.value for tag in page.tags} | described for page in pages]
    ranges = {None if options.limits else tiff_range(tags_of_page) for tags_of_page in tags}
    if len(ranges) > 1 or len(set(map(t.photometric, tags))) > 1:
        raise ImageError(
            "its channels declare different values of black and white. Pass "
            "reader=ImageReader(channels='each'), which reads each by its own."
        )
    return Plane(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2), tags[0])


@contextmanager
def errors_of_tifffile() -> Iterator[None]:
    """Context manager in which damaged data raises `ImageError`."""
    try:
        yield
    except FeatxError:
        raise
    except Exception as error:
        # tifffile raises errors of any type for damaged data.
        raise ImageError(f"the TIFF cannot be decoded: {cause(error)}") from error


def opened(data: bytes) -> Any:
    """Open a file by tifffile."""
    tifffile = import_optional("tifffile", extra="tiff", purpose="Reading scientific TIFF files")
    return tifffile.TiffFile(BytesIO(data))


def is_described(file: Any) -> bool:
    """Whether a description says what the pages are."""
    return bool(file.is_ome or file.is_imagej)


def pages_of(file: Any, frame: int) -> list[Any]:
    """Return the pages of one picture: one, or one for each channel."""
    if not is_described(file):
        return [file.pages[number_of(frame, len(file.pages)) if frame else 0]]
    series = file.series[0]
    numbers = page_numbers(series)
    if len(series.pages) != numbers.size:
        raise ImageError(
            f"the TIFF has {len(series.pages)} pages where its description names {numbers.size}. "
            "Save it with one page for each channel."
        )
    chosen = numbers[number_of(frame, len(numbers))]
    pages = [series.pages[int(number)] for number in chosen]
    if any(page is None for page in pages):
        raise ImageError(
            "its description names channels of other files. Read all of them, "
            "tifffile.imread(path), and pass the arrays."
        )
    return [page.aspage() for page in pages]


def page_numbers(series: Any) -> AnyArray:
    """Return the numbers of the pages of each picture, of shape (n_frames, n_channels)."""
    leading = [
        (axis, size)
        for axis, size in zip(series.axes, series.shape, strict=True)
        if axis not in "YXS"
    ]
    n_channels = math.prod(size for axis, size in leading if axis == "C")
    numbers = np.arange(math.prod(size for _, size in leading))
    numbers = numbers.reshape([size for _, size in leading])
    places = [i for i, (axis, _) in enumerate(leading) if axis == "C"]
    return np.moveaxis(numbers, places, range(-len(places), 0)).reshape(-1, n_channels)


def _refuse_damaged(page: Any, n_pages: int, n_bytes: int) -> None:
    """Refuse a page that is too large to be read, or whose data lies beyond the file."""
    refuse_bomb(int(page.imagewidth) * int(page.imagelength))
    size = math.prod(page.shape) * page.dtype.itemsize * n_pages
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size > _MOST_BYTES_OF_PIXEL * limit:
        raise ImageError(
            f"the image has {size} bytes in all channels, more than {_MOST_BYTES_OF_PIXEL} for "
            f"each pixel of {pixel_limit(-(-size // _MOST_BYTES_OF_PIXEL))}"
        )
    segments = zip(page.dataoffsets, page.databytecounts, strict=False)
    if any(offset + count > n_bytes for offset, count in segments):
        raise ImageError("the TIFF is truncated. Fetch the file again.")


def _channels_last(array: AnyArray, axes: str) -> AnyArray:
    if axes == "YX":
        return array[:, :, np.newaxis]
    if axes == "YXS":
        return array
    if axes == "SYX":
        return np.moveaxis(array, 0, 2)
    raise ImageError(f"the TIFF has a picture of the axes {axes}: expected height and width.")


def _pixels(plane: Plane) -> Plane:
    """Return a gray or RGB picture, with its alpha; refuse other numbers of channels."""
    values, tags = plane
    photometric = t.photometric(tags)
    n_channels = values.shape[2]
    refuse_colors(tags)
    n_colors = 3 if photometric == t.RGB or n_channels == 3 else 1
    alpha = t.first(tags, t.EXTRA_SAMPLES, 0) in (t.PREMULTIPLIED_ALPHA, t.ALPHA)
    # A fourth channel of RGB without a meaning is padding, as in Pillow's mode RGBX.
    padding = photometric == t.RGB and n_channels == 4 and not alpha
    if not n_colors <= n_channels <= n_colors + (alpha or padding):
        raise ImageError(
            f"the TIFF has {n_channels} channels, where a picture has 1 or 3. Say which are read: "
            f"{CHOOSE_CHANNELS}."
        )
    return Plane(values[:, :, :n_colors], tags) if padding else plane


def refuse_colors(tags: t.Tags) -> None:
    """Refuse a palette and compressed colors: their numbers are no gray values or colors."""
    photometric = t.photometric(tags)
    if photometric not in t.SCIENTIFIC:
        raise ImageError(
            f"the TIFF has photometric interpretation {photometric}, which is neither gray nor "
            "RGB. Convert it with tifffile, and pass arrays."
        )


def _shown(
    values: AnyArray,
    tags: t.Tags,
    declared: ValueRange | None,
    options: ReadOptions,
    note: Note | None,
) -> Levels:
    premultiplied = t.first(tags, t.EXTRA_SAMPLES, 0) == t.PREMULTIPLIED_ALPHA
    negative = t.photometric(tags) == t.GRAY_WHITE_IS_ZERO
    if values.shape[2] not in (2, 4) or not (premultiplied or negative):
        levels = numbers_to_levels(values, declared, options, note)
        return 255 - levels if negative else levels
    color = numbers_to_levels(values[:, :, :-1], declared, options, note)
    alpha = numbers_to_levels(values[:, :, -1:], declared, ReadOptions(), None)
    if not premultiplied:
        return over_white(255 - color, alpha)
    if negative:
        # White shows where the color lacks and where the alpha lacks.
        return 255 - color
    mixed: Levels = (color.astype(np.float32) + 255 - alpha).clip(0, 255)
    return mixed


def upright(levels: Levels, tags: t.Tags) -> Levels:
    """Turn a picture by the tag: 1 to 8, as in EXIF."""
    orientation = t.first(tags, t.ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        levels = levels.transpose(1, 0, 2)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return levels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
