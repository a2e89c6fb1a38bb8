"""The progress bar of long work: shown when `verbose` asks for it, on standard error."""

import sys
from types import TracebackType
from typing import Self

from tqdm.auto import tqdm


class _Bar(tqdm):
    # Without the thread that tqdm otherwise starts, and leaves, to watch over its bars.
    monitor_interval = 0


class Progress:
    """A progress bar that counts images.

    Parameters
    ----------
    total : int
        Number of images of the whole job.
    verbose : int
        The bar is shown when this is positive.
    description : str
        Label in front of the bar.
    """

    def __init__(self, total: int, *, verbose: int, description: str) -> None:
        self._bar = _Bar(
            total=total,
            desc=description,
            unit=" images",
            disable=verbose <= 0,
            # The rate over the whole run: a prefetched start would mislead a moving average.
            smoothing=0.0,
        )

    def update(self, n_images: int) -> None:
        """Count `n_images` more as done."""
        self._bar.update(n_images)

    def note(self, text: str) -> None:
        """Say something beside the bar."""
        self._bar.write(text, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
