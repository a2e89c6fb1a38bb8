"""Decoding: conversion of an image file to levels, as displayed, or an ImageError.

Pillow decodes. Its plugins raise many types of errors (OSError, SyntaxError, ValueError,
struct.error, EOFError, TypeError, KeyError, ...), and all of them become an `ImageError`. A file is
read completely and closed before it is decoded, so no descriptor outlives the call.
"""

import os
import re
import warnings
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeAlias

import PIL
from PIL import Image, ImageFile, UnidentifiedImageError

from .._digest import digest, installed_version, stat_signature
from .._messages import cause
from .._parallel import ForkSafeLock
from .._preprocess import Preprocess
from .._typing import Levels
from ..exceptions import ImageError, MissingDependencyError
from ._appearance import (
    as_seen,
    is_plain,
    n_bands,
    picture_to_bands,
    picture_to_levels,
    refuse_reduced,
)
from ._foreign import content_hint
from ._frames import has_frames, n_frames, show_frame
from ._geometry import FAST_GAP, resize_and_crop, resize_picture, resized_size
from ._options import ReadOptions
from ._pillow import decoder_versions, pixel_limit, refuse_bomb, register_plugins
from ._recent import Recent
from ._scaling import Note, ValueRange
from ._window import HounsfieldWindow, refuse_file_without_units
from .formats import DECODING_PACKAGES, format_of, is_tiff

Source: TypeAlias = str | os.PathLike[str] | bytes

_PLAIN = ReadOptions()
# What Pillow says of content that ends early or does not decode.
_DAMAGE = re.compile("truncated|data stream|decoder error")
_PIXELS = re.compile(r"(\d+) pixels")
# A longer header is not searched for a number of pixels.
_HEADER_BYTES = 2**20

# Part of every row's key. Increase it when decoding or scaling changes, so that older rows are not
# used.
_READING_VERSION = 8

# Offset of the bit depth in a PNG file, after the signature, the length and name of IHDR, the width
# and the height.
_PNG_BITS_AT = 24

# Numbers of channels, by path, state and frame.
_channels: Recent[int] = Recent(10_000)

_QUIET = ForkSafeLock()
# An opened picture loads its pixels at its first use, which two threads must not do simultaneously.
_LOADING = ForkSafeLock()


def decode(
    source: Source, options: ReadOptions = _PLAIN, note: Note | None = None, frame: int = 0
) -> Levels:
    """Decode an image file, given by path or content, as displayed.

    The EXIF orientation is applied, transparency is composited over white, and every color space is
    converted to RGB. The result has shape (H, W, 1 or 3) and levels from 0 to 255: uint8, or
    float32 if levels of more than 8 bits are not whole numbers. `note` records what the defaults
    hide.
    Raises `ImageError`, with the path, if the file cannot be read, is damaged or truncated, is no
    image, has no such frame, has values out of range, or has more pixels than
    ``PIL.Image.MAX_IMAGE_PIXELS``.

    Examples
    --------
    >>> from io import BytesIO
    >>> from PIL import Image
    >>> from sklearn_featx.images import decode
    >>> file = BytesIO()
    >>> Image.new("LA", (4, 3), (0, 0)).save(file, format="PNG")
    >>> decode(file.getvalue())[0, :, 0]
    array([255, 255, 255, 255], dtype=uint8)
    """
    return _decode_source(source, _Reading(options, note, frame, None))


def decode_resized(
    source: Source,
    preprocess: Preprocess,
    options: ReadOptions = _PLAIN,
    note: Note | None = None,
    frame: int = 0,
) -> Levels:
    """Decode, resize and crop an image, as `decode` followed by `resize_and_crop`.

    With ``preprocess.fast``, a JPEG file is decoded at a half, a quarter or an eighth of its size
    if that is large enough.
    """
    return _decode_source(source, _Reading(options, note, frame, preprocess))


class _Reading(NamedTuple):
    """How one file becomes levels."""

    options: ReadOptions
    note: Note | None
    frame: int
    preprocess: Preprocess | None

    def of_picture(self, picture: Image.Image) -> Levels:
        """Convert a loaded picture."""
        _refuse_empty(picture)
        value_range = self.options.limits
        if self.options.bands:
            bands = picture_to_bands(picture, self.options.picked, value_range, self.note)
            return self.of_levels(bands)
        if self.preprocess is not None and is_plain(picture, value_range):
            return resize_picture(as_seen(picture), self.preprocess)
        return self.of_levels(picture_to_levels(picture, value_range, self.note))

    def of_levels(self, levels: Levels) -> Levels:
        """Resize and crop, if it is asked for."""
        return levels if self.preprocess is None else resize_and_crop(levels, self.preprocess)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file; raise `ImageError`, with the path, if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        reason = f"the file cannot be read: {cause(error)}"
        raise ImageError(reason, path=os.fspath(path)) from error


