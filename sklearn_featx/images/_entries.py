"""Entries: what one element of X may be, and the images in it.

=====================================  ======================================================
entry                                  its image
=====================================  ======================================================
str, path                              the file; or the text, if it is an image in base64
address, UPath                         the remote file, see `_remote`
bytes, bytearray, memoryview, np.void  the content of a file
uint8 vector that begins like a file   the content of a file
anything with `read` or `read_bytes`   what it returns, read once and from its beginning
PIL image                              the picture, as displayed
array, tensor, nested lists            the pixels
{"bytes": ..., "path": ...}            the bytes; if there are none, the file
{"image": ..., ...}                    its only image
(image, target, ...)                   the image; with `bag_pooling`, a list is a bag instead
an entry of `slices` or `tiles`        the slice of a volume, the tile of a slide
[image, image, ...]                    a bag, if `bag_pooling` is given
None, NaN, NA of a dataframe           none: an unreadable row
=====================================  ======================================================

A new kind of entry is a line of `_content`.
"""

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOBase
from typing import Any

import numpy as np
from PIL import Image

from .._messages import cause, shown
from .._typing import AnyArray
from ..exceptions import ImageError
from ._addresses import Address, foreign_host, is_local, local_path
from ._decode import count_frames
from ._encoded import decoded, is_buffer
from ._foreign import numbers_in_text, object_hint
from ._frames import copies_of_frames, frame_numbers
from ._items import (
    BytesItem,
    FileItem,
    Item,
    PictureItem,
    UnreadableItem,
    array_item,
    existing_file,
    remote_item,
)
from ._options import ReadOptions
from ._parts import Part, PartItem
from ._recognize import (
    is_array_like,
    is_arrow,
    is_arrow_scalar,
    is_missing,
    is_number,
    is_tensor,
    is_vector,
    tensor_to_array,
)
from ._scaling import Note

_PLAIN = ReadOptions()
# Names of the image in a mapping of several, in order of precedence.
_IMAGE_KEYS = ("image", "img", "pixel_values", "jpg", "jpeg", "png", "webp", "picture", "photo")
_PATH_KEYS = ("path", "image_path", "file", "file_name", "filename", "url", "image_url")


def as_item(
    entry: Any, row: int | None, options: ReadOptions = _PLAIN, note: Note | None = None
) -> Item:
    """Convert an entry to one image.

    `note` records what the defaults hide. Raises `ImageError`, with the row, if the entry is
    missing, is no image, is several, or is a path without a file.
    """
    items = as_items(entry, row, options, note)
    if len(items) != 1:
        raise ImageError(f"holds {len(items)} images. {_POOL_THEM}", row)
    return items[0]


def as_items(
    entry: Any, row: int | None, options: ReadOptions = _PLAIN, note: Note | None = None
) -> list[Item]:
    """Convert an entry to its images: one, or those of a bag.

    An invalid entry raises its `ImageError` immediately, or when it is read if
    ``options.on_error`` is "nan".
    """
    try:
        parts, items = _parts(entry, options), []
        for place, part in enumerate(parts):
            with _placed(place, len(parts)):
                items += _images(part, options, note)
        return items
    except ImageError as error:
        if options.on_error == "nan":
            return [UnreadableItem(error.reason, error.path)]
        raise ImageError(_with_advice(error, options), row, error.path) from error.__cause__


_POOL_THEM = (
    "Say how their rows become one, reader=ImageReader(bag_pooling='mean'), or give one image for "
    "each row."
)


def _parts(entry: Any, options: ReadOptions) -> list[Any]:
    """Split a bag, or return the image of a pair or mapping, or the entry as it is."""
    entry = _plain(entry)
    if isinstance(entry, Mapping):
        return _parts(_of_mapping(entry, options), options)
    if _holds_objects(entry):
        entry = _lists_of(entry, options)
    if not isinstance(entry, list | tuple):
        return _frames_of_array(entry, options)
    if _is_numbers(entry):
        return _frames_of_array(_numbers_of(entry), options)
    if not entry:
        raise ImageError("is an empty list, without an image.")
    if _is_pair(entry, bags=options.bag_pooling is not None):
        return _parts(entry[0], options)
    if options.bag_pooling is None and len(entry) > 1:
        kinds = ", ".join(type(part).__name__ for part in entry[:3])
        more = ", ..." if len(entry) > 3 else ""
        raise ImageError(f"is a list of {len(entry)} entries ({kinds}{more}). {_POOL_THEM}")
    parts = []
    for place, part in enumerate(entry):
        with _placed(place, len(entry)):
            parts += _parts(part, options)
    return parts


