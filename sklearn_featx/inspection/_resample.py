"""Maps on finer grids, without a change of their sums."""

import functools
from collections.abc import Callable

import numpy as np

from .._typing import FloatArray


def spread_out(maps: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Spread each value evenly over the part of a finer grid that its position covers.

    Parameters
    ----------
    maps : ndarray of shape (n, h, w)
        The maps.
    size : (int, int)
        (height, width) of the finer grid.

    Returns
    -------
    finer : ndarray of shape (n, height, width)
        With the sums of the maps.
    """
    return _resampled(maps, size, _overlaps)


def interpolated(maps: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Interpolate by cubic B-splines, for the eye; each value keeps its sum.

    Linear interpolation has its maxima at the centers of positions; here an object that lies in
    several of them has its maximum between their centers.

    Parameters
    ----------
    maps : ndarray of shape (n, h, w)
        The maps.
    size : (int, int)
        (height, width) of the finer grid.

    Returns
    -------
    finer : ndarray of shape (n, height, width)
        With the sums of the maps.
    """
    return _resampled(maps, size, _splines)


def for_the_eye(maps: FloatArray, size: tuple[int, int], *, exact: bool) -> FloatArray:
    """Interpolate maps; those that are not exact are smoothed before.

    Neighbors see nearly the same part of the image. Which of them a score that is not affine
    credits is a matter of chance.

    Parameters
    ----------
    maps : ndarray of shape (n, h, w)
        The maps.
    size : (int, int)
        (height, width) of the finer grid.
    exact : bool
        Whether they are exact.

    Returns
    -------
    finer : ndarray of shape (n, height, width)
        With the sums of the maps.
    """
    return interpolated(maps if exact else smoothed(maps), size)


def smoothed(maps: FloatArray) -> FloatArray:
    """Average each position with its neighbors, with weights 1, 2, 1 on each axis.

    The edges continue beyond themselves, so that each value keeps its sum.

    Parameters
    ----------
    maps : ndarray of shape (n, h, w)
        The maps.

    Returns
    -------
    smooth : ndarray of shape (n, h, w)
        With the sums of the maps.
    """
    padded = np.pad(maps, [(0, 0), (1, 1), (1, 1)], mode="edge")
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    smooth: FloatArray = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    return smooth


def _resampled(
    maps: FloatArray, size: tuple[int, int], weights: Callable[[int, int], FloatArray]
) -> FloatArray:
    if maps.shape[1:] == tuple(size):
        return maps
    down, across = (weights(*sides) for sides in zip(maps.shape[1:], size, strict=True))
    finer: FloatArray = down @ maps @ across.T
    return finer


@functools.lru_cache(maxsize=64)
def _overlaps(n: int, wanted: int) -> FloatArray:
    """Share of each of `n` cells that lies in each of the wanted cells, (wanted, n)."""
    edges, new = np.arange(n + 1) / n, np.arange(wanted + 1) / wanted
    starts = np.maximum(new[:-1, np.newaxis], edges[:-1])
    stops = np.minimum(new[1:, np.newaxis], edges[1:])
    shares: FloatArray = (stops - starts).clip(0) * n
    return shares


@functools.lru_cache(maxsize=64)
def _splines(n: int, wanted: int) -> FloatArray:
    """Weights of cubic B-splines, (wanted, n), each column with the sum 1."""
    if wanted <= n:
        return _overlaps(n, wanted)
    places = (np.arange(wanted) + 0.5) / wanted * n - 0.5
    far = np.abs(places[:, np.newaxis] - np.arange(-1, n + 1))
    near = 2 / 3 - far**2 + far**3 / 2
    weights: FloatArray = np.where(far < 1, near, (2 - far).clip(0) ** 3 / 6)
    # Values at the edges continue beyond them.
    weights[:, 1] += weights[:, 0]
    weights[:, -2] += weights[:, -1]
    inner: FloatArray = weights[:, 1:-1] / weights[:, 1:-1].sum(0)
    return inner