def digest_file(data: bytes) -> str:
    """Return the digest of a file's content."""
    return digest("file", data)


def digest_reading() -> str:
    """Return the digest of everything but the content that a decoded picture depends on."""
    versions = [*decoder_versions(), *(f"{p} {installed_version(p)}" for p in DECODING_PACKAGES)]
    return digest(_READING_VERSION, ImageFile.LOAD_TRUNCATED_IMAGES, *versions)


def count_frames(source: Source, options: ReadOptions = _PLAIN) -> int:
    """Return the number of frames of a file; raise `ImageError` if they cannot be counted."""
    data = source if isinstance(source, bytes) else read_file(source)
    try:
        special = format_of(data)
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if special is not None:
                return special.n_frames(data)
            with _identified(data) as picture:
                return n_frames(picture)
    except Exception as error:
        # Pillow's plugins and the packages of formats raise errors of any type for damaged data.
        # Decoding names the reason; if the first frame is intact, a later one is damaged.
        decode(data, options)
        name = type(error).__name__
        raise ImageError(f"is damaged: its frames cannot be counted ({name}).") from error


def pixels_in_header(source: Source) -> int | None:
    """Return the number of pixels that a file's header names; None if it cannot be read."""
    try:
        special = format_of(_start(source))
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if special is not None:
                return special.n_pixels(_start(source, _HEADER_BYTES))
            with _identified(source) as picture:
                return picture.width * picture.height
    except Exception:
        # Plugins raise errors of any type. Decoding raises them with the reason.
        return None


def _start(source: Source, size: int = 512) -> bytes:
    """Return the first bytes of a file."""
    if isinstance(source, bytes):
        return source[:size]
    with Path(source).open("rb") as file:
        return file.read(size)


