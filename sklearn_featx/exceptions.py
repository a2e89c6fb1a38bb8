"""Errors and warnings of the package.

::

    FeatxError
    ├── InputError (ValueError)          X as a whole cannot be read as images
    ├── ImageError (ValueError)          an image cannot be read: has `row` and `path`
    ├── BackboneError (ValueError)       a backbone cannot be built or cut
    │   ├── UnknownBackboneError         no backbone has this name
    │   ├── UnknownLayerError            no stage or node has this name, or no such depth
    │   └── WeightsError                 weights are missing, damaged, unreachable or do not fit
    ├── SavedStateError (ValueError)     a saved estimator is damaged
    ├── StoreError                       a store cannot be used (estimators warn instead)
    ├── DivergenceError (RuntimeError)   training diverged: a loss or parameter is NaN or infinite
    └── MissingDependencyError (ImportError)

    FeatxWarning (UserWarning)
    ├── ImageWarning                     unreadable images were omitted
    ├── BackboneWarning                  a user's network may need another preprocessing or head
    ├── RangeWarning                     the values use less than a quarter of their range
    ├── RandomWeightsWarning             a backbone has random weights
    ├── CutWarning                       an untraceable network is cut at its top-level parts
    ├── SavedVersionWarning              a model was saved with other versions of the libraries
    └── StoreWarning                     a store does not work: rows are not cached

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
    "StoreError",
    "StoreWarning",
    "UnknownBackboneError",
    "UnknownLayerError",
    "WeightsError",
]


class FeatxError(Exception):
    """Base class of the errors of this package."""


class InputError(FeatxError, ValueError):
    """X as a whole cannot be read as images, because of its layout, dtype or range."""


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
    """A backbone cannot be built or cut."""


class UnknownBackboneError(BackboneError):
    """No backbone has this name."""


class UnknownLayerError(BackboneError):
    """The backbone has no stage or node of this name, or fewer stages."""


class WeightsError(BackboneError):
    """Weights are missing, damaged, unreachable or belong to another network."""


class SavedStateError(FeatxError, ValueError):
    """A saved estimator is damaged: its content does not match its checksum."""


class StoreError(FeatxError):
    """A store cannot be used: its folder cannot hold a database."""


class DivergenceError(FeatxError, RuntimeError):
    """Training diverged: a loss or parameter is NaN or infinite."""


class MissingDependencyError(FeatxError, ImportError):
    """A required optional package is not installed."""


class FeatxWarning(UserWarning):
    """Base class of the warnings of this package."""


class ImageWarning(FeatxWarning):
    """Images cannot be read: their rows are NaN, omitted, or predicted by the prior."""


class RandomWeightsWarning(FeatxWarning):
    """A backbone has random weights: its features carry little information."""


class BackboneWarning(FeatxWarning):
    """A user's network may need another normalization, or still has its classification head."""


class RangeWarning(FeatxWarning):
    """The values use less than a quarter of the range that their type or file declares."""


class CutWarning(FeatxWarning):
    """A network cannot be traced and is cut at its top-level parts."""


class SavedVersionWarning(FeatxWarning):
    """A model was saved with other versions of the libraries: its predictions may differ."""


class StoreWarning(FeatxWarning):
    """A store does not work: results are correct, but rows are not cached."""
