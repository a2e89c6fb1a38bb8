"""Preprocessing: parameters of the geometry between an image and the network."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Literal, TypeAlias, get_args

from sklearn.base import BaseEstimator

from .._messages import shown
from .._preprocess import CropMode
from .._sklearn_compat import CheckedParameters, Interval, StrOptions
from ..exceptions import InputError
from ._saved_state import CheckedState


class Preprocessing(CheckedParameters, CheckedState, BaseEstimator):
    """What the network sees of an image: the parameter `preprocessing` of the estimators.

    Scale, mean, standard deviation and interpolation stay those of the weights.

    Parameters
    ----------
    image_size : int or (int, int), default=None
        Side, or (height, width), of the network's input in pixels. None: that of the estimator, or
        of the weights.
    crop_mode : {"center", "squash", "border"}, default="center"
        ``"center"``: the shorter side is resized and the center is cropped, as with the weights:
        the margins of a wide image are cut off. ``"squash"``: both sides are resized to those of
        the input, which changes proportions. ``"border"``: the longer side is resized, and the rest
        is filled with the mean gray of the weights.
    fast : bool, default=False
        Whether large images may be reduced by a faster method with nearly the same pixels.

    See Also
    --------
    ImageReader : Parameters of the conversion of an entry of X to an image.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx import PretrainedFeatureExtractor, Preprocessing
    >>> wide = np.zeros((2, 20, 200, 3), dtype=np.uint8)
    >>> preprocessing = Preprocessing(image_size=64, crop_mode="border")
    >>> PretrainedFeatureExtractor(preprocessing=preprocessing).fit_transform(wide).shape
    (2, 1280)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 # scikit-learn's own form
        "image_size": [Interval(Integral, 1, None, closed="left"), list, tuple, None],
        "crop_mode": [StrOptions(set(get_args(CropMode)))],
        "fast": ["boolean"],
    }

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] | None = None,
        crop_mode: CropMode = "center",
        fast: bool = False,
    ) -> None:
        self.image_size = image_size
        self.crop_mode = crop_mode
        self.fast = fast


PreprocessingOption: TypeAlias = Preprocessing | Literal["fast"] | Callable[[Any], Any] | None


def chosen_size(
    preprocessing: PreprocessingOption, image_size: int | Sequence[int] | None
) -> int | Sequence[int] | None:
    """Return the image size of an estimator.

    Parameters
    ----------
    preprocessing, image_size : object
        Parameters of the estimator.

    Raises
    ------
    InputError
        If both name a size, and not the same.
    """
    own = preprocessing.image_size if isinstance(preprocessing, Preprocessing) else None
    if own is None or image_size is None or own == image_size:
        return image_size if own is None else own
    raise InputError(
        f"image_size={shown(image_size)} and preprocessing=Preprocessing(image_size={shown(own)}) "
        "differ. Pass one of them."
    )
