"""Errors and warnings of the package.

::

    FeatxError
    ├── InputError (ValueError)          X as a whole cannot be read as images
    ├── ImageError (ValueError)          an image cannot be read: has `row` and `path`
    ├── BackboneError (ValueError)       a backbone cannot be built or cut
    │   ├── UnknownBackboneError         no backbone has this name
    │   ├── UnknownLayerError            no layer has this name, or there are fewer stages
    │   └── WeightsError                 weights are missing, damaged, of another network or fit
    ├── SavedStateError (ValueError)     a saved estimator is damaged
    ├── StoreError                       a store cannot be used (estimators warn instead)
    ├── DivergenceError (RuntimeError)   training diverged: a loss or parameter is NaN or infinite
    ├── UnsuitableModelError (TypeError) a model without one network, or without scores
    └── MissingDependencyError (ImportError)

    FeatxWarning (UserWarning)
    ├── ImageWarning                     unreadable images were omitted
    ├── BackboneWarning                  a user's network needs another preprocessing, or gives NaN
    ├── RangeWarning                     the values use less than a quarter of their range
    ├── RandomWeightsWarning             a backbone has random weights
    ├── SlowPrecisionWarning             PyTorch emulates bfloat16 on this processor
    ├── CutWarning                       an untraceable network is cut at its top-level parts
    ├── SavedVersionWarning              a model was saved with other versions of the libraries
    └── StoreWarning                     rows are not cached, though a store was named

The second base of an error is the built-in type that scikit-learn raises in such cases.
"""

from ._messages import shown

__all__ = [
    "BackboneError",
    "BackboneWarning",
    "CutWarning",
    "DivergenceError",
    "FeatxError",
    "FeatxWarning",
    "ImageError",
    "ImageWarning",
    "InputError",
    "MissingDependencyError",
    "RandomWeightsWarning",
    "RangeWarning",
    "SavedStateError",
    "SavedVersionWarning",
    "SlowPrecisionWarning",
    "StoreError",
    "StoreWarning",
    "UnknownBackboneError",
    "UnknownLayerError",
    "UnsuitableModelError",
    "WeightsError",
]


class FeatxError(Exception):
    """Base class of the errors of this package.

    Examples
    --------
    >>> from sklearn_featx import backbone_stages
    >>> from sklearn_featx.exceptions import FeatxError
    >>> try:
    ...     backbone_stages("resnet5")
    ... except FeatxError as error:
    ...     print(type(error).__name__)
    UnknownBackboneError
    """


class InputError(FeatxError, ValueError):
    """X as a whole cannot be read as images, because of its layout, dtype or range.

    Examples
    --------
    >>> from sklearn_featx import PretrainedFeatureExtractor
    >>> PretrainedFeatureExtractor().transform("cat.jpg")
    Traceback (most recent call last):
    sklearn_featx.exceptions.InputError: X is one path, 'cat.jpg'...
    """


class ImageError(FeatxError, ValueError):
    """An image cannot be read, or has no features.

    Parameters
    ----------
    reason : str
        The fault of the image, and how to correct it.
    row : int, default=None
        Position of the image in X.
    path : str, default=None
        The image's file, if it has one.

    Examples
    --------
    >>> from sklearn_featx import PretrainedFeatureExtractor
    >>> from sklearn_featx.exceptions import ImageError
    >>> try:
    ...     PretrainedFeatureExtractor(image_size=32).transform([b"no image"])
    ... except ImageError as error:
    ...     print(error.row, error.path)
    0 None
    """

    def __init__(self, reason: str, row: int | None = None, path: str | None = None) -> None:
        self.reason = reason
        self.row = row
        self.path = path
        super().__init__(reason, row, path)

    def __str__(self) -> str:
        where = "" if self.row is None else f"row {self.row}"
        if self.path is not None:
            path = shown(self.path)
            where = f"{where} ({path})" if where else path
        return f"{where}: {self.reason}" if where else self.reason


class BackboneError(FeatxError, ValueError):
    """A backbone cannot be built or cut.

    Examples
    --------
    >>> from sklearn_featx import backbone_stages
    >>> backbone_stages(dict)
    Traceback (most recent call last):
    sklearn_featx.exceptions.BackboneError: ... returned dict...
    """


class UnknownBackboneError(BackboneError):
    """No backbone has this name.

    Examples
    --------
    >>> from sklearn_featx import backbone_stages
    >>> backbone_stages("resnet5")
    Traceback (most recent call last):
    sklearn_featx.exceptions.UnknownBackboneError: ...
    """


class UnknownLayerError(BackboneError):
    """The backbone has no layer with this name, or fewer stages than the requested depth.

    Examples
    --------
    >>> from sklearn_featx import PretrainedFeatureExtractor
    >>> PretrainedFeatureExtractor(layer="blocks.77", image_size=32).get_feature_names_out()
    Traceback (most recent call last):
    sklearn_featx.exceptions.UnknownLayerError: ...
    """