def _plain(entry: Any) -> Any:
    """Convert an entry of pandas, polars or pyarrow to builtins or an array."""
    if is_arrow_scalar(entry):
        return entry.as_py()
    if is_arrow(entry):
        return entry.to_pylist()
    return np.asarray(entry.to_numpy()) if is_vector(entry) else entry


def _holds_objects(entry: Any) -> bool:
    return isinstance(entry, np.ndarray) and entry.dtype.kind in "OUT" and entry.ndim > 0


def _lists_of(array: AnyArray, options: ReadOptions) -> list[Any]:
    """Convert an array of objects to lists: pandas reads nested lists of Arrow as such arrays."""
    parts = [_lists_of(p, options) if _holds_objects(p) else p for p in array.tolist()]
    if options.image_shape is not None:
        # A vector is a flattened image.
        return parts
    return [p.tolist() if isinstance(p, np.ndarray) and p.ndim == 1 else p for p in parts]


def _numbers_of(entry: list[Any] | tuple[Any, ...]) -> Any:
    """Convert nested lists to an array; if their parts differ in length, `_content` raises."""
    try:
        return np.asarray(entry)
    except ValueError:
        return entry


@contextmanager
def _placed(place: int, size: int) -> Iterator[None]:
    """Add the place in a bag to an error of one of its images, as `Bags.located` does."""
    try:
        yield
    except ImageError as error:
        if size == 1:
            raise
        reason = f"image {place} of {size}: {error.reason}"
        raise ImageError(reason, error.row, error.path) from error.__cause__


def _frames_of_array(entry: Any, options: ReadOptions) -> list[Any]:
    """Split an array of four axes into its images, if several or one of them is asked for."""
    if getattr(entry, "ndim", None) != 4 or (options.bag_pooling is None and options.frame == 0):
        return [entry]
    array = tensor_to_array(entry) if is_tensor(entry) else np.asarray(entry)
    frames = "all" if options.frames == "first" else options.frames
    return [array[number] for number in frame_numbers(frames, len(array))]


