"""An estimate of time, from a sample of images of each size.

A few huge files may take most of the time. Images are sorted by the number of pixels in their file
headers, and each stratum, in which sizes differ by a factor of at most two, is timed separately.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..flow import activations
from ._ledger import Load

# The maximum numbers of images and of pixels that are timed in a stratum.
_MOST_TIMED = 8
_MOST_PIXELS = 64_000_000


def minutes(loads: Sequence[Load]) -> float:
    """Estimate the time of passes.

    Parameters
    ----------
    loads : sequence of Load
        The passes.
    """
    return sum(_seconds(load) for load in loads if load.counts.any()) / 60


def _seconds(load: Load) -> float:
    positions = np.flatnonzero(load.counts)
    sizes = np.array([load.job.images.n_pixels(i) or 0 for i in positions.tolist()])
    total, warm = 0.0, False
    for stratum in strata(sizes):
        sample = _sample(stratum, sizes)
        chosen = positions[sample]
        if not warm:
            # The first pass builds the engine, and does not count.
            _timed(load, chosen[:1])
            warm = True
        counts = load.counts[positions[stratum]]
        total += _timed(load, chosen) / len(chosen) * int(counts.sum())
    return total


def strata(sizes: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.intp]]:
    """Yield positions of images in groups whose sizes differ by at most a factor of two.

    Parameters
    ----------
    sizes : ndarray of shape (n_images,), int
        Number of pixels of each image.

    Yields
    ------
    stratum : ndarray of int
        Positions of images, smallest first.
    """
    order = np.argsort(sizes, kind="stable")
    start = 0
    while start < len(order):
        stop = int(np.searchsorted(sizes[order], 2 * sizes[order[start]], side="right"))
        yield order[start:stop]
        start = stop


def _sample(stratum: npt.NDArray[np.intp], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Choose images of a stratum with evenly spaced sizes and a limited number of pixels."""
    n_timed = min(len(stratum), _MOST_TIMED)
    largest = int(sizes[stratum[-1]])
    if largest:
        n_timed = min(n_timed, max(1, _MOST_PIXELS // largest))
    # The middle of each of `n_timed` equal parts.
    places = (np.arange(n_timed) + 0.5) * len(stratum) / n_timed
    return stratum[places.astype(np.intp)]


def _timed(load: Load, positions: npt.NDArray[np.intp]) -> float:
    settings = load.job.settings._replace(cache=False)
    start = time.perf_counter()
    activations(load.job.images.take(positions), load.recipe, settings)
    return time.perf_counter() - start