class WeightsError(BackboneError):
    """Weights are missing, damaged, unreachable, of another network, or not those of the fit.

    Examples
    --------
    >>> from sklearn_featx import backbone_stages
    >>> backbone_stages("squeezenet1_1", weights="lost.pth")
    Traceback (most recent call last):
    sklearn_featx.exceptions.WeightsError: weights: the file 'lost.pth' does not exist...
    """


class SavedStateError(FeatxError, ValueError):
    """A saved estimator is damaged: its content does not match its checksum.

    Examples
    --------
    >>> from sklearn_featx.exceptions import SavedStateError
    >>> issubclass(SavedStateError, ValueError)
    True
    """


class StoreError(FeatxError):
    """A store cannot be used: its folder cannot hold a database.

    Examples
    --------
    >>> from sklearn_featx.exceptions import FeatxError, StoreError
    >>> issubclass(StoreError, FeatxError)
    True
    """


class DivergenceError(FeatxError, RuntimeError):
    """Training diverged: a loss or parameter is NaN or infinite.

    Examples
    --------
    >>> from sklearn_featx.exceptions import DivergenceError
    >>> issubclass(DivergenceError, RuntimeError)
    True
    """


class UnsuitableModelError(FeatxError, TypeError):
    """A model does not have exactly one network for the images, or has no score to explain.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn_featx import PretrainedFeatureExtractor, heat_maps
    >>> from sklearn_featx.exceptions import UnsuitableModelError
    >>> try:
    ...     heat_maps(PretrainedFeatureExtractor(), load_sample_images().images)
    ... except UnsuitableModelError as error:
    ...     print(error)
    nothing follows the extractor: there is no score to look into. Add a predictor.
    """


class MissingDependencyError(FeatxError, ImportError):
    """A required optional package is not installed.

    Examples
    --------
    >>> from sklearn_featx.exceptions import MissingDependencyError
    >>> issubclass(MissingDependencyError, ImportError)
    True
    """


class FeatxWarning(UserWarning):
    """Base class of the warnings of this package.

    Examples
    --------
    >>> import warnings
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn_featx import PretrainedFeatureExtractor
    >>> from sklearn_featx.exceptions import FeatxWarning
    >>> photographs = load_sample_images().images
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", FeatxWarning)
    ...     features = PretrainedFeatureExtractor(image_size=32).transform(photographs)
    """


class ImageWarning(FeatxWarning):
    """Images cannot be read: their rows are NaN, omitted, or predicted by the prior.

    Examples
    --------
    >>> import warnings
    >>> from sklearn_featx import PretrainedFeatureExtractor
    >>> extractor = PretrainedFeatureExtractor(image_size=32, on_error="nan")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     features = extractor.transform([b"no image"])
    >>> caught[0].category.__name__
    'ImageWarning'
    """


class RandomWeightsWarning(FeatxWarning):
    """A backbone has random weights: its features carry little information.

    Examples
    --------
    >>> import warnings
    >>> from sklearn_featx import backbone_stages
    >>> from sklearn_featx.exceptions import RandomWeightsWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", RandomWeightsWarning)
    ...     stages = backbone_stages("squeezenet1_1", weights=None)
    """


class BackboneWarning(FeatxWarning):
    """A user's network may need another normalization, has its head, draws numbers, or gives NaN.

    Examples
    --------
    >>> from sklearn_featx.exceptions import BackboneWarning
    >>> issubclass(BackboneWarning, UserWarning)
    True
    """


class RangeWarning(FeatxWarning):
    """The values use less than a quarter of the range that their type or file declares.

    Examples
    --------
    >>> from sklearn_featx.exceptions import RangeWarning
    >>> issubclass(RangeWarning, UserWarning)
    True
    """


class SlowPrecisionWarning(FeatxWarning):
    """PyTorch emulates bfloat16 on this processor, which is many times slower than float32.

    Examples
    --------
    >>> from sklearn_featx.exceptions import SlowPrecisionWarning
    >>> issubclass(SlowPrecisionWarning, UserWarning)
    True
    """


class CutWarning(FeatxWarning):
    """A network cannot be traced and is cut at its top-level parts.

    Examples
    --------
    >>> from sklearn_featx.exceptions import CutWarning
    >>> issubclass(CutWarning, UserWarning)
    True
    """


class SavedVersionWarning(FeatxWarning):
    """A model was saved with other versions of the libraries: its predictions may differ.

    Examples
    --------
    >>> import pickle
    >>> import warnings
    >>> from sklearn_featx import PretrainedFeatureExtractor
    >>> from sklearn_featx.exceptions import SavedVersionWarning
    >>> saved = pickle.dumps(PretrainedFeatureExtractor())
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", SavedVersionWarning)
    ...     extractor = pickle.loads(saved)
    """


class StoreWarning(FeatxWarning):
    """Results are correct, but rows are not cached in the store that `cache` names.

    Examples
    --------
    >>> import tempfile
    >>> import warnings
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn_featx import PretrainedFeatureExtractor
    >>> from sklearn_featx.exceptions import StoreWarning
    >>> extractor = PretrainedFeatureExtractor(image_size=32, cache=tempfile.mkdtemp())
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", StoreWarning)
    ...     features = extractor.transform(load_sample_images().images)
    """