def count_channels(source: Source, options: ReadOptions = _PLAIN, frame: int = 0) -> int:
    """Return the number of channels of a file, from its header where that names it.

    Raises `ImageError` if the file cannot be read.
    """
    if isinstance(source, bytes):
        return _count_channels(source, options, frame)
    path = os.fspath(source)
    try:
        state = stat_signature(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be read: {cause(error)}", path=path) from error
    key = (str(Path(path).absolute()), *state, options.frames == "first", frame)
    try:
        return _channels.get(key, lambda: _count_channels(path, options, frame))
    except ImageError as error:
        raise ImageError(error.reason, path=path) from error


def _count_channels(source: Source, options: ReadOptions, frame: int) -> int:
    try:
        if format_of(_start(source)) is not None or is_tiff(_start(source)):
            source = source if isinstance(source, bytes) else read_file(source)
            special = format_of(source, bands=True)
            if special is not None:
                return special.n_channels(source, options, frame)
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _identified(source) as picture:
                return n_bands(picture)
    except ImageError:
        raise
    except MissingDependencyError as error:
        raise ImageError(str(error)) from error
    except Exception as error:
        # Plugins raise errors of any type for damaged data.
        raise ImageError(_reason(error, source if isinstance(source, bytes) else b"")) from error


def levels_of_picture(
    image: Image.Image, options: ReadOptions = _PLAIN, note: Note | None = None
) -> Levels:
    """Convert a user's picture to levels, as `decode` does for a file."""
    value_range = options.limits
    path = getattr(image, "filename", None) or None
    try:
        refuse_bomb(image.width * image.height)
        _refuse_empty(image)
        _refuse_other_units(image, value_range)
        with _LOADING:
            refuse_reduced(image, value_range)
            image.load()
        if options.bands:
            return picture_to_bands(image, options.picked, value_range, note)
        return picture_to_levels(image, value_range, note)
    except ImageError:
        raise
    except Exception as error:
        # The plugin of an open picture decodes here, and raises errors of any type.
        raise ImageError(_reason(error), path=path) from error


def _refuse_empty(picture: Image.Image) -> None:
    if 0 in picture.size:
        width, height = picture.size
        raise ImageError(f"a picture of {width} x {height} pixels is empty.")


def _refuse_other_units(image: Image.Image, limits: ValueRange | None) -> None:
    """Reject a window in Hounsfield units for an opened file, colors and pictures of 8 bits."""
    if image.format is not None:
        refuse_file_without_units(limits, image.format)
    elif isinstance(limits, HounsfieldWindow) and image.mode not in ("I", "F"):
        raise limits.refusal(f"a picture of mode {image.mode}")


def _decode_source(source: Source, reading: _Reading) -> Levels:
    data, path = (source, None) if isinstance(source, bytes) else (read_file(source), source)
    name = None if path is None else os.fspath(path)
    if not data:
        raise ImageError("the file is empty (0 bytes).", path=name)
    try:
        special = format_of(data, bands=reading.options.bands)
        if special is not None:
            if not special.of_scans:
                refuse_file_without_units(reading.options.limits, "TIFF")
            levels = partial(special.levels, data, reading.options, reading.note, reading.frame)
            return reading.of_levels(_quietly(levels))
        return _quietly(partial(_open, data, reading))
    except ImageError as error:
        raise ImageError(error.reason, path=name) from error
    except MissingDependencyError as error:
        raise ImageError(str(error), path=name) from error
    except Exception as error:
        # Plugins raise errors of any type for damaged data.
        raise ImageError(_reason(error, data), path=name) from error


def _quietly(opened: Callable[[], Levels]) -> Levels:
    """Decode; if a filter turns a warning into an error, decode again without warnings.

    Pillow warns about damage that does not prevent decoding, such as corrupt EXIF. Whether an image
    is readable must not depend on the filters of `warnings`.
    """
    try:
        return opened()
    except Image.DecompressionBombWarning:
        raise
    except Warning:
        # `catch_warnings` is not thread-safe before Python 3.14, so it needs a lock and is only
        # used after a failure.
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return opened()


def _open(data: bytes, reading: _Reading) -> Levels:
    with _identified(data) as image:
        refuse_file_without_units(reading.options.limits, str(image.format))
        refuse_bomb(image.width * image.height)
        show_frame(image, reading.frame)
        if reading.note is not None and reading.options.frames == "first" and has_frames(image):
            reading.note.frames(str(image.format))
        refuse_reduced(image, reading.options.limits)
        if reading.preprocess is not None and reading.preprocess.fast:
            _decode_smaller(image, reading.preprocess)
        image.load()
        _scale_png_key(image, data)
        return reading.of_picture(image)


def _identified(source: Source) -> Image.Image:
    try:
        return Image.open(BytesIO(source) if isinstance(source, bytes) else source)
    except UnidentifiedImageError:
        if not register_plugins():
            raise
        return Image.open(BytesIO(source) if isinstance(source, bytes) else source)


def _decode_smaller(image: Image.Image, preprocess: Preprocess) -> None:
    """Configure a JPEG file to be decoded at a fraction of its size, sufficient for the resize."""
    height, width = resized_size(image.height, image.width, preprocess)
    if preprocess.resize is None and not preprocess.border:
        return
    if isinstance(preprocess.resize, tuple) or preprocess.border:
        # The EXIF orientation may still swap height and width.
        height = width = max(height, width)
    # Other formats ignore it.
    image.draft(None, (round(FAST_GAP * width), round(FAST_GAP * height)))


def _scale_png_key(image: Image.Image, data: bytes) -> None:
    """Scale the transparent color of a PNG to the 8 bits of Pillow's pixels.

    Pillow scales pixels of 1, 2, 4 and (RGB) 16 bits per channel, but not the color in tRNS.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("1", "L", "RGB") or isinstance(key, bytes):
        return
    bits = data[_PNG_BITS_AT]
    if isinstance(key, int) and bits < 8:
        image.info["transparency"] = key * 255 // (2**bits - 1)
    elif isinstance(key, tuple) and bits == 16:
        image.info["transparency"] = tuple(level >> 8 for level in key)


def _reason(error: Exception, data: bytes = b"") -> str:
    if isinstance(error, UnidentifiedImageError):
        hint = content_hint(data)
        return f"the content is no image of a format that Pillow {PIL.__version__} reads.{hint}"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        # Pillow's own message may name twice the limit.
        found = _PIXELS.search(str(error))
        if found is None:
            return f"the image cannot be decoded ({cause(error)}): it is more than {pixel_limit()}"
        return f"the image has {found[1]} pixels, more than {pixel_limit(int(found[1]))}"
    if _DAMAGE.search(str(error)):
        return (
            f"the image cannot be decoded: {cause(error)}. Fetch the file again, or set "
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True."
        )
    return f"the image cannot be decoded: {cause(error)}"
