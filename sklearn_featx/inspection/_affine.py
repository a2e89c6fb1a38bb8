"""The affine map that fitted steps compute, found from their outputs, whatever their classes.

A function that maps midpoints to midpoints, on random rows of several scales, is affine. Its
weights are the differences that single columns make. The map is verified on rows of the images.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from .._typing import AnyArray, FloatArray

# From rows (n, n_features) to scores (n, n_outputs).
ScoreFunction: TypeAlias = Callable[[FloatArray], FloatArray]

_SEED = 0
_SCALES = (0.1, 1.0, 10.0)
_ROWS_PER_SCALE = 12
_TOLERANCE = 1e-6
# Values of the rows of a call, which stay in a cache.
_VALUES_PER_CALL = 2**19


class Affine(NamedTuple):
    """Scores as an affine map of rows.

    Parameters
    ----------
    weights : ndarray of shape (n_features, n_outputs)
        The linear part.
    intercept : ndarray of shape (n_outputs,)
        Scores of a row of zeros.
    """

    weights: FloatArray
    intercept: FloatArray


def affine_map(scores: ScoreFunction, rows: FloatArray, limit: float = np.inf) -> Affine | None:
    """Find the affine map that a function of rows is.

    Parameters
    ----------
    scores : callable
        From rows to scores.
    rows : ndarray of shape (n, n_features)
        Finite rows such as it takes.
    limit : float, default=inf
        Scores beyond it are not precise, and no evidence.

    Returns
    -------
    affine : Affine or None
        None if it is not affine.
    """
    base = rows.mean(0)
    spread = rows.std(0)
    # Of one image, or a column that is constant: as far as the column is from zero.
    spread = np.where(spread > 0, spread, np.maximum(np.abs(base), np.abs(base).mean() or 1.0))
    trials = _trials(base, spread, rows)
    if not _keeps_midpoints(scores, trials, limit):
        return None
    at_base = scores(base[np.newaxis])[0]
    weights = np.empty((len(base), len(at_base)))
    step = max(1, _VALUES_PER_CALL // len(base))
    for start in range(0, len(base), step):
        columns = np.arange(start, min(start + step, len(base)))
        moved = np.repeat(base[np.newaxis], len(columns), axis=0)
        moved[np.arange(len(columns)), columns] += spread[columns]
        weights[columns] = (scores(moved) - at_base) / spread[columns, np.newaxis]
    found = Affine(weights, at_base - base @ weights)
    expected = scores(trials)
    predicted = trials @ weights + found.intercept
    return found if _agree(predicted, expected, limit) else None


def _trials(base: FloatArray, spread: FloatArray, rows: FloatArray) -> FloatArray:
    """Random rows around the base, and some of the user's, in pairs."""
    draw = np.random.default_rng(_SEED).normal
    near = [base + scale * spread * draw(size=(_ROWS_PER_SCALE, len(base))) for scale in _SCALES]
    pairs: FloatArray = np.concatenate([*near, rows[: _ROWS_PER_SCALE // 2 * 2]])
    return pairs[: len(pairs) // 2 * 2]


def _keeps_midpoints(scores: ScoreFunction, trials: FloatArray, limit: float) -> bool:
    found = scores(trials)
    middle = scores((trials[::2] + trials[1::2]) / 2)
    ends = np.maximum(np.abs(found[::2]), np.abs(found[1::2]))
    expected = np.where(ends < limit, (found[::2] + found[1::2]) / 2, np.inf)
    return _agree(middle, expected, limit)


def _agree(predicted: FloatArray, expected: FloatArray, limit: float) -> bool:
    known: AnyArray = np.abs(expected) < limit
    if np.isnan(expected).any() or not known.any():
        return False
    scale = np.abs(expected[known]).max()
    return bool(np.abs(predicted - expected)[known].max() <= _TOLERANCE * max(scale, 1e-12))
