"""Pooling: conversion of feature maps and token grids to vectors.

========  =======================================================================================
avg       mean over positions; over the patch tokens if there are class tokens
max       maximum over the same positions
avgmax    mean of the two above
gem       generalized mean, ``mean(max(x, 1e-6) ** 3) ** (1/3)`` (Radenović et al. 2019)
grid2     means of the cells of a grid, 2 on each axis, in order (channels, rows, columns): they
          tell where a thing lies (Lazebnik et al. 2006, "Beyond bags of features")
grid3     the same with 3 cells on each axis
cls       the first token
flatten   every value, in order (channels, height, width)
========  =======================================================================================

Cells overlap by one position where an axis can't be divided, so that a mirrored image has mirrored
cells; an axis has no more cells than positions. A square number of patch tokens is a square map,
and any other number is a sequence with one axis.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .._digest import digest
from .._typing import FloatArray, Pooling
from ..exceptions import UnknownLayerError

_GEM_POWER = 3.0
_GEM_FLOOR = 1e-6
# Number of cells on each axis.
_GRIDS = {"grid2": 2, "grid3": 3}
# By the number of axes.
_ADAPTIVE_MEANS = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


class Pool(nn.Module):
    """Pool activations to one vector per row.

    Parameters
    ----------
    pooling : str or None
        One of the rules above. None returns the input.
    channels_last : bool, default=False
        Whether four-dimensional activations are (n, height, width, channels).
    tokens : bool, default=True
        Whether three-dimensional activations are (n, tokens, channels), not (n, channels, length).
    prefix_tokens : int, default=0
        Number of tokens before the patches.
    """

    def __init__(
        self,
        pooling: Pooling | None,
        *,
        channels_last: bool = False,
        tokens: bool = True,
        prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.channels_last = channels_last
        self.tokens = tokens
        self.prefix_tokens = prefix_tokens

    @property
    def digest(self) -> str:
        """Digest of the rule and of the layout of the activations."""
        layout = (self.channels_last, self.tokens, self.prefix_tokens)
        return digest(self.pooling, *layout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool a batch.

        Parameters
        ----------
        x : torch.Tensor of shape (n, ...)
            Activations.

        Returns
        -------
        pooled : torch.Tensor of shape (n, n_features)
            The vectors. Activations that are already vectors are not changed.
        """
        if x.ndim == 2 or self.pooling is None:
            return x
        if self.pooling == "cls":
            return self._class_token(x)
        maps = self._channels_first(x)
        if self.pooling == "flatten":
            return maps.flatten(1)
        if self.pooling in _GRIDS:
            places = self._places(x.shape[1:])
            if maps.shape[2:] != places:
                # Not otherwise: PyTorch gives one reshaped row strides that its pooling reads as
                # those of another memory format, twelve times slower.
                maps = maps.reshape(*maps.shape[:2], *places)
            return _cell_means(maps, _GRIDS[self.pooling])
        return _reduce(maps, self.pooling)

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a pooled row, from the shape of a row of activations."""
        if len(shape) <= 1 or self.pooling is None:
            return tuple(shape)
        if self.pooling == "cls":
            self._check_tokens(len(shape) + 1)
        if self.pooling == "flatten":
            return (math.prod(shape),)
        channels_at_end = self._channels_at_end(len(shape) + 1)
        n_channels = shape[-1] if channels_at_end else shape[0]
        if self.pooling in _GRIDS:
            n_channels *= math.prod(_cells(self._places(shape), _GRIDS[self.pooling]))
        return (n_channels,)

    def cell_weights(self, shape: Sequence[int]) -> FloatArray | None:
        """Return the weight of each position in each cell's mean, from the shape of a row.

        Parameters
        ----------
        shape : sequence of int
            Of activations that have positions.

        Returns
        -------
        weights : ndarray of shape (n_cells, n_positions) or None
            Positions in the order of the flattened map, without prefix tokens. None if the pooling
            has no grid.
        """
        if self.pooling not in _GRIDS:
            return None
        return _cell_weights(self._places(shape), _GRIDS[self.pooling])

    def _places(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Lengths of the axes of positions."""
        axes = shape[:-1] if self._channels_at_end(len(shape) + 1) else shape[1:]
        if len(shape) == 2 and self.tokens:
            n_patches = axes[0] - self.prefix_tokens
            side = math.isqrt(n_patches)
            return (side, side) if side * side == n_patches else (n_patches,)
        return tuple(axes)

    def _channels_at_end(self, ndim: int) -> bool:
        return (ndim == 3 and self.tokens) or (ndim == 4 and self.channels_last)

    def _class_token(self, x: torch.Tensor) -> torch.Tensor:
        self._check_tokens(x.ndim)
        return x[:, 0]

    def _check_tokens(self, ndim: int) -> None:
        if ndim != 3 or not self.tokens or self.prefix_tokens == 0:
            raise UnknownLayerError(
                "pooling='cls' needs activations with a class token, and these have none. "
                "Use pooling='avg', or a vision transformer with a class token."
            )

    def _channels_first(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 3 and self.tokens:
            keep_all = self.pooling == "flatten"
            return (x if keep_all else x[:, self.prefix_tokens :]).movedim(-1, 1)
        return x.movedim(-1, 1) if self._channels_at_end(x.ndim) else x


def _cells(places: Sequence[int], n_cells: int) -> tuple[int, ...]:
    return tuple(min(n_cells, length) for length in places)


def _cell_weights(places: Sequence[int], n_cells: int) -> FloatArray:
    weights: FloatArray = np.ones((1, 1))
    for length, cells in zip(places, _cells(places, n_cells), strict=True):
        axis = np.zeros((cells, length))
        for cell in range(cells):
            start, stop = cell * length // cells, -(-(cell + 1) * length // cells)
            axis[cell, start:stop] = 1 / (stop - start)
        weights = np.kron(weights, axis)
    return weights


def _cell_means(maps: torch.Tensor, n_cells: int) -> torch.Tensor:
    places = maps.shape[2:]
    if maps.device.type == "cpu" and len(places) in _ADAPTIVE_MEANS:
        pool: Any = _ADAPTIVE_MEANS[len(places)]
        means: torch.Tensor = pool(maps, _cells(places, n_cells))
        return means.flatten(1)
    # On other devices, PyTorch's operator has no deterministic gradient, or refuses some sizes.
    weights = torch.from_numpy(_cell_weights(places, n_cells)).to(maps.device, torch.float32)
    means = maps.flatten(2).to(torch.float32) @ weights.T
    return means.flatten(1).to(maps.dtype)


def _reduce(maps: torch.Tensor, pooling: str) -> torch.Tensor:
    flat = maps.flatten(2)
    if pooling == "avg":
        return flat.mean(2)
    if pooling == "max":
        return _maximum(maps)
    if pooling == "avgmax":
        return (flat.mean(2) + _maximum(maps)) / 2
    return flat.clamp(min=_GEM_FLOOR).pow(_GEM_POWER).mean(2).pow(1 / _GEM_POWER)


def _maximum(maps: torch.Tensor) -> torch.Tensor:
    # For maps with channels last on a CPU, PyTorch's `amax` is several times slower.
    if maps.ndim == 4 and maps.device.type == "cpu" and not maps.requires_grad:
        return functional.max_pool2d(maps, maps.shape[2:]).flatten(1)
    return maps.flatten(2).amax(2)
