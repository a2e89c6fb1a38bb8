"""ImageReader: parameters of the conversion of X to images."""

from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator

from .._sklearn_compat import CheckedParameters
from ..images import Channels, Frames
from ._saved_state import CheckedState


class ImageReader(CheckedParameters, CheckedState, BaseEstimator):
    """Conversion of the entries of X to images: the parameter `reader` of the estimators.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        For rows that are flattened images: (height, width) or (height, width, channels). For rows
        of plain numbers, which are no pixels: ``(1, -1)``, or ``(channels, -1)`` for signals.
    value_range : (float, float), default=None
        Values of black and white, in arrays, files and pictures. None: the range that the file
        declares; else 0 to 65535 for uint16, 0 to 255 for other integers, and 0 to 1 for floats
        and booleans.
    channels : {"rgb", "each"} or list of int, default="rgb"
        ``"rgb"``: an image is a picture: gray, RGB, or one of these with alpha as its last channel.
        A list: the numbers, from 0, of three channels, or of one channel, which is a gray image.
        ``"each"``: every channel passes through the network alone, as a gray image; the columns of
        all channels are concatenated [1]_, and each channel is cached alone. If `backbone` is a
        network whose first convolution takes other than 1 or 3 channels, ``"rgb"`` passes all
        channels of an image to it, and floats are not scaled.
    frames : {"first", "all"}, int or slice, default="first"
        Frames of an animation, a TIFF of several pages or a DICOM stack: the first, the one with a
        number (from 0; -1 is the last), or several, which are images of one row.
    bag_pooling : str, default=None
        How the rows of several images become one: ``"mean"``, ``"max"``, ``"min"``, ``"std"``, or
        several of them side by side, such as ``"mean+max"``. An entry of X may then be a list of
        images: the photographs of a product, the slices of a patient. None: one image for each
        row. Each image is cached once, alone.
    window : (float, float) or str, default=None
        Center and width of the values from black to white, for scans (DICOM, NIfTI) in their units,
        arrays and 16-bit gray pictures; values beyond the window are clipped. Or a name, in
        Hounsfield units: "lung" (-600, 1500), "bone" (400, 1800), "brain" (40, 80), "soft" (40,
        400). A name is an error for images that cannot have Hounsfield units. Or "full", all values
        that the file can store. None: the first window that the file names, else "full". Colors and
        8-bit pictures have no window.
    storage_options : dict, default=None
        Options of fsspec for remote files, such as ``{"anon": True}`` for a public bucket; with
        several kinds of servers, by scheme: ``{"s3": {...}, "https": {...}}``. Pickles contain
        them: keep secrets in the environment or in the files of the server's own tools.

    See Also
    --------
    PretrainedFeatureExtractor : Turns pictures into columns.

    References
    ----------
    .. [1] U. Marikkar, S. S. Husain, M. Awais, S. Atito, "Channel-Aware Probing for Multi-Channel
       Imaging", arXiv:2602.12696, 2026.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_featx import ImageReader, PretrainedFeatureExtractor
    >>> X, _ = load_digits(return_X_y=True)
    >>> reader = ImageReader(image_shape=(8, 8), value_range=(0, 16))
    >>> PretrainedFeatureExtractor(reader=reader, image_size=32).fit_transform(X[:3]).shape
    (3, 1280)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 # scikit-learn's own form
        "image_shape": [list, tuple, None],
        "value_range": [list, tuple, None],
        "channels": [str, list, tuple],
        "frames": [str, Integral, slice],
        "bag_pooling": [str, None],
        "window": [list, tuple, str, None],
        "storage_options": [dict, None],
    }

    def __init__(
        self,
        *,
        image_shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] | None = None,
        channels: Channels | list[int] = "rgb",
        frames: Frames = "first",
        bag_pooling: str | None = None,
        window: tuple[float, float] | str | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self.image_shape = image_shape
        self.value_range = value_range
        self.channels = channels
        self.frames = frames
        self.bag_pooling = bag_pooling
        self.window = window
        self.storage_options = storage_options
