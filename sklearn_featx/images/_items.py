"""Items: the kinds of entries of a list (files, bytes, pictures, arrays, unreadable entries)."""

import os
import re
import stat
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from .._digest import digest, digest_array
from .._messages import cause, shown
from .._preprocess import Preprocess
from .._typing import AnyArray, Levels
from ..exceptions import ImageError
from ._decode import (
    decode,
    decode_resized,
    digest_file,
    levels_of_picture,
    pixels_in_header,
    read_file,
)
from ._foreign import base64_hint, is_base64_image
from ._geometry import resize_and_crop
from ._layout import Layout, as_channels_last, choose_layout
from ._options import ReadOptions
from ._recognize import is_array_like, is_missing, is_number, is_tensor, tensor_to_array
from ._scaling import Note, ValueRange, effective_range, to_shown
from ._window import Window

_PLAIN = ReadOptions()
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Item(Protocol):
    """One image that is read on demand."""

    @property
    def path(self) -> str | None:
        """Path of its file; None if it is in memory."""

    def load(self) -> Levels:
        """Return its levels (H, W, C)."""

    def digest(self) -> str:
        """Return the digest of its content and of its value range."""


@dataclass(frozen=True, slots=True)
class FileItem:
    """A file, which each call reads again."""

    path: str
    options: ReadOptions = _PLAIN
    note: Note | None = field(default=None, compare=False, repr=False)

    def load(self) -> Levels:
        """Decode the file."""
        return decode(self.path, self.options, self.note)

    def opened(self) -> "BytesItem":
        """Read the file, once for its digest and its picture."""
        return BytesItem(read_file(self.path), self.options, self.note)

    def digest_of(self, content: str) -> str:
        """Return the digest of the image from its file's content, without reading the file."""
        return self.options.digest_of(content)

    def digest(self) -> str:
        """Digest of the image."""
        return self.opened().digest()


@dataclass(frozen=True, slots=True)
class BytesItem:
    """The content of an image file."""

    data: bytes
    options: ReadOptions = _PLAIN
    note: Note | None = field(default=None, compare=False, repr=False)
    path: None = None

    def load(self) -> Levels:
        """Decode the bytes."""
        return decode(self.data, self.options, self.note)

    def content(self) -> str:
        """Digest of the bytes alone: all that a memo of files may keep."""
        return digest_file(self.data)

    def digest(self) -> str:
        """Digest of the bytes and of the options, that of a file with this content."""
        return self.options.digest_of(self.content())


@dataclass(frozen=True, slots=True)
class PictureItem:
    """A Pillow image, identified by its pixels alone.

    Its `filename` does not identify the pixels: `seek`, drawing, pasting and `thumbnail` change the
    pixels but not the `filename`.
    """

    image: Image.Image
    value_range: ValueRange | None = None
    note: Note | None = field(default=None, compare=False, repr=False)
    path: None = None

    def load(self) -> Levels:
        """Return its levels, as displayed."""
        return levels_of_picture(self.image, self.value_range, self.note)

    def digest(self) -> str:
        """Return the digest of the levels, which include mode, palette, range and orientation."""
        return digest_pixels(self.load(), "HWC", (0.0, 255.0))


@dataclass(frozen=True, slots=True)
class ArrayItem:
    """An array of pixels."""

    array: AnyArray
    layout: Layout
    value_range: ValueRange
    note: Note | None = field(default=None, compare=False, repr=False)
    path: None = None

    def load(self) -> Levels:
        """Check and scale the values."""
        return array_to_levels(self.array, self.layout, self.value_range, self.note)

    def digest(self) -> str:
        """Return the digest of the values, their shape, dtype and range."""
        return digest_pixels(self.array, self.layout, self.value_range)


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """An invalid entry, which raises its error when it is read."""

    reason: str
    path: str | None

    def load(self) -> Levels:
        """Raise the error."""
        raise ImageError(self.reason, path=self.path)

    def opened(self) -> "BytesItem":
        """Say what is wrong."""
        raise ImageError(self.reason, path=self.path)

    def digest_of(self, content: str) -> str:  # noqa: ARG002
        """Say what is wrong."""
        raise ImageError(self.reason, path=self.path)

    def digest(self) -> str:
        """Say what is wrong."""
        raise ImageError(self.reason, path=self.path)


def n_pixels(item: Item) -> int | None:
    """Return the number of pixels of an item before it is decoded; None if it is not known."""
    if isinstance(item, FileItem):
        return pixels_in_header(item.path)
    if isinstance(item, BytesItem):
        return pixels_in_header(item.data)
    if isinstance(item, PictureItem):
        return item.image.width * item.image.height
    return item.array.size if isinstance(item, ArrayItem) else None


