"""Base of the estimators: shared parameters, and the conversion of X to images."""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, Self, get_args

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import validate_data

from .._messages import shown
from .._preprocess import CropMode, Preprocess
from .._sklearn_compat import (
    CheckedParameters,
    HasMethods,
    Interval,
    StrOptions,
    _check_feature_names,
    _check_n_features,
)
from .._typing import AnyArray, OnError, Precision
from ..backbones import Backbone, reads_pictures
from ..exceptions import InputError
from ..flow import Failure, Recipe, Settings, UserFunction, choose_preprocess
from ..images import ImageCollection, ReadOptions, as_image_collection, bag_poolings, n_parts
from ..store import FeatureStore
from ._channels import check_channels
from ._image_reader import ImageReader
from ._preprocessing import Preprocessing, chosen_size
from ._saved_state import CheckedState
from ._worker_settings import SentWithSettings

# The consequence for unreadable images, in a warning.
ROWS_ARE_NAN = "their rows are NaN, which an imputer after the estimator replaces."


# Parameters that are estimators of their own.
_NESTED: dict[str, type[BaseEstimator]] = {"reader": ImageReader, "preprocessing": Preprocessing}


class Work(NamedTuple):
    """The images of X, and everything that an estimator does to them.

    Parameters
    ----------
    images : ImageCollection
        The images.
    fitting, predicting : Recipe
        Recipe of `fit`, and that of `predict` or `transform`.
    settings : Settings
        Settings of the computation.
    """

    images: ImageCollection
    fitting: Recipe
    predicting: Recipe
    settings: Settings


