"""Frames: the pictures of one file, such as an animation, a TIFF of several pages, a DICOM stack.

A frame has a number from 0; negative numbers count from the last frame.
"""

import os
from io import BytesIO
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from .._messages import shown
from ..exceptions import ImageError, InputError
from ._declared import TIFF_DESCRIPTION, declares_bits

Frames: TypeAlias = Literal["first", "all"] | int | slice

# Further pictures in files of other formats belong to the first: a thumbnail, a gain map (MPO,
# which phones write), a layer (PSD).
_FORMATS_OF_FRAMES = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "FLI", "DCX")


def check_frames(frames: Any) -> Frames:
    """Return `frames`; raise `InputError` if it does not choose frames."""
    if isinstance(frames, int | np.integer) and not isinstance(frames, bool):
        return int(frames)
    if isinstance(frames, slice):
        return frames
    if isinstance(frames, str) and frames in ("first", "all"):
        return "all" if frames == "all" else "first"
    raise InputError(
        f"frames={shown(frames)}: expected 'first', 'all', the number of a frame or a slice."
    )


def frame_numbers(frames: Frames, count: int) -> list[int]:
    """Return the numbers from 0 of the chosen frames, at least one, of `count`.

    Raises `ImageError` if there is no such frame.
    """
    if frames == "all":
        return list(range(count))
    if not isinstance(frames, slice):
        return [0 if frames == "first" else number_of(frames, count)]
    numbers = list(range(count)[frames])
    if not numbers:
        raise ImageError(f"has no frame in frames={frames}: it has {count}.")
    return numbers


def has_frames(image: Image.Image) -> bool:
    """Whether an opened picture has several frames."""
    return image.format in _FORMATS_OF_FRAMES and bool(getattr(image, "is_animated", False))


def n_frames(image: Image.Image) -> int:
    """Return the number of frames of an opened picture."""
    return int(getattr(image, "n_frames", 1)) if has_frames(image) else 1


def number_of(frame: int, count: int) -> int:
    """Return the number from 0 of a frame; raise `ImageError` if there are fewer frames."""
    if -count <= frame < count:
        return frame % count
    many = "s" if count > 1 else ""
    raise ImageError(f"has {count} frame{many}, numbered from 0, and frames={frame} is asked for.")


def show_frame(image: Image.Image, frame: int) -> None:
    """Turn an opened picture to a frame; raise `ImageError` if it has no such frame."""
    if frame != 0:
        description = _description(image)
        image.seek(number_of(frame, n_frames(image)))
        _describe(image, description)


def copies_of_frames(image: Image.Image, frames: Frames) -> list[Image.Image]:
    """Return copies of the chosen frames of a user's picture, which stays at its frame."""
    numbers = frame_numbers(frames, n_frames(image))
    if not has_frames(image):
        return [image]
    if image.format == "PNG":
        # Pillow cannot go on from the first frame of a PNG after it has gone back to it.
        return [_reopened(image, number) for number in numbers]
    before = image.tell()
    try:
        copies = []
        image.seek(0)
        description = _description(image)
        for number in numbers:
            image.seek(number)
            _describe(image, description)
            copies.append(_copy(image))
        return copies
    finally:
        image.seek(before)


def _description(image: Image.Image) -> Any:
    """Return the text of the first page of a TIFF, which OME describes all pages by."""
    return getattr(image, "tag_v2", {}).get(TIFF_DESCRIPTION)


def _describe(image: Image.Image, description: Any) -> None:
    """Let a page declare what the description of its file says."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is not None and declares_bits(description):
        tags[TIFF_DESCRIPTION] = description


def _reopened(image: Image.Image, number: int) -> Image.Image:
    file: Any = getattr(image, "fp", None)
    if file is None:
        raise ImageError("is a picture without its file, which has the frames. Pass the file.")
    place = file.tell()
    file.seek(0)
    content = BytesIO(file.read())
    file.seek(place)
    opened = Image.open(content)
    opened.seek(number)
    return opened


def _copy(image: Image.Image) -> Image.Image:
    copied = image.copy()
    # The declared range of the values follows from format and tags.
    copied.format = image.format
    if hasattr(image, "tag_v2"):
        copied.tag_v2 = image.tag_v2  # type: ignore[attr-defined]
    if hasattr(image, "filename"):
        copied.filename = os.fspath(image.filename)  # type: ignore[attr-defined]
    return copied
