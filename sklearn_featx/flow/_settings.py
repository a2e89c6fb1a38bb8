"""Settings of a computation: none of them changes a row."""

from typing import NamedTuple

from .._typing import OnError
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
    on_error : {"raise", "nan"}, default="raise"
        Whether the first image that cannot be read is an error, or is left out and returned as a
        failure beside the rows.
    """

    batch_size: int | None = None
    n_jobs: int | None = None
    cache: Cache = False
    verbose: int = 0
    on_error: OnError = "raise"

    @property
    def skip_unreadable(self) -> bool:
        """Whether images that cannot be read are left out."""
        return self.on_error == "nan"
