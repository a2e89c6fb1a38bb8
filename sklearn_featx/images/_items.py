"""Items: the kinds of entries of a list (files, bytes, pictures, arrays, unreadable entries)."""

import os
import stat
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from PIL import Image

from .._digest import digest, digest_array
from .._messages import cause, shown
from .._preprocess import Preprocess
from .._typing import AnyArray, Levels
from ..exceptions import ImageError
from ._addresses import Address
from ._appearance import n_bands
from ._decode import (
    count_channels,
    decode,
    decode_resized,
    digest_file,
    levels_of_picture,
    pixels_in_header,
    read_file,
)
from ._foreign import name_hint
from ._geometry import resize_and_crop
from ._layout import Layout, as_channels_last
from ._options import ReadOptions
from ._parts import PartItem
from ._remote import State
from ._remote_systems import check_scheme
from ._scaling import Note, ValueRange, to_shown
from ._window import HounsfieldWindow, Window

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

    def n_channels(self) -> int:
        """Return the number of its channels; raise `ImageError` if it cannot be read."""

    def channel(self, number: int) -> "Item":
        """Return one channel as an image."""


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

    def n_channels(self) -> int:
        """Count its channels, from the header."""
        return count_channels(self.path, self.options, self.frame)

    def channel(self, number: int) -> "FileItem":
        """Return one channel as an image."""
        return replace(self, options=self.options.of_channel(number))


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

    def n_channels(self) -> int:
        """Fetch the file and count its channels."""
        return self.fetched(with_state=False).n_channels()

    def channel(self, number: int) -> "RemoteItem":
        """Return one channel as an image."""
        return replace(self, options=self.options.of_channel(number))


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

    def n_channels(self) -> int:
        """Count its channels, from the header."""
        return count_channels(self.data, self.options, self.frame)

    def channel(self, number: int) -> "BytesItem":
        """Return one channel as an image."""
        return replace(self, options=self.options.of_channel(number))


@dataclass(frozen=True, slots=True)
class PictureItem:
    """A Pillow image, identified by its pixels alone.

    Its `filename` does not identify the pixels: `seek`, drawing, pasting and `thumbnail` change the
    pixels but not the `filename`.
    """

    image: Image.Image
    options: ReadOptions = _PLAIN
    note: Note | None = field(default=None, compare=False, repr=False)
    path: None = None

    def load(self) -> Levels:
        """Return its levels, as displayed."""
        return levels_of_picture(self.image, self.options, self.note)

    def digest(self) -> str:
        """Return the digest of the levels, which include mode, palette, range and orientation."""
        return digest_pixels(self.load(), "HWC", (0.0, 255.0), bands=self.options.bands)

    def n_channels(self) -> int:
        """Count its channels."""
        return n_bands(self.image)

    def channel(self, number: int) -> "PictureItem":
        """Return one channel as an image."""
        return replace(self, options=self.options.of_channel(number))


@dataclass(frozen=True, slots=True)
class ArrayItem:
    """An array of pixels; with `bands`, none of its channels is alpha."""

    array: AnyArray
    layout: Layout
    value_range: ValueRange
    note: Note | None = field(default=None, compare=False, repr=False)
    bands: bool = False
    path: None = None

    def load(self) -> Levels:
        """Check and scale the values."""
        return array_to_levels(
            self.array, self.layout, self.value_range, self.note, bands=self.bands
        )

    def digest(self) -> str:
        """Return the digest of the values, their shape, dtype and range."""
        return digest_pixels(self.array, self.layout, self.value_range, bands=self.bands)

    def n_channels(self) -> int:
        """Count its channels."""
        return int(as_channels_last(self.array, self.layout).shape[2])

    def channel(self, number: int) -> "ArrayItem":
        """Return one channel as an image."""
        plane = as_channels_last(self.array, self.layout)[:, :, number]
        return replace(self, array=plane, layout="HW")


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

    def n_channels(self) -> int:
        """Say what is wrong."""
        raise ImageError(self.reason, path=self.path)

    def channel(self, number: int) -> "UnreadableItem":  # noqa: ARG002
        """Return the same: none of its channels can be read."""
        return self


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
    item: AnyArray,
    layout: Layout,
    value_range: ValueRange,
    note: Note | None = None,
    *,
    bands: bool = False,
) -> Levels:
    """Convert an item to levels (H, W, C); RGBA is composited over white."""
    return to_shown(as_channels_last(item, layout), value_range, note, bands=bands)


def digest_pixels(
    item: AnyArray, layout: Layout, value_range: ValueRange, *, bands: bool = False
) -> str:
    """Return the digest of values, shape, dtype and range, independent of the axis order."""
    values = as_channels_last(item, layout)
    kind = "windowed-pixels" if isinstance(value_range, Window) else "pixels-2"
    if isinstance(value_range, HounsfieldWindow):
        # Not every image has these units.
        kind = "hounsfield-pixels"
    if bands and values.shape[2] in (2, 4):
        # The same values are another image where the last channel is alpha.
        kind = f"{kind} without alpha"
    return digest(kind, digest_array(values), *value_range)


def array_item(array: AnyArray, options: ReadOptions, note: Note | None) -> ArrayItem:
    """Convert an array to an item; raise `ImageError` if its shape is not that of an image."""
    image_shape = options.image_shape
    limits = options.range_of(array.dtype)
    if array.ndim == 1 and image_shape is not None:
        if array.size != np.prod(image_shape):
            raise ImageError(f"{array.size} values do not fill image_shape={image_shape}.")
        array = array.reshape(image_shape)
    layout = options.layout(array.shape)
    if options.picks is not None:
        array, layout = options.picked(as_channels_last(array, layout)), "HWC"
    note = None if options.limits is not None else note
    return ArrayItem(array, layout, limits, note, options.bands)


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
        hint = name_hint(path) or _link_hint(path) or _place_hint(path)
        raise ImageError(f"no such file.{hint}", path=path) from error
    except (OSError, ValueError) as error:
        reason = f"the file cannot be reached: {cause(error)}.{name_hint(path)}"
        raise ImageError(reason, path=path) from error
    if stat.S_ISDIR(mode):
        raise ImageError(
            'is a folder. Pass its files: sorted(Path(folder).rglob("*.jpg"))', path=path
        )
    if not stat.S_ISREG(mode):
        raise ImageError("is not a regular file.", path=path)
    return path


def _link_hint(path: str) -> str:
    """Return where a link leads to; empty for other names."""
    if not os.path.islink(path):  # noqa: PTH114
        return ""
    return f" It is a link to {shown(os.readlink(path))}, which does not exist."  # noqa: PTH115


def _place_hint(path: str) -> str:
    """Return the folder that a relative path starts at; empty for an absolute path."""
    if os.path.isabs(path):  # noqa: PTH117
        return ""
    try:
        return f" It was looked up in the working directory, {shown(os.getcwd())}."  # noqa: PTH109
    except OSError:
        return " It was looked up in the working directory, which does not exist."
