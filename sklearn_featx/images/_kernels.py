"""The loops of Pillow's resize, which numba compiles for the vectors of the processor at hand.

Imported by `_resample` alone, and only where numba is installed.
"""

from typing import Any

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
def _transpose(rows: AnyArray, n_rows: int, columns: AnyArray) -> None:
    for x in range(rows.shape[1]):
        for y in range(n_rows):
            columns[x, y] = rows[y, x]


def _column_weigher(word: type[np.unsignedinteger], n_channels: int) -> Any:
    """Compile `weigh_columns` for pixels of one type, whose first bytes are channels."""
    n_bytes = np.dtype(word).itemsize
    most_rows = _COLUMN_BYTES // n_bytes

    @njit(nogil=True, cache=True)
    def weigh(words: AnyArray, starts: AnyArray, weights: AnyArray, result: Pixels) -> None:
        columns = np.empty((words.shape[1], most_rows), word)
        weighed = np.empty((len(starts), most_rows), word)
        lines, weighed_lines = columns.view(np.uint8), weighed.view(np.uint8)
        for first in range(0, len(words), most_rows):
            n_rows = min(most_rows, len(words) - first)
            # Of a loop whose length it knows the compiler makes moves of vectors.
            if n_rows == most_rows:
                _transpose(words[first:], most_rows, columns)
            else:
                _transpose(words[first:], n_rows, columns)
            weigh_lines(lines, starts, weights, weighed_lines)
            for x in range(len(starts)):
                for y in range(n_rows):
                    for channel in range(n_channels):
                        result[first + y, x, channel] = weighed_lines[x, y * n_bytes + channel]

    return weigh


_weigh_levels = _column_weigher(np.uint8, 1)
_weigh_pixels = _column_weigher(np.uint32, 3)


def weigh_columns(words: AnyArray, starts: AnyArray, weights: AnyArray, result: Pixels) -> None:
    """Set each pixel of each row of the result to a weighted sum of neighbouring pixels.

    Parameters
    ----------
    words : ndarray of shape (n_rows, n_columns), dtype uint8 or uint32
        Pixels of one channel, or of three and a byte that is left out.
    starts, weights
        As in `weigh_lines`.
    result : ndarray of shape (n_rows, n, 1 or 3), dtype uint8
        Where the sums go.
    """
    weigh = _weigh_levels if words.dtype == np.uint8 else _weigh_pixels
    weigh(words, starts, weights, result)
