"""Near copies: images that differ by compression, size, brightness or contrast alone.

Two images are near copies if their perceptual hashes, 16 x 16 gray pixels, correlate by at least
0.995. A copy of lower quality or size does; different digits on the same background, and an image
of which a twentieth at each edge is cut off, do not.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .._preprocess import Preprocess
from .._typing import AnyArray, FloatArray
from ..engines import count_threads
from ..images import ImageCollection, iterate_batches, prepare_geometry

LEAST_CORRELATION = 0.995
HASH_SIDE = 16

# Components of the hashes that candidates are searched in, and rows of one search.
_N_COMPONENTS, _ROWS_PER_SEARCH = 8, 1000
_ROWS_PER_BATCH = 64

Pairs = Iterator[tuple[int, int]]


def perceptual_hashes(images: ImageCollection, n_jobs: int | None = None) -> FloatArray:
    """Read images and reduce each to gray pixels of mean 0 and length 1.

    Parameters
    ----------
    images : ImageCollection
        Images of pixels.
    n_jobs : int, default=None
        Number of threads that read.

    Returns
    -------
    hashes : ndarray of shape (n_images, 256), float32
        0 for images of a single value and for those that cannot be read: they are like no other.
    """
    hashes = np.zeros((len(images), HASH_SIDE**2), np.float32)
    small = Preprocess(resize=(HASH_SIDE, HASH_SIDE), channels=1, fast=True)
    batches = iterate_batches(
        images,
        range(len(images)),
        prepare_geometry(small),
        batch_size=_ROWS_PER_BATCH,
        n_threads=count_threads(n_jobs),
        on_error="nan",
    )
    for batch in batches:
        if batch.rows:
            pixels = batch.data.reshape(len(batch.rows), -1).astype(np.float32)
            pixels -= pixels.mean(axis=1, keepdims=True)
            length = np.linalg.norm(pixels, axis=1, keepdims=True)
            hashes[batch.rows] = np.where(length > 1, pixels / np.maximum(length, 1), 0)
    return hashes


def near_copies(hashes: FloatArray) -> Pairs:
    """Give the pairs of rows that correlate by at least `LEAST_CORRELATION`.

    Parameters
    ----------
    hashes : ndarray of shape (n_images, n_pixels)
        From `perceptual_hashes`.

    Yields
    ------
    pair : (int, int)
        Positions, the smaller first.
    """
    # Here, since it takes a while to import.
    from sklearn.neighbors import KDTree

    rows = np.flatnonzero(hashes.any(axis=1))
    if len(rows) < 2:
        return
    known = hashes[rows]
    places = _projected(known)
    tree = KDTree(places)
    # A projection shortens distances: no pair is lost. 1e-3 is for rounding.
    radius = np.sqrt(2 * (1 - LEAST_CORRELATION)) + 1e-3
    for start in range(0, len(rows), _ROWS_PER_SEARCH):
        part = places[start : start + _ROWS_PER_SEARCH]
        for i, candidates in enumerate(tree.query_radius(part, radius), start):
            later = candidates[candidates > i]
            alike = later[known[later] @ known[i] >= LEAST_CORRELATION]
            yield from ((int(rows[i]), int(rows[j])) for j in alike)


def _projected(hashes: AnyArray) -> npt.NDArray[np.float64]:
    """Project on the directions of the largest variance."""
    wide = hashes.astype(np.float64)
    directions = np.linalg.eigh(np.cov(wide, rowvar=False))[1][:, -_N_COMPONENTS:]
    places: npt.NDArray[np.float64] = wide @ directions
    return places
