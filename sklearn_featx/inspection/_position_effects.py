"""Effects of positions on any score: occlusion and Shapley values, without a pass of the backbone.

A coalition is a set of kept positions. The other positions get the activations of the baseline, the
row is pooled again, and the model scores it. Shapley values are estimated as in KernelSHAP [1]_:

1. The single effect of a cell is the mean of what it adds to nothing and to all others.
2. Coalitions are drawn with their complements. Ridge regression of the residuals of the single
   effects corrects them. Few coalitions correct little; many give the Shapley values.

An additive game, such as an affine score of means, has no residuals: the values are exact.

.. [1] S. M. Lundberg, S.-I. Lee, "A unified approach to interpreting model predictions",
   NeurIPS 2017.
"""

import functools
from collections.abc import Callable

import numpy as np

from .._typing import AnyArray, FloatArray
from ._layer_maps import LayerMaps

# Positions to a side: finer maps are cut into so many cells.
_FINEST_SIDE = 14
# Penalty of the correction for each cell. Steps of a forest are noise to a few hundred coalitions.
_RIDGE_PER_CELL = 0.5
_SEED = 0


def _cell_grid(layers: list[LayerMaps]) -> tuple[int, int]:
    """Return the grid that all layers' positions are occluded by: the coarsest, at most 14 x 14."""
    grids = [layer.grid for layer in layers if layer.found is not None]
    height, width = (min(min(sides), _FINEST_SIDE) for sides in zip(*grids, strict=True))
    return height, width


def shapley_values(
    layers: list[LayerMaps],
    i: int,
    score: Callable[[FloatArray], FloatArray],
    n_samples: int,
) -> FloatArray:
    """Shapley value of each cell for one image; their sum is what all positions do together.

    Parameters
    ----------
    layers : list of LayerMaps
        Activations.
    i : int
        The image.
    score : callable
        From rows to scores (n,).
    n_samples : int
        Number of coalitions; two for each cell at least.

    Returns
    -------
    values : ndarray of shape (height, width)
        Of the cells of `_cell_grid`.
    """
    grid = _cell_grid(layers)
    n_cells = grid[0] * grid[1]
    kept, solve = _design(n_cells, n_samples)
    ends = np.array([np.zeros(n_cells, bool), np.ones(n_cells, bool)])
    alone = np.eye(n_cells, dtype=bool)
    wanted = np.concatenate([ends, alone, ~alone, kept])
    # Few cells have few coalitions: of four, 16, of which 1024 are drawn.
    different, place = np.unique(wanted, axis=0, return_inverse=True)
    games = score(_rows(layers, i, different, grid))[place.ravel()]
    nothing, whole = games[:2]
    added, removed, others = np.split(games[2:], [n_cells, 2 * n_cells])
    single = (added - nothing + whole - removed) / 2
    single += (whole - nothing - single.sum()) / n_cells
    values: FloatArray = single + solve @ (others - nothing - kept @ single)
    return values.reshape(grid)


def occlusion_effects(
    layers: list[LayerMaps],
    i: int,
    score: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """Return what the score of one image loses with each cell; as `shapley_values`."""
    grid = _cell_grid(layers)
    n_cells = grid[0] * grid[1]
    kept = np.concatenate([np.ones((1, n_cells), bool), ~np.eye(n_cells, dtype=bool)])
    found = score(_rows(layers, i, kept, grid))
    effects: FloatArray = (found[0] - found[1:]).reshape(grid)
    return effects


def _rows(layers: list[LayerMaps], i: int, kept: AnyArray, grid: tuple[int, int]) -> FloatArray:
    parts = [layer.rows_without(i, kept, _cells(layer.grid, grid)) for layer in layers]
    return np.concatenate(parts, axis=1)


def _cells(grid: tuple[int, int], coarse: tuple[int, int]) -> AnyArray:
    """Cell of each position."""
    down, across = (np.arange(n) * m // n for n, m in zip(grid, coarse, strict=True))
    cells: AnyArray = (down[:, np.newaxis] * coarse[1] + across).ravel()
    return cells


@functools.lru_cache(maxsize=8)
def _design(n_cells: int, n_samples: int) -> tuple[AnyArray, FloatArray]:
    """Coalitions, and the matrix from their residuals to corrections with sum 0."""
    n_pairs = (max(0, n_samples - 2 * n_cells) + 1) // 2
    if n_cells == 1 or not n_pairs:
        return np.zeros((0, n_cells), bool), np.zeros((n_cells, 0))
    rng = np.random.default_rng(_SEED)
    sizes = np.arange(1, n_cells)
    frequencies = 1 / (sizes * (n_cells - sizes))
    drawn = rng.choice(sizes, n_pairs, p=frequencies / frequencies.sum())
    ranks = rng.random((n_pairs, n_cells)).argsort(1).argsort(1)
    half = ranks < drawn[:, np.newaxis]
    kept = np.concatenate([half, ~half])
    # The common part of all cells is known: the single effects sum to the whole.
    design = kept - kept.mean(1, keepdims=True)
    ridge = _RIDGE_PER_CELL * n_cells * np.eye(n_cells)
    return kept, np.linalg.solve(design.T @ design + ridge, design.T)