class ImageEstimator(SentWithSettings, CheckedParameters, CheckedState, BaseEstimator):
    """Base of the extractor and the fine-tuners.

    Subclasses have all parameters of `_parameter_constraints`.
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 # scikit-learn's own form
        "backbone": [str, HasMethods(["forward", "named_modules"]), callable],
        "weights": [str, os.PathLike, None],
        "preprocessing": [StrOptions({"fast"}), Preprocessing, callable, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), list, tuple, None],
        "reader": [ImageReader, None],
        "device": [str],
        "precision": [StrOptions(set(get_args(Precision)))],
        # Not 0; negative numbers count from the last core, as in joblib.
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "cache": ["boolean", str, os.PathLike, FeatureStore],
        "on_error": [StrOptions({"raise", "nan"})],
        "verbose": ["verbose", Interval(Real, 0, None, closed="left")],
    }
    failures_: list[Failure]

    def work(self, X: Any) -> Work:
        """Return the images and recipes of `fit` and `predict`, without computing rows.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        work : Work
            Images, recipes and settings, for `plan_search`, `precompute` and `layer_sweep`.
        """
        images = self._images(X, reset=False)
        return Work(images, *self._recipes(images), self._settings())

    @abstractmethod
    def _recipes(self, images: ImageCollection) -> tuple[Recipe, Recipe]:
        """Recipes of fitting and of predicting."""

    def _settings(self) -> Settings:
        return Settings(
            n_jobs=self.n_jobs,
            cache=self.cache,
            verbose=int(self.verbose),
            on_error=self.on_error,
        )

    def _images(self, X: Any, *, reset: bool) -> ImageCollection:
        # Parameters may have been set after `fit`.
        self._validate_params()
        reader = self._reader()
        return read_images(
            self,
            X,
            reader,
            reset=reset,
            on_error=self.on_error,
            n_channels=self._needed_channels(reader, reset=reset),
        )

    def _needed_channels(self, reader: ImageReader, *, reset: bool) -> int | None:
        """Return the number of channels that images need; None: those of pictures, or unknown."""
        if reader.channels == "each":
            return None if reset else getattr(self, "n_channels_", None)
        if isinstance(self.backbone, str) or callable(self.preprocessing):
            # Networks by name read pictures; a function makes what its network needs.
            return None
        if reads_pictures(self.backbone):
            # Known without a copy of the network and its digest, which each call would pay for.
            return None
        n_channels = self._backbone().preprocess.channels
        return None if n_channels in (1, 3) else n_channels

    def _of_rows(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes of the rows of X, from those of its images, or of their channels."""
        reader, n_channels = self._reader(), 1
        if reader.channels == "each":
            n_channels = getattr(self, "n_channels_", None) or 0
            if not n_channels:
                raise NotFittedError(
                    "The number of features depends on the number of channels; call 'fit' first."
                )
        parts = n_parts(reader.bag_pooling, n_channels)
        return [(parts * shape[0], *shape[1:]) for shape in shapes]

    def _column_names(self, prefixes: Sequence[str], widths: Sequence[int]) -> AnyArray:
        """Names of the columns of layers, given their prefixes and widths."""
        reader = self._reader()
        n_channels = getattr(self, "n_channels_", None) if reader.channels == "each" else None
        return column_names(prefixes, widths, reader.bag_pooling, n_channels)

    @abstractmethod
    def _backbone(self) -> Backbone:
        """Network of the estimator."""

    def _image_size(self) -> int | Sequence[int] | None:
        return chosen_size(self.preprocessing, self.image_size)

    def _preprocess(self, backbone: Backbone) -> Preprocess | UserFunction:
        """Preprocessing of the images, or the user's function."""
        preprocessing = self.preprocessing
        if not callable(preprocessing):
            check_channels(self._reader(), backbone)
        crop_mode: CropMode = "center"
        if isinstance(preprocessing, Preprocessing):
            preprocessing._validate_params()
            crop_mode = preprocessing.crop_mode
            preprocessing = "fast" if preprocessing.fast else None
        return choose_preprocess(backbone, preprocessing, self._image_size(), crop_mode)

    def _input_size(self, backbone: Backbone) -> tuple[int, int] | None:
        """Height and width of the network's input; None if they are those of the images."""
        size: tuple[int, int] | None
        size = getattr(self._preprocess(backbone), "output_size", None)
        return size

    def _reader(self) -> ImageReader:
        return ImageReader() if self.reader is None else self.reader

    def _note(self, failures: list[Failure]) -> None:
        """Set `failures_`, if unreadable images are not an error."""
        if self.on_error == "nan":
            # One assignment: threads that share the estimator see the table of one call.
            self.failures_ = failures

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of reader and preprocessing, as ``reader__...``.

        Returns
        -------
        parameters : dict
            Names and values.
        """
        # Other parameters, such as transforms, may have a method `get_params` with another meaning.
        parameters: dict[str, Any] = super().get_params(deep=False)
        for name, kind in _NESTED.items() if deep else ():
            nested = parameters[name]
            if isinstance(nested, kind):
                parameters |= {f"{name}__{k}": v for k, v in nested.get_params().items()}
        return parameters

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Names and values. If `reader` is None, ``reader__...`` sets a new `ImageReader`;
            ``preprocessing__...`` a new `Preprocessing` likewise.

        Returns
        -------
        self : estimator
            The estimator.

        Raises
        ------
        ValueError
            If a name is unknown.
        """
        self._refuse_names(params)
        for nested, kind in _NESTED.items():
            asked = any(name.startswith(f"{nested}__") for name in params)
            if asked and params.get(nested, getattr(self, nested)) is None:
                params[nested] = kind()
        changed: Self = super().set_params(**params)
        return changed

    def _refuse_names(self, params: Mapping[str, Any]) -> None:
        """Refuse names that another parameter sets."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # scikit-learn reads tags before parameters are validated: the reader may be any object.
        is_table = getattr(self.reader, "image_shape", None) is not None
        tags.input_tags.two_d_array = is_table
        tags.input_tags.three_d_array = True
        tags.input_tags.string = not is_table
        # An image with a pixel that is NaN is unreadable, and its row is NaN.
        tags.input_tags.allow_nan = self.on_error == "nan"
        return tags


def read_images(
    estimator: Any,
    X: Any,
    reader: ImageReader,
    *,
    reset: bool,
    on_error: OnError = "raise",
    n_channels: int | None = None,
) -> ImageCollection:
    """Convert X to images, and check or record its columns on the estimator.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets `n_features_in_` and `feature_names_in_` if X has columns.
    X : array-like, list, Series, DataFrame or Dataset
        The images.
    reader : ImageReader
        As in the estimators.
    reset : bool
        True in `fit`: record the columns. False: compare them with the recorded ones.
    on_error : {"raise", "nan"}, default="raise"
        As in the estimators.
    n_channels : int, default=None
        Number of channels of a network that reads no pictures.

    Returns
    -------
    images : ImageCollection
        The images; files are not read yet.

    Raises
    ------
    InputError, ImageError, ValueError
        If X cannot be read as images.
    """
    reader._validate_params()
    if hasattr(X, "columns"):
        _refuse_repeated_names(X)
    options = ReadOptions(on_error=on_error, n_channels=n_channels, **reader.get_params(deep=False))
    if options.image_shape is not None and _is_table(X, plain_numbers=options.of_numbers):
        dtype = np.float32 if options.of_numbers else "numeric"
        # NaN is refused with its row when the values are read.
        X = validate_data(estimator, X, reset=reset, dtype=dtype, ensure_all_finite=False)
    elif hasattr(X, "columns") and (reset or hasattr(estimator, "feature_names_in_")):
        # `transform` works unfitted, and then has no names to compare.
        _check_feature_names(estimator, X, reset=reset)
        _check_n_features(estimator, X, reset=reset)
    return as_image_collection(X, options)


def _refuse_repeated_names(X: Any) -> None:
    """Reject a dataframe in which a name stands for several columns."""
    names = list(getattr(X, "column_names", X.columns))
    if len(set(names)) < len(names):
        name, count = Counter(names).most_common(1)[0]
        raise InputError(
            f"X is a dataframe in which {count} columns have the name {shown(name)}. Rename them, "
            "or pass one column: X.iloc[:, 0] of a pandas dataframe."
        )


def column_names(
    prefixes: Sequence[str],
    widths: Sequence[int],
    bag_pooling: str | None = None,
    n_channels: int | None = None,
) -> AnyArray:
    """Return names of columns: a prefix for each group of columns, and the number in the group.

    Parameters
    ----------
    prefixes : sequence of str
        Prefix of each group.
    widths : sequence of int
        Number of columns of each group.
    bag_pooling : str, default=None
        As in `ImageReader`; each group has the columns of all poolings.
    n_channels : int, default=None
        Number of channels that pass alone; each group has the columns of all of them.

    Returns
    -------
    names : ndarray of shape (n_columns,), object
        ``prefix_00``, ``prefix_01`` and so on; ``prefix_mean_00`` for bags, ``prefix_channel0_00``
        for channels.
    """
    channels = [f"channel{i}" for i in range(n_channels or 0)]
    for parts in (bag_poolings(bag_pooling), channels):
        if parts:
            widths = [width // len(parts) for width in widths for _ in parts]
            prefixes = [f"{prefix}_{part}" for prefix in prefixes for part in parts]
    names = [
        f"{prefix}_{i:0{len(str(width - 1))}d}"
        for prefix, width in zip(prefixes, widths, strict=True)
        for i in range(width)
    ]
    return np.asarray(names, dtype=object)


def _is_table(X: Any, *, plain_numbers: bool) -> bool:
    """Whether X is a table of numbers, one row for each image."""
    shape = getattr(X, "shape", None)
    if plain_numbers:
        # Anything but (n, channels, length), so that scikit-learn's checks report an invalid X.
        return shape is None or len(shape) != 3
    if shape is not None:
        return len(shape) == 2 and not (shape[1] == 1 and np.asarray(X).dtype.kind not in "biufc")
    return isinstance(X, list | tuple) and bool(X) and _is_row_of_numbers(X[0])


def _is_row_of_numbers(row: Any) -> bool:
    if not isinstance(row, list | tuple) or not row:
        return False
    # A list of paths is a bag.
    return np.isscalar(row[0]) and not isinstance(row[0], str | bytes)
