"""Items: the kinds of entries of a list (files, bytes, pictures, arrays, unreadable entries)."""

import os
import stat
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

from .._digest import digest, digest_array
from .._messages import cause
from .._preprocess import Preprocess
from .._typing import AnyArray, Levels
from ..exceptions import ImageError
from ._addresses import Address
from ._decode import (
    decode,
    decode_resized,
    digest_file,
    levels_of_picture,
    pixels_in_header,
    read_file,
)
from ._geometry import resize_and_crop
from ._layout import Layout, as_channels_last, choose_layout
from ._options import ReadOptions
from ._parts import PartItem
from ._remote import State
from ._remote_systems import check_scheme
from ._scaling import Note, ValueRange, effective_range, to_shown
from ._window import Window

_PLAIN = ReadOptions()


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
    frame: int = 0

    def load(self) -> Levels:
        """Decode the file."""
        return decode(self.path, self.options, self.note, self.frame)

    def opened(self) -> "BytesItem":
        """Read the file, once for its digest and its picture."""
        return BytesItem(read_file(self.path), self.options, self.note, self.frame)

    def digest_of(self, content: str) -> str:
        """Return the digest of the image from its file's content, without reading the file."""
        return self.options.digest_of(content, self.frame)

    def digest(self) -> str:
        """Digest of the image."""
        return self.opened().digest()


@dataclass(frozen=True, slots=True)
class RemoteItem:
    """A remote file, which each call fetches again, or takes where it was fetched ahead."""

    address: Address
    options: ReadOptions
    note: Note | None = field(default=None, compare=False, repr=False)
    frame: int = 0

    @property
    def path(self) -> str:
        """The address, without credentials."""
        return str(self.address)

    @property
    def name(self) -> str:
        """Name of the file in the store."""
        return self.options.remote.name(self.address)

    def load(self) -> Levels:
        """Fetch and decode the file."""
        return self.fetched(with_state=False).load()

    def opened(self) -> "BytesItem":
        """Fetch the file, once for its digest and its picture."""
        return self.fetched(with_state=True)

    def fetched(self, *, with_state: bool) -> "BytesItem":
        """Fetch the file, and the state that it had before where it is wanted."""
        data, state = self.options.remote.read(self, self.address, with_state=with_state)
        return BytesItem(data, self.options, self.note, self.frame, state=state)

    def digest_of(self, content: str) -> str:
        """Return the digest of the image from its file's content, without fetching the file."""
        return self.options.digest_of(content, self.frame)

    def digest(self) -> str:
        """Digest of the image."""
        return self.fetched(with_state=False).digest()


@dataclass(frozen=True, slots=True)
class BytesItem:
    """The content of an image file; `state` is that of the remote file that it was read from."""

    data: bytes
    options: ReadOptions = _PLAIN
    note: Note | None = field(default=None, compare=False, repr=False)
    frame: int = 0
    path: None = None
    state: State | None = field(default=None, compare=False, repr=False)

    def load(self) -> Levels:
        """Decode the bytes."""
        return decode(self.data, self.options, self.note, self.frame)

    def content(self) -> str:
        """Digest of the bytes alone: all that a memo of files may keep."""
        return digest_file(self.data)

    def digest(self) -> str:
        """Digest of the bytes and of the options, that of a file with this content."""
        return self.options.digest_of(self.content(), self.frame)


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
    if isinstance(item, PartItem):
        return item.part.n_pixels
    return item.array.size if isinstance(item, ArrayItem) else None


def load_resized(item: Item, preprocess: Preprocess) -> Levels:
    """Load, resize and crop an item; files are decoded and resized in one step."""
    if isinstance(item, RemoteItem):
        item = item.fetched(with_state=False)
    if isinstance(item, FileItem | BytesItem):
        source = item.path if isinstance(item, FileItem) else item.data
        return decode_resized(source, preprocess, item.options, item.note, item.frame)
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


def array_item(array: AnyArray, options: ReadOptions, note: Note | None) -> ArrayItem:
    """Convert an array to an item; raise `ImageError` if its shape is not that of an image."""
    image_shape, value_range = options.image_shape, options.limits
    limits = effective_range(array.dtype, value_range)
    if array.ndim == 1 and image_shape is not None:
        if array.size != np.prod(image_shape):
            raise ImageError(f"{array.size} values do not fill image_shape={image_shape}.")
        array = array.reshape(image_shape)
    layout = choose_layout(array.shape, image_shape)
    return ArrayItem(array, layout, limits, None if value_range is not None else note)


def remote_item(
    address: Address, options: ReadOptions, note: Note | None, frame: int
) -> RemoteItem:
    """Convert an address to an item; raise an `ImageError` if its scheme is unknown."""
    check_scheme(address)
    return RemoteItem(address, options, note, frame)


def existing_file(path: str) -> str:
    """Return a path after checking that it is a file."""
    try:
        # pathlib is much slower, and this runs for every row of every call.
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError as error:
        raise ImageError(f"no such file.{_way_out(path)}", path=path) from error
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be reached: {cause(error)}.", path=path) from error
    if stat.S_ISDIR(mode):
        raise ImageError(
            'is a folder. Pass its files: sorted(Path(folder).rglob("*.jpg"))', path=path
        )
    if not stat.S_ISREG(mode):
        raise ImageError("is not a regular file.", path=path)
    return path


def _way_out(path: str) -> str:
    """Say what a path lacks that a shell would have changed."""
    if path.startswith("~"):
        return " Pass Path(path).expanduser()."
    if "*" in path:
        return " Pass the files: sorted(Path(folder).glob(pattern))."
    return ""
