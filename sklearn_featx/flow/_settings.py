"""Settings of a computation: none of them changes a row."""

from typing import NamedTuple

from .._typing import OnError
from ._cache import Cache


class Settings(NamedTuple):
    """Settings of a computation, which do not change its rows.

    Parameters
    ----------
    batch_size : int, default=None
        Number of rows in one pass; None: chosen by the engine.
    n_jobs : int, default=None
        Number of threads that read, prepare and compute; None: as many as PyTorch uses.
    cache : bool, path or FeatureStore, default=False
        Where rows are cached.
    verbose : int, default=0
        1 shows a progress bar.
    on_error : {"raise", "nan"}, default="raise"
        Whether the first unreadable image raises an error, or unreadable images are left out and
        returned as failures together with the rows.
    reports : bool, default=True
        Whether the decision to cache rows is reported.
    """

    batch_size: int | None = None
    n_jobs: int | None = None
    cache: Cache = False
    verbose: int = 0
    on_error: OnError = "raise"
    reports: bool = True

    @property
    def skip_unreadable(self) -> bool:
        """Whether unreadable images are left out."""
        return self.on_error == "nan"
