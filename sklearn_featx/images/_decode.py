"""Decoding: a file's bytes become the picture that a person sees, or an ImageError.

Pillow alone decodes. Its plugins raise whatever their parsing meets (OSError, SyntaxError,
ValueError, struct.error, EOFError, TypeError, KeyError, ...); here all of it ends as `ImageError`.
Files are read whole and closed before decoding begins, so no descriptor outlives the call.
"""

import os
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import PIL
from PIL import Image, ImageFile, UnidentifiedImageError

from .._digest import digest
from .._forks import ForkSafeLock
from .._messages import cause, short
from .._preprocess import Preprocess
from .._typing import Pixels
from ..exceptions import ImageError
from ._appearance import as_seen, picture_to_pixels
from ._foreign import content_hint
from ._geometry import FAST_GAP, resize_picture, resized_size
from ._pillow import decoder_versions, register_plugins

Source: TypeAlias = str | os.PathLike[str] | bytes
_Finish: TypeAlias = Callable[[Image.Image], Pixels]

# Part of every row's key: raise it when decoding or scaling changes, so that no old row is taken
# for new.
_READING_VERSION = 3

# Offset in a PNG file of the bit depth: signature, length and name of IHDR, width, height.
_PNG_BITS_AT = 24

_QUIET = ForkSafeLock()
# Pictures that the user opened load their pixels on first use, which two threads must not do at
# once to the same one.
_LOADING = ForkSafeLock()


def decode(source: Source) -> Pixels:
    """Decode an image file, given by path or content, as a person sees it: uint8 (H, W, 1 or 3).

    The orientation of EXIF is applied, transparency is composited over white, every color space
    becomes RGB, more than 8 bits are scaled to 8, and of an animation the first frame is taken.
    `ImageError`, with the path, if the file cannot be read, is damaged or truncated, is no image,
    or has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.

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
    return _decode_source(source, picture_to_pixels)


def decode_resized(source: Source, preprocess: Preprocess) -> Pixels:
    """Decode an image, resize and crop it: `resize_and_crop` of what `decode` returns.

    With ``preprocess.fast``, a JPEG file is decoded at a half, a quarter or an eighth of its size
    where that is enough.
    """

    def finish(picture: Image.Image) -> Pixels:
        return resize_picture(as_seen(picture), preprocess)

    return _decode_source(source, finish, preprocess if preprocess.fast else None)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file; `ImageError`, with the path, if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        reason = f"the file cannot be read: {cause(error)}"
        raise ImageError(reason, path=os.fspath(path)) from error


def digest_file(data: bytes) -> str:
    """Digest of a file's content."""
    return digest("file", data)


def digest_reading() -> str:
    """Digest of all that decides which pixels a file or picture becomes, besides its content."""
    return digest(_READING_VERSION, ImageFile.LOAD_TRUNCATED_IMAGES, *decoder_versions())


def pixels_of_picture(image: Image.Image) -> Pixels:
    """Turn a picture that the user opened or made into pixels, as `decode` does for a file."""
    path = getattr(image, "filename", None) or None
    try:
        _refuse_bomb(image)
        with _LOADING:
            image.load()
        return picture_to_pixels(image)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(error), path=path) from error


def _decode_source(source: Source, finish: _Finish, smaller: Preprocess | None = None) -> Pixels:
    if isinstance(source, bytes):
        return _decode_bytes(source, None, finish, smaller)
    return _decode_bytes(read_file(source), os.fspath(source), finish, smaller)


def _decode_bytes(
    data: bytes, path: str | None, finish: _Finish, smaller: Preprocess | None
) -> Pixels:
    if not data:
        raise ImageError("the file is empty (0 bytes).", path=path)
    try:
        return _open_quietly(data, finish, smaller)
    except ImageError as error:
        raise ImageError(error.reason, path=path) from error
    except Exception as error:
        # Not a list of types: plugins raise whatever their parsing of foreign bytes meets.
        raise ImageError(_reason(error, data), path=path) from error


def _open_quietly(data: bytes, finish: _Finish, smaller: Preprocess | None) -> Pixels:
    """Decode; where a filter turns warnings into errors, decode again without them.

    Pillow warns about damage that it can read past, such as corrupt EXIF. Whether an image can be
    read must not depend on the filters of `warnings`.
    """
    try:
        return _open(data, finish, smaller)
    except Image.DecompressionBombWarning:
        raise
    except Warning:
        # Before Python 3.14 `catch_warnings` is not thread safe: hence the lock, and hence only
        # here, where decoding has failed without it.
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _open(data, finish, smaller)


def _open(data: bytes, finish: _Finish, smaller: Preprocess | None) -> Pixels:
    with _identified(data) as image:
        _refuse_bomb(image)
        if smaller is not None:
            _decode_smaller(image, smaller)
        image.load()
        _scale_png_key(image, data)
        return finish(image)


def _identified(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data))
    except UnidentifiedImageError:
        if not register_plugins():
            raise
        return Image.open(BytesIO(data))


def _decode_smaller(image: Image.Image, preprocess: Preprocess) -> None:
    """Let a JPEG file be decoded at a fraction of its size that is large enough for the resize."""
    height, width = resized_size(image.height, image.width, preprocess.resize)
    if preprocess.resize is None:
        return
    if isinstance(preprocess.resize, tuple):
        # It may yet be turned upright.
        height = width = max(height, width)
    # Other formats take no notice.
    image.draft(None, (round(FAST_GAP * width), round(FAST_GAP * height)))


def _scale_png_key(image: Image.Image, data: bytes) -> None:
    """Bring the transparent colour of a PNG to the 8 bits of the pixels that Pillow returns.

    Pillow scales pixels of 1, 2, 4 and (RGB) 16 bits per channel, but not the colour in tRNS.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("1", "L", "RGB") or isinstance(key, bytes):
        return
    bits = data[_PNG_BITS_AT]
    if isinstance(key, int) and bits < 8:
        image.info["transparency"] = key * 255 // (2**bits - 1)
    elif isinstance(key, tuple) and bits == 16:
        image.info["transparency"] = tuple(level >> 8 for level in key)


def _refuse_bomb(image: Image.Image) -> None:
    """Refuse before a pixel is decoded what Pillow would only warn about, up to twice its limit."""
    limit = Image.MAX_IMAGE_PIXELS
    pixels = image.width * image.height
    if limit is not None and pixels > limit:
        raise ImageError(
            f"the image has {pixels} pixels, more than PIL.Image.MAX_IMAGE_PIXELS = {limit}, and "
            "may be a decompression bomb. Raise that limit if you trust the file."
        )


def _reason(error: Exception, data: bytes = b"") -> str:
    if isinstance(error, UnidentifiedImageError):
        hint = content_hint(data)
        return f"the content is no image of a format that Pillow {PIL.__version__} reads.{hint}"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"{short(str(error))} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file."
    if "truncated" in str(error):
        return (
            f"the image cannot be decoded: {cause(error)}. Fetch the file again, or set "
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True."
        )
    return f"the image cannot be decoded: {cause(error)}"
