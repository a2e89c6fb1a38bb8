"""Settings of a computation: none of them changes a row."""

from typing import NamedTuple, Self

from ..exceptions import ImageError
from ._cache import Cache


class Settings(NamedTuple):
    """How rows are computed; none of it changes them.

    Parameters
    ----------
    batch_size : int, default=None
        Rows in one pass through the network; None leaves it to the engine.
    n_jobs : int, default=None
        Number of threads that read, prepare and compute; None: as many as PyTorch would use.
    cache : bool, path or FeatureStore, default=False
        Where rows are remembered.
    verbose : int, default=0
        1 shows a progress bar.
    failures : list of ImageError, default=None
        A list of the call's own, which gets an error for each image that cannot be read; its rows
        are left out. None: the first such image is an error.
    """

    batch_size: int | None = None
    n_jobs: int | None = None
    cache: Cache = False
    verbose: int = 0
    failures: list[ImageError] | None = None

    @property
    def skip_unreadable(self) -> bool:
        """Whether images that cannot be read are left out."""
        return self.failures is not None

    def for_another_call(self) -> Self:
        """Return the same with an empty list of failures, where there is one."""
        return self._replace(failures=[]) if self.skip_unreadable else self
