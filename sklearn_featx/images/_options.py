"""ReadOptions: how entries of X become images, in one value.

An option that the levels of a file depend on is part of `digest_of`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from .._digest import digest
from .._messages import shown
from .._typing import AnyArray, OnError
from ..exceptions import InputError
from ._bag_pooling import check_bag_pooling
from ._channels import Channels, check_channels, picked
from ._frames import Frames, check_frames
from ._layout import ImageShape, Layout, check_image_shape, choose_layout
from ._remote import Remote
from ._scaling import AsTheyAre, ValueRange, check_value_range, effective_range
from ._window import HOUNSFIELD, WindowOption, check_window, window_limits


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How entries of X become images.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        Shape of one image: (H, W), (H, W, C) or (C, H, W). Required for 2-D arrays; resolves an
        ambiguous layout of other arrays. (1, -1): each row of a 2-D array is d plain numbers, not
        pixels. (C, -1): each row is a signal of C channels, X of shape (n, C, L) or (n, C * L).
    value_range : (float, float), default=None
        Values of black and white, for arrays, files and PIL images. None: the range that the file
        declares; else 0 to 1 for floats and booleans, 0 to 65535 for unsigned 16-bit integers, 0
        to 255 for other integers.
    channels : {"rgb", "each"} or sequence of int, default="rgb"
        Channels of an image that enter the network; see `_channels`.
    n_channels : int, default=None
        Number of channels of a network that reads no pictures: an image must have as many if
        `channels` is "rgb", and floats enter it as they are. With "each": the number of channels
        of an image, if it is known.
    frames : {"first", "all"}, int or slice, default="first"
        Frames of an animation or a file of several pages that become images.
    bag_pooling : str, default=None
        How the rows of several images become one row: "mean", "max", "min", "std", or several of
        them, such as "mean+max". None: each entry of X is one image.
    window : (float, float) or str, default=None
        Center and width, or the name of a window, of scans and arrays of gray values: values beyond
        it are clipped. None: the window that the file names. See `ImageReader`.
    storage_options : mapping, default=None
        Options of fsspec for remote files: of all servers, or mappings of them by scheme. A file's
        content does not depend on them, so they are in no key.
    on_error : {"raise", "nan"}, default="raise"
        Whether an invalid entry of a list raises an error immediately, or when it is read.

    Raises
    ------
    InputError
        If an option has an impossible value.

    Examples
    --------
    >>> from sklearn_featx.images import ReadOptions
    >>> ReadOptions(image_shape=[8, 8], value_range=(0, 16)).image_shape
    (8, 8)
    """

    image_shape: ImageShape | None = None
    value_range: ValueRange | None = None
    channels: Channels = "rgb"
    n_channels: int | None = None
    frames: Frames = "first"
    bag_pooling: str | None = None
    on_error: OnError = "raise"
    window: WindowOption | None = None
    storage_options: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    # Whether the caller has a parameter `on_error`, which messages may name.
    has_on_error: bool = field(default=True, compare=False, repr=False)
    # The servers and archives of one X.
    remote: Remote = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", check_image_shape(self.image_shape))
        object.__setattr__(self, "value_range", check_value_range(self.value_range))
        object.__setattr__(self, "channels", check_channels(self.channels))
        object.__setattr__(self, "frames", check_frames(self.frames))
        check_bag_pooling(self.bag_pooling)
        if self.bag_pooling is None and self.several_frames:
            raise InputError(
                f"frames={shown(self.frames)} gives several images for an entry of X, and one row. "
                "Say how their rows become one: ImageReader(frames=..., bag_pooling='mean')."
            )
        object.__setattr__(self, "window", check_window(self.window))
        object.__setattr__(self, "remote", Remote(self.storage_options))
        if self.value_range is not None and self.window is not None:
            raise InputError(
                f"value_range={shown(self.value_range)} and window={shown(self.window)} both name "
                "the values of black and white. Pass one of them."
            )
        if self.of_numbers and self.channels != "rgb":
            raise InputError(
                f"channels={shown(self.channels)} is for pixels; with image_shape="
                f"{self.image_shape} rows are plain numbers. Leave one out."
            )

    @property
    def of_numbers(self) -> bool:
        """Whether rows are plain numbers, not pixels."""
        return self.image_shape is not None and self.image_shape[-1] == -1

    @property
    def limits(self) -> ValueRange | None:
        """The values of black and white that the user named."""
        return window_limits(self.window) or self.value_range

    @property
    def bands(self) -> bool:
        """Whether images have any number of channels, none of which is alpha."""
        return self.channels != "rgb" or (self.n_channels is not None and not self.of_numbers)

    @property
    def picks(self) -> tuple[int, ...] | None:
        """The channels that are read; None for pictures, and where each is an image."""
        if isinstance(self.channels, str):
            return tuple(range(self.n_channels or 0)) if self._all_of_network else None
        return self.channels

    @property
    def _all_of_network(self) -> bool:
        return self.bands and self.channels == "rgb"

    def picked(self, values: AnyArray) -> AnyArray:
        """Return the channels of values (..., C) that are read."""
        picks = self.picks
        return values if picks is None else picked(values, picks, exact=self._all_of_network)

    def of_channel(self, channel: int) -> Self:
        """Return the options of one channel, a gray picture."""
        # A copy keeps the connections to servers.
        chosen = copy.copy(self)
        object.__setattr__(chosen, "channels", (channel,))
        object.__setattr__(chosen, "n_channels", None)
        return chosen

    def layout(self, shape: Sequence[int]) -> Layout:
        """Return the layout of an array of one image; raise `ImageError` if none fits."""
        n_channels = self.n_channels if self._all_of_network else None
        return choose_layout(shape, self.image_shape, bands=self.bands, n_channels=n_channels)

    def range_of(self, dtype: np.dtype[Any], declared: ValueRange | None = None) -> ValueRange:
        """Return the values of black and white; raise `ImageError` if the dtype is no number.

        `declared` is the range that the file declares.
        """
        limits = self.limits or declared
        of_pictures = self.n_channels is None or self.channels == "each"
        if limits is None and dtype.kind == "f" and not of_pictures:
            return AsTheyAre()
        return effective_range(dtype, limits)

    @property
    def several_frames(self) -> bool:
        """Whether a file may give several images."""
        return self.frames == "all" or isinstance(self.frames, slice)

    @property
    def frame(self) -> int:
        """The frame of a file that gives one image."""
        return self.frames if isinstance(self.frames, int) else 0

    def digest_of(self, content: str, frame: int = 0) -> str:
        """Return the digest of an image in a file, from the digest of the file's content.

        Parameters
        ----------
        content : str
            Digest of the bytes.
        frame : int, default=0
            Number of the frame.
        """
        if frame != 0:
            content = digest("frame", content, frame)
        if self.picks is not None:
            # The pages of a stack are its channels unless frames are asked for.
            content = digest("channels", content, self.frames == "first", *self.picks)
        if self.window is not None:
            kind = "hounsfield" if self.window in HOUNSFIELD else "windowed"
            return digest(kind, content, *_parts(self.window))
        return content if self.value_range is None else digest("ranged", content, *self.value_range)


def _parts(window: WindowOption) -> tuple[str | float, ...]:
    return (window,) if isinstance(window, str) else window