def load_resized(item: Item, preprocess: Preprocess) -> Levels:
    """Load, resize and crop an item; files are decoded and resized in one step."""
    if isinstance(item, FileItem | BytesItem):
        source = item.path if isinstance(item, FileItem) else item.data
        return decode_resized(source, preprocess, item.options, item.note)
    return resize_and_crop(item.load(), preprocess)


def array_to_levels(
    item: AnyArray, layout: Layout, value_range: ValueRange, note: Note | None = None
) -> Levels:
    """Convert an item to levels (H, W, C); RGBA is composited over white."""
    return to_shown(as_channels_last(item, layout), value_range, note)


def digest_pixels(item: AnyArray, layout: Layout, value_range: ValueRange) -> str:
    """Return the digest of values, shape, dtype and range, independent of the axis order."""
    kind = "windowed-pixels" if isinstance(value_range, Window) else "pixels-2"
    return digest(kind, digest_array(as_channels_last(item, layout)), *value_range)


def as_item(
    entry: Any,
    row: int | None,
    options: ReadOptions = _PLAIN,
    note: Note | None = None,
) -> Item:
    """Convert a path, bytes, a Pillow image, an array, a tensor or a nested list to an item.

    `note` is called with the values and their range if the user gave no range. Raises `ImageError`,
    with the row, if the entry is missing, is no image, or is a path without a file.
    """
    if isinstance(entry, str | os.PathLike):
        return FileItem(_existing_file(entry, row), options, note)
    if isinstance(entry, bytes | bytearray | memoryview):
        return BytesItem(bytes(entry), options, note)
    if isinstance(entry, Image.Image):
        return PictureItem(entry, options.limits, note)
    try:
        return _array_item(_entry_to_array(entry), options, note)
    except ImageError as error:
        raise ImageError(error.reason, row=row) from error.__cause__


def as_item_or_unreadable(
    entry: Any,
    row: int | None,
    options: ReadOptions = _PLAIN,
    note: Note | None = None,
) -> Item:
    """Convert an entry to an item; an invalid entry raises its error when it is read."""
    try:
        return as_item(entry, row, options, note)
    except ImageError as error:
        return UnreadableItem(error.reason, error.path)


def _entry_to_array(entry: Any) -> AnyArray:
    if is_tensor(entry):
        return tensor_to_array(entry)
    if is_missing(entry):
        raise ImageError(f"the entry is missing ({shown(entry)}). Drop such rows before.")
    if is_array_like(entry) and not is_number(entry):
        return np.asarray(entry)
    if isinstance(entry, list | tuple):
        try:
            return np.asarray(entry)
        except ValueError as error:
            raise ImageError(_why_no_array(entry)) from error
    raise ImageError(
        f"{type(entry).__name__} is not an image: expected a path, bytes, a PIL image, an array "
        "or a tensor."
    )


def _why_no_array(entry: list[Any] | tuple[Any, ...]) -> str:
    """Return the reason why numpy cannot convert a nested list."""
    if len(entry) == 2 and not isinstance(entry[0], int | float | list):
        return (
            f"is a pair ({type(entry[0]).__name__}, {type(entry[1]).__name__}), not an image. Pass "
            "the images and their labels apart: [image for image, _ in pairs]."
        )
    return "is a nested list whose parts differ in length. Pass numpy arrays, one for each image."


def _array_item(array: AnyArray, options: ReadOptions, note: Note | None) -> ArrayItem:
    image_shape, value_range = options.image_shape, options.limits
    limits = effective_range(array.dtype, value_range)
    if array.ndim == 1 and image_shape is not None:
        if array.size != np.prod(image_shape):
            raise ImageError(f"{array.size} values do not fill image_shape={image_shape}.")
        array = array.reshape(image_shape)
    layout = choose_layout(array.shape, image_shape)
    return ArrayItem(array, layout, limits, None if value_range is not None else note)


def _existing_file(entry: str | os.PathLike[Any], row: int | None) -> str:
    """Return a path as text after checking that it is a file."""
    path = str(os.fsdecode(entry))
    if is_base64_image(path):
        raise ImageError(base64_hint(), row, path)
    if _URL.match(path):
        raise ImageError("is a URL, and nothing is downloaded. Download the file first.", row, path)
    try:
        # pathlib is much slower, and this runs for every row of every call.
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError as error:
        raise ImageError("no such file.", row, path) from error
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be reached: {cause(error)}.", row, path) from error
    if stat.S_ISDIR(mode):
        raise ImageError(
            'is a folder. Pass its files: sorted(Path(folder).rglob("*.jpg"))', row, path
        )
    if not stat.S_ISREG(mode):
        raise ImageError("is not a regular file.", row, path)
    return path
