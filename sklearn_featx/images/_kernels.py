"""The loops of Pillow's resize, which numba compiles for the vectors of the processor at hand.

Imported by `_resample` alone, and only where numba is installed.
"""

import numpy as np
from numba import config, int32, njit

from .._typing import AnyArray, Pixels
from ._resample import WEIGHT_BITS

# NUMBA_DISABLE_JIT leaves loops to Python, where one image takes seconds.
IS_COMPILED = not config.DISABLE_JIT
# What of a column is weighed at a time: some vectors, few enough for a cache of the first level.
_COLUMN_BYTES = 128


@njit(nogil=True, cache=True)
def weigh_lines(lines: Pixels, starts: AnyArray, weights: AnyArray, result: Pixels) -> None:
    """Set each line of the result to a weighted sum of neighbouring lines.

    Parameters
    ----------
    lines : ndarray of shape (n_lines, n_bytes), dtype uint8
        What is weighed.
    starts : ndarray of shape (n,), dtype int64
        The first line of each sum.
    weights : ndarray of shape (n, n_taps), dtype int32
        Weights, on a scale of ``2**WEIGHT_BITS``.
    result : ndarray of shape (n, n_bytes), dtype uint8
        Where the sums go, rounded and clipped.
    """
    sums = np.empty(lines.shape[1], np.int32)
    for i in range(len(starts)):
        sums[:] = 1 << (WEIGHT_BITS - 1)
        for tap in range(weights.shape[1]):
            weight = weights[i, tap]
            line = lines[starts[i] + tap]
            for j in range(len(line)):
                sums[j] += int32(line[j]) * weight
        for j in range(len(sums)):
            result[i, j] = min(max(sums[j] >> WEIGHT_BITS, 0), 255)


@njit(nogil=True, cache=True)
def weigh_columns(words: AnyArray, starts: AnyArray, weights: AnyArray, result: Pixels) -> None:
    """Set each pixel of each row of the result to a weighted sum of neighbouring pixels.

    Parameters
    ----------
    words : ndarray of shape (n_rows, n_columns)
        Pixels, each a number of 1 or 4 bytes.
    starts, weights
        As in `weigh_lines`.
    result : ndarray of shape (n_rows, n, n_channels), dtype uint8
        Where the sums go; of the bytes of a pixel those that are channels.
    """
    left = starts[0]
    n_columns = starts[-1] + weights.shape[1] - left
    most_rows = _COLUMN_BYTES // words.itemsize
    columns = np.empty((n_columns, most_rows), words.dtype)
    weighed = np.empty((len(starts), most_rows), words.dtype)
    lines, weighed_lines = columns.view(np.uint8), weighed.view(np.uint8)
    for first in range(0, len(words), most_rows):
        n_rows = min(most_rows, len(words) - first)
        for y in range(n_rows):
            for x in range(n_columns):
                columns[x, y] = words[first + y, left + x]
        weigh_lines(lines, starts - left, weights, weighed_lines)
        for y in range(n_rows):
            for x in range(len(starts)):
                for channel in range(result.shape[2]):
                    result[first + y, x, channel] = weighed_lines[x, y * words.itemsize + channel]