def _is_numbers(entry: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list consists of numbers, or of lists of numbers."""
    return all(
        is_number(part) or (isinstance(part, list | tuple) and bool(part) and _is_numbers(part))
        for part in entry
    ) and bool(entry)


def _is_pair(entry: list[Any] | tuple[Any, ...], *, bags: bool) -> bool:
    """Whether an entry is an image and its targets, as items of torch's datasets are.

    If entries may be bags, a list is a bag, and a missing value is a missing image, not a target.
    """
    first, *others = entry
    if bags and (isinstance(entry, list) or any(map(is_missing, others))):
        return False
    if _is_target(first):
        return False
    return bool(others) and all(
        _is_target(other)
        or (isinstance(other, str) and not isinstance(first, str | os.PathLike))
        or (isinstance(entry, tuple) and not isinstance(first, Mapping) and _is_annotation(other))
        for other in others
    )


def _is_annotation(value: Any) -> bool:
    """Whether a value has the boxes and masks of an image, as in detection datasets."""
    if isinstance(value, list):
        return all(map(_is_annotation, value))
    if not isinstance(value, Mapping) or {"bytes", "path", *_IMAGE_KEYS} & set(value):
        return False
    return not any(isinstance(part, bytes | bytearray | Image.Image) for part in value.values())


def _is_target(value: Any) -> bool:
    """Whether a value is a label, or several: a number or a vector."""
    if value is None or is_number(value):
        return True
    if isinstance(value, Mapping):
        return not _images_in(value)
    if is_buffer(value):
        return False
    if is_tensor(value) or isinstance(value, np.ndarray):
        return value.ndim < 2 and getattr(value.dtype, "kind", "f") not in "OUT"
    return isinstance(value, list | tuple) and bool(value) and all(map(is_number, value))


def _of_mapping(entry: Mapping[Any, Any], options: ReadOptions) -> Any:
    """Return the image of a mapping: a struct of bytes and path, or a sample of a dataset."""
    if entry.get("bytes") is not None:
        return entry["bytes"]
    found = _images_in(entry)
    keys = [key for key in _IMAGE_KEYS if entry.get(key) is not None] or _files_in(entry)
    if len(found) == 1 or (found and keys):
        return entry[keys[0] if len(found) > 1 else found[0]]
    paths = [key for key in (*_IMAGE_KEYS, *_PATH_KEYS) if isinstance(entry.get(key), str)]
    if not found and paths:
        return entry[paths[0]]
    names = shown(", ".join(map(str, entry)))
    if not entry or set(entry) <= {"bytes", "path"}:
        raise _missing("without bytes and path", options)
    if found:
        raise ImageError(f"is a mapping of several images (keys {names}). Pass one of them.")
    raise ImageError(
        f"is a mapping without an image (keys {names}). Pass its image, or "
        "{'image': ...} with bytes, a path, a PIL image or an array."
    )


def _files_in(entry: Mapping[Any, Any]) -> list[Any]:
    """Return the key of the only image file of a WebDataset's sample, as in "input.jpg"."""
    keys = [key for key in entry if "." in str(key) and str(key).split(".")[-1] in _IMAGE_KEYS]
    return keys if len(keys) == 1 else []


def _images_in(entry: Mapping[Any, Any]) -> list[Any]:
    return [key for key, value in entry.items() if _looks_like_image(value)]


def _looks_like_image(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("bytes") is not None or isinstance(value.get("path"), str)
    if isinstance(value, list | tuple):
        return bool(value) and (_looks_like_image(value[0]) or isinstance(value[0], list))
    if isinstance(value, bytes | bytearray | Image.Image | Part | np.void) or _reads(value):
        return True
    if is_buffer(value):
        return True
    return (is_tensor(value) or is_array_like(value)) and getattr(value, "ndim", 0) >= 2


def _images(entry: Any, options: ReadOptions, note: Note | None) -> list[Item]:
    """Convert one image, or the chosen frames of a file, to items."""
    if isinstance(entry, Part):
        existing_file(entry.path)
        return [PartItem(entry, options, note)]
    address = Address.of(entry)
    if address is not None and not is_local(address):
        first = remote_item(address, options, note, options.frame)
        if not options.several_frames:
            return [first]
        # Only its content names the number of frames.
        numbers = _numbers(first.opened().data, options, first.path)
        return [remote_item(address, options, note, k) for k in numbers]
    if address is not None and (host := foreign_host(address.url)):
        raise ImageError(
            f"names the host {shown(host)}, not a local file. Write three slashes, as in "
            "file:///home/photo.jpg, or the plain path.",
            path=str(address),
        )
    entry = _content(entry if address is None else local_path(address.url), options)
    if options.image_shape is None and is_buffer(entry):
        entry = entry.tobytes()
    if isinstance(entry, str):
        path = existing_file(entry)
        return [FileItem(path, options, note, k) for k in _numbers(path, options, path)]
    if isinstance(entry, bytes):
        return [BytesItem(entry, options, note, k) for k in _numbers(entry, options)]
    if isinstance(entry, Image.Image):
        pictures = [entry]
        if options.frames != "first":
            pictures = copies_of_frames(entry, options.frames)
        return [PictureItem(picture, options, note) for picture in pictures]
    return [array_item(entry, options, note)]


def _numbers(source: str | bytes, options: ReadOptions, path: str | None = None) -> list[int]:
    """Return the numbers of the frames of a file that become images; `path` is for errors."""
    if not options.several_frames:
        return [options.frame]
    try:
        return frame_numbers(options.frames, count_frames(source, options))
    except ImageError as error:
        raise ImageError(error.reason, path=path) from error.__cause__


def _content(entry: Any, options: ReadOptions) -> Any:
    """Reduce an entry to the path or bytes of a file, a picture or an array."""
    _refuse(entry, options)
    if isinstance(entry, str | os.PathLike):
        return _of_text(str(os.fsdecode(entry)))
    if isinstance(entry, np.void):
        return entry.tobytes()
    if isinstance(entry, bytes | bytearray | memoryview):
        return bytes(entry)
    if isinstance(entry, Image.Image):
        return entry
    if is_tensor(entry):
        return tensor_to_array(entry)
    if is_array_like(entry) and not is_number(entry):
        return np.asarray(entry)
    if _reads(entry):
        return _read_once(entry)
    if isinstance(entry, list | tuple):
        try:
            return np.asarray(entry)
        except ValueError as error:
            raise ImageError(
                "is a nested list whose parts differ in length. Pass numpy arrays, one for each "
                "image."
            ) from error
    raise _no_image(entry)


def _refuse(entry: Any, options: ReadOptions) -> None:
    """Raise an error for a missing entry, or a scan that another package has opened."""
    if is_missing(entry):
        raise _missing(shown(entry), options)
    if hint := object_hint(entry):
        raise ImageError(hint)


def _missing(what: str, options: ReadOptions) -> ImageError:
    """Return the error for a missing entry; the advice fits only where the error is raised."""
    reason = f"the entry is missing ({what})."
    if options.on_error == "raise":
        reason += " Drop such rows before"
        reason += ", or pass on_error='nan'." if options.has_on_error else "."
    return ImageError(reason)


def _with_advice(error: ImageError, options: ReadOptions) -> str:
    """Return the reason of an error that is raised, with the way out for a missing file."""
    if isinstance(error.__cause__, FileNotFoundError) and options.has_on_error:
        return f"{error.reason} on_error='nan' goes on without it."
    return error.reason


def _no_image(entry: Any) -> ImageError:
    if inspect.iscoroutine(entry):
        return ImageError("is a coroutine. Pass what it returns: await upload.read().")
    return ImageError(
        f"{type(entry).__name__} is not an image: expected a path, bytes, an open file, a PIL "
        "image, an array or a tensor."
    )


def _of_text(text: str) -> str | bytes:
    """Return a path as it is, and the bytes of an image in base64."""
    data = decoded(text)
    if data is not None:
        return data
    n_numbers = numbers_in_text(text)
    if n_numbers:
        raise ImageError(
            f"is the text of {n_numbers} numbers, not the name of a file. Convert it to an array: "
            "numpy.array(text.split(), dtype=float).reshape(height, width).",
            path=text,
        )
    return text


def _reads(value: Any) -> bool:
    """Whether a value is an open file, an upload, or a path in an archive."""
    return callable(getattr(type(value), "read_bytes", None)) or callable(
        getattr(value, "read", None)
    )


def _read_once(file: Any) -> bytes:
    """Return the content of a file object, which stays at its place."""
    if isinstance(file, TextIOBase):
        raise ImageError('is a file that was opened as text. Open it with open(path, "rb").')
    try:
        if hasattr(type(file), "read_bytes"):
            data = file.read_bytes()
        else:
            place = file.tell() if _seekable(file) else None
            if place is not None:
                file.seek(0)
            data = file.read()
            if place is not None:
                file.seek(place)
    except Exception as error:
        # Sockets, archives and uploads raise errors of any type.
        raise ImageError(f"the {type(file).__name__} cannot be read: {cause(error)}") from error
    if inspect.iscoroutine(data):
        data.close()
        raise ImageError("is read asynchronously. Pass its bytes: await upload.read().")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(f"the {type(file).__name__} gives {type(data).__name__}, not bytes.")
    if not data:
        raise ImageError(f"the {type(file).__name__} is empty, or was read before.")
    return bytes(data)


def _seekable(file: Any) -> bool:
    return all(callable(getattr(file, name, None)) for name in ("seek", "tell")) and bool(
        getattr(file, "seekable", lambda: True)()
    )
