"""The progress bar: shown on standard error if `verbose` is positive."""

import sys
from types import TracebackType
from typing import Self

from tqdm.auto import tqdm


class _Bar(tqdm):
    # tqdm would otherwise start a monitor thread that never ends.
    monitor_interval = 0


def note(text: str) -> None:
    """Write a line to standard error, before a bar is drawn."""
    sys.stderr.write(f"{text}\n")


class Progress:
    """A progress bar that counts images.

    Parameters
    ----------
    total : int
        Number of images.
    verbose : int
        The bar is shown if this is positive.
    description : str
        Label in front of the bar.
    """

    def __init__(self, total: int, *, verbose: int, description: str) -> None:
        self._bar = _Bar(
            total=total,
            desc=description,
            unit=" images",
            disable=verbose <= 0,
            # Average over the whole run: the first batches are prefetched, which would distort a
            # moving average.
            smoothing=0.0,
        )

    def update(self, n_images: int) -> None:
        """Count `n_images` more as finished."""
        self._bar.update(n_images)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
