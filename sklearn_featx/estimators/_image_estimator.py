"""Base of the estimators: the images of X, and what scikit-learn needs to know about X."""

from abc import abstractmethod
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from .._sklearn_compat import CheckedParameters, _check_feature_names, _check_n_features
from .._typing import OnError
from ..flow import Recipe, Settings
from ..images import ImageCollection, ReadOptions, as_image_collection
from ._image_reader import ImageReader
from ._saved_state import CheckedState
from ._worker_settings import SentWithSettings


class Work(NamedTuple):
    """What an estimator does to the images of X.

    Parameters
    ----------
    images : ImageCollection
        The images.
    fitting, predicting : Recipe
        What `fit` and what `predict` or `transform` do to an image.
    settings : Settings
        How.
    """

    images: ImageCollection
    fitting: Recipe
    predicting: Recipe
    settings: Settings


class ImageEstimator(SentWithSettings, CheckedParameters, CheckedState, BaseEstimator):
    """Base of the extractor and the fine-tuners: reads X by the parameters that they share.

    Subclasses have the parameters `reader`, `on_error`, `n_jobs`, `cache` and `verbose`.
    """

    def work(self, X: Any) -> Work:
        """Return what `fit` and `predict` would do to images, without doing it.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        work : Work
            What `plan_search`, `precompute` and `layer_sweep` ask for.
        """
        self._validate_params()
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
        return read_images(self, X, self._reader(), reset=reset, on_error=self.on_error)

    def _reader(self) -> ImageReader:
        return ImageReader() if self.reader is None else self.reader

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether those of the reader are included, as ``reader__...``. Other parameters, such as
            transforms, may have a `get_params` of another kind.

        Returns
        -------
        parameters : dict
            Names and values.
        """
        parameters: dict[str, Any] = super().get_params(deep=False)
        if deep and isinstance(self.reader, ImageReader):
            parameters |= {f"reader__{k}": v for k, v in self.reader.get_params().items()}
        return parameters

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Names and values; ``reader__...`` makes a reader where there is none.

        Returns
        -------
        self : estimator
            The estimator.
        """
        nested = any(name.startswith("reader__") for name in params)
        if nested and params.get("reader", self.reader) is None:
            params["reader"] = ImageReader()
        changed: Self = super().set_params(**params)
        return changed

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Asked for before parameters are checked: the reader may be anything.
        is_table = getattr(self.reader, "image_shape", None) is not None
        tags.input_tags.two_d_array = is_table
        tags.input_tags.three_d_array = True
        tags.input_tags.string = not is_table
        return tags


def read_images(
    estimator: Any,
    X: Any,
    reader: ImageReader,
    *,
    reset: bool,
    on_error: OnError = "raise",
) -> ImageCollection:
    """Take X as images, and check or record its columns on the estimator.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets `n_features_in_` and `feature_names_in_` where X has columns.
    X : array-like, list, Series, DataFrame or Dataset
        The images.
    reader : ImageReader
        As in the estimators.
    reset : bool
        True in `fit`: record the columns; False: compare with what was recorded.
    on_error : {"raise", "nan"}, default="raise"
        As in the estimators.

    Returns
    -------
    images : ImageCollection
        Nothing is read from files yet.

    Raises
    ------
    InputError, ImageError, ValueError
        If X cannot be read as images.
    """
    reader._validate_params()
    options = ReadOptions(reader.image_shape, reader.value_range, on_error)
    if options.image_shape is not None and _is_table(X, plain_numbers=options.of_numbers):
        dtype = np.float32 if options.of_numbers else "numeric"
        X = validate_data(estimator, X, reset=reset, dtype=dtype)
    elif hasattr(X, "columns") and (reset or hasattr(estimator, "feature_names_in_")):
        # Without names from `fit` there is nothing to compare: `transform` works unfitted.
        _check_feature_names(estimator, X, reset=reset)
        _check_n_features(estimator, X, reset=reset)
    return as_image_collection(X, options)


def _is_table(X: Any, *, plain_numbers: bool) -> bool:
    """Whether X is meant as a table of numbers, one row per image."""
    shape = getattr(X, "shape", None)
    if plain_numbers:
        # Everything but (n, channels, length), so that a wrong X meets scikit-learn's own checks.
        return shape is None or len(shape) != 3
    if shape is not None:
        return len(shape) == 2 and not (shape[1] == 1 and np.asarray(X).dtype.kind not in "biufc")
    return isinstance(X, list | tuple) and bool(X) and _is_row_of_numbers(X[0])


def _is_row_of_numbers(row: Any) -> bool:
    return isinstance(row, list | tuple) and bool(row) and np.isscalar(row[0])
