"""Every error and warning of the package.

::

    FeatxError
    ├── InputError (ValueError)          X as a whole cannot be read as images
    ├── ImageError (ValueError)          one image cannot be read: carries `row` and `path`
    ├── BackboneError (ValueError)       a backbone cannot be built or cut
    │   ├── UnknownBackboneError         no backbone of that name
    │   ├── UnknownLayerError            no stage or node of that name, no such depth
    │   └── WeightsError                 weights missing, damaged, unreachable or of another network
    ├── SavedStateError (ValueError)     a saved estimator is damaged
    ├── StoreError                       a store cannot be used: users see a StoreWarning
    ├── DivergenceError (RuntimeError)   training left the finite numbers
    └── MissingDependencyError (ImportError)

    FeatxWarning (UserWarning)
    ├── ImageWarning                     images cannot be read and were left out
    ├── BackboneWarning                  an own network: what it is taken for, and the way out
    ├── RangeWarning                     a range from type or file is used to less than a quarter
    ├── RandomWeightsWarning             a backbone with random weights is used
    ├── CutWarning                       a network cannot be traced; cut at its top-level parts
    ├── SavedVersionWarning              a model was saved with other versions: numbers may differ
    └── StoreWarning                     a store does not work: rows are computed, not remembered

The errors keep the built-in type that scikit-learn's users expect as a second base.
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
    """Base of every error that this package raises on its own account."""


class InputError(FeatxError, ValueError):
    """X as a whole cannot be read as images: its layout, dtype or range."""


class ImageError(FeatxError, ValueError):
    """One image cannot be read, or has no features.

    Parameters
    ----------
    reason : str
        What is wrong with the image and what to do about it.
    row : int, default=None
        Position of the image in X.
    path : str, default=None
        The file, when the image came from one.
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
    """No backbone has that name."""


class UnknownLayerError(BackboneError):
    """The backbone has no stage or node of that name, or not that many stages."""


class WeightsError(BackboneError):
    """Weights are missing, damaged, unreachable or belong to another network."""


class SavedStateError(FeatxError, ValueError):
    """A saved estimator is damaged: what it holds does not match its checksum."""


class StoreError(FeatxError):
    """A store cannot be used as it is: no file of its folder can hold its rows."""


class DivergenceError(FeatxError, RuntimeError):
    """Training diverged: the loss or a parameter is no longer a finite number."""


class MissingDependencyError(FeatxError, ImportError):
    """An optional package is needed and is not installed."""


class FeatxWarning(UserWarning):
    """Base of every warning of this package."""


class ImageWarning(FeatxWarning):
    """Some images cannot be read: their rows are NaN, left out, or predicted without evidence."""


class RandomWeightsWarning(FeatxWarning):
    """A backbone with random weights is used: its features mean little."""


class BackboneWarning(FeatxWarning):
    """An own network is used in a way that its author may not mean: normalization, or head."""


class RangeWarning(FeatxWarning):
    """The range that a type or a file declares is used to less than a quarter: another may fit."""


class CutWarning(FeatxWarning):
    """A network could not be traced and is cut at its top-level parts instead."""


class SavedVersionWarning(FeatxWarning):
    """A model is loaded with other versions than it was saved with: its numbers may differ."""


class StoreWarning(FeatxWarning):
    """A store does not work: results are right, but rows are computed instead of remembered."""
