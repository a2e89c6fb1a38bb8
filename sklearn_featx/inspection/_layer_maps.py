"""The activations of one layer at the positions of its feature map, and the rows pooled from them.

A row is a sum over positions, exactly. The mean takes an equal part of each position, the maximum
all from the position where it is reached. The generalized mean is homogeneous: by Euler's theorem
it is the sum of activation times derivative. Shares are relative to a baseline, the activations of
an occluded position: 0, or those of a mean image.
"""

import math
from typing import NamedTuple

import numpy as np

from .._typing import AnyArray, FloatArray
from ..backbones import FeatureMap

_GEM_POWER, _GEM_FLOOR = 3.0, 1e-6
# Values of activations that the network continues from in one pass.
_VALUES_PER_PASS = 2**23
_ZERO = np.zeros(1)


class LayerMaps(NamedTuple):
    """Activations of one layer for some images.

    Parameters
    ----------
    found : FeatureMap or None
        How rows come from them; None where the layer has no positions.
    raw : ndarray of shape (n, ...)
        Activations as the layer has them; rows where it has no positions.
    grid : (int, int)
        Height and width of the map; (1, 1) without positions.
    base : ndarray of shape (channels,), (channels, cells) or (channels, positions), default=0
        Activations of the baseline; with cells or positions where these have columns of their own.
    """

    found: FeatureMap | None
    raw: AnyArray
    grid: tuple[int, int] = (1, 1)
    base: FloatArray = _ZERO

    @property
    def is_sum(self) -> bool:
        """Whether rows are sums over positions."""
        return self.found is None or self.found.rule != "network"

    @property
    def n_features(self) -> int:
        """Number of columns of the layer's rows."""
        if self.found is None:
            return int(self.raw.shape[1])
        if self.found.rule == "network":
            return int(self._whole_row(0).shape[1])
        if self.found.rule == "flatten":
            return int(self.raw[0].size)
        n_cells = 1 if self.found.cells is None else len(self.found.cells)
        return int(self.raw.shape[-1 if self.found.channels_last else 1]) * n_cells

    def rows(self) -> FloatArray:
        """Rows of all images, float64."""
        if self.found is None:
            return self.raw.astype(np.float64)
        if self.found.rule == "avg":
            means: FloatArray = self._positions().mean(2, dtype=np.float64)
            return means
        if self.found.cells is not None:
            cells: FloatArray = self._positions() @ self.found.cells.T
            return cells.reshape(len(cells), -1)
        return np.concatenate([self._whole_row(i) for i in range(len(self.raw))])

    def shares(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Split the weighted sum of each image's row among positions.

        Parameters
        ----------
        weights : ndarray of shape (n, n_features)
            Weight of each column of each row.

        Returns
        -------
        share : ndarray of shape (n, height, width)
            Share of each position.
        rest : ndarray of shape (n,)
            Share of the values without a position.
        """
        if self.found is None:
            rest = (self.raw.astype(np.float64) * weights).sum(1)
            return np.zeros((len(rest), *self.grid)), rest
        rule = self.found.rule
        if rule == "flatten":
            return self._flattened_shares(weights)
        values = self._positions()
        n_positions = values.shape[2]
        if self.found.cells is not None:
            return self._shares_of_cells(weights, values, self.found.cells)
        base = np.broadcast_to(self.base, values.shape[1])
        at_base = weights @ base
        share = np.zeros((len(values), n_positions))
        if rule in ("avg", "avgmax"):
            # Without a copy of the activations in float64.
            sums = np.einsum("nc,ncp->np", weights, values)
            share += (sums - at_base[:, np.newaxis]) / n_positions
        if rule in ("max", "avgmax"):
            at = values.argmax(2)
            tops = np.take_along_axis(values, at[..., np.newaxis], 2)[..., 0] - base
            np.add.at(share, (np.arange(len(at))[:, np.newaxis], at), weights * tops)
        if rule == "avgmax":
            share /= 2
        if rule == "gem":
            cubes = values.astype(np.float64).clip(_GEM_FLOOR) ** _GEM_POWER
            sums = cubes.sum(2)
            above = (sums / n_positions) ** (1 / _GEM_POWER) - base
            share += np.einsum("nc,ncp->np", weights * above / sums, cubes)
        return share.reshape(-1, *self.grid), at_base

    def _shares_of_cells(
        self, weights: FloatArray, values: AnyArray, cells: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        by_cell = weights.reshape(*values.shape[:2], -1)
        at_base = (by_cell * np.broadcast_to(self.base, by_cell.shape[1:])).sum(1)
        # In the type of the activations: of another one, they would be copied.
        sums = by_cell.swapaxes(1, 2).astype(values.dtype) @ values
        share = np.einsum("nkp,kp->np", sums, cells) - at_base @ cells
        return share.reshape(-1, *self.grid), at_base.sum(1)

    def _flattened_shares(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        all_values = self._channels_first().astype(np.float64)
        x, prefix = self._without_tokens(all_values)
        w, prefix_weights = self._without_tokens(weights.reshape(all_values.shape))
        base = np.broadcast_to(self.base.reshape(len(self.base), -1), x.shape[1:])
        share = (w * (x - base)).sum(1)
        rest = (w * base).sum((1, 2)) + (prefix_weights * prefix).sum((1, 2))
        return share.reshape(-1, *self.grid), rest

    def _channels_first(self) -> AnyArray:
        """Activations (n, channels, tokens and positions)."""
        assert self.found is not None
        x = np.moveaxis(self.raw, -1, 1) if self.found.channels_last else self.raw
        flat: AnyArray = x.reshape(*x.shape[:2], -1)
        return flat

    def _positions(self) -> AnyArray:
        """Activations (n, channels, positions), without tokens before them."""
        return self._without_tokens(self._channels_first())[0]

    def _without_tokens(self, x: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Split the last axis into positions and the tokens before them."""
        assert self.found is not None
        return x[..., self.found.n_prefix :], x[..., : self.found.n_prefix]

    def with_baseline(self, row: FloatArray) -> "LayerMaps":
        """Take the baseline whose pooled row is given.

        Parameters
        ----------
        row : ndarray of shape (n_features,)
            As of a map with the same activations at all positions.

        Returns
        -------
        layer : LayerMaps
            The same activations with that baseline.
        """
        if self.found is None or self.found.rule == "network":
            return self
        if self.found.rule == "flatten":
            base, _ = self._without_tokens(row.reshape(self._channels_first().shape[1], -1))
            return self._replace(base=base)
        if self.found.cells is not None:
            row = row.reshape(-1, len(self.found.cells))
        return self._replace(base=row)

    def mean_activations(self) -> FloatArray:
        """Mean over images and positions, (channels,)."""
        mean: FloatArray = self._positions().mean((0, 2), dtype=np.float64)
        return mean

    def rows_without(self, i: int, kept: AnyArray, cells: AnyArray) -> FloatArray:
        """Rows of one image when cells of its positions are occluded.

        Parameters
        ----------
        i : int
            The image.
        kept : ndarray of bool, shape (n_rows, n_cells)
            Cells that are not occluded.
        cells : ndarray of int, shape (n_positions,)
            Cell of each position.

        Returns
        -------
        rows : ndarray of shape (n_rows, n_features), float64
            Pooled again.
        """
        if self.found is None:
            fixed: FloatArray = self.raw[i : i + 1].astype(np.float64)
            return np.repeat(fixed, len(kept), axis=0)
        rule = self.found.rule
        if rule in ("network", "flatten"):
            return self._recomputed(i, kept[:, cells])
        values, share = self._positions()[i].astype(np.float64), kept.astype(np.float64)
        if self.found.cells is not None:
            at_base = np.broadcast_to(self.base, (len(values), len(self.found.cells)))
            parts = (values[:, np.newaxis] - at_base[..., np.newaxis]) * self.found.cells
            above = _sums(parts.reshape(-1, values.shape[1]), cells, kept.shape[1])
            of_cells: FloatArray = at_base.ravel() + share @ above
            return of_cells
        base = np.broadcast_to(self.base, len(values))
        if rule == "max":
            return _maxima(values, kept, cells, base)
        if rule == "gem":
            cubes = values.clip(_GEM_FLOOR) ** _GEM_POWER
            gone = (1 - share) @ np.bincount(cells, minlength=kept.shape[1])
            sums = share @ _sums(cubes, cells, kept.shape[1])
            sums += gone[:, np.newaxis] * base.clip(_GEM_FLOOR) ** _GEM_POWER
            means: FloatArray = (sums / values.shape[1]) ** (1 / _GEM_POWER)
            return means
        above = _sums(values - base[:, np.newaxis], cells, kept.shape[1])
        means = base + share @ above / values.shape[1]
        if rule == "avgmax":
            means = (means + _maxima(values, kept, cells, base)) / 2
        return means

    def _whole_row(self, i: int) -> FloatArray:
        cells = np.zeros(math.prod(self.grid), int)
        return self.rows_without(i, np.ones((1, 1), bool), cells)

    def _recomputed(self, i: int, kept: AnyArray) -> FloatArray:
        """Rows of one image whose positions (n_rows, n_positions) are kept or occluded."""
        found, x = self.found, self.raw[i]
        assert found is not None
        base = self._raw_base(x)
        step = max(1, _VALUES_PER_PASS // x.size)
        parts = []
        for start in range(0, len(kept), step):
            some = kept[start : start + step]
            if found.n_prefix:
                some = np.pad(some, [(0, 0), (found.n_prefix, 0)], constant_values=True)
            places = x.shape[:-1] if found.channels_last else x.shape[1:]
            mask = np.expand_dims(some.reshape(-1, *places), -1 if found.channels_last else 1)
            batch = np.where(mask, x, base)
            if found.row is not None:
                parts.append(found.row(batch.astype(np.float32)))
            else:
                batch = np.moveaxis(batch, -1, 1) if found.channels_last else batch
                parts.append(batch.reshape(len(batch), -1))
        rows: FloatArray = np.concatenate(parts).astype(np.float64)
        return rows

    def _raw_base(self, x: AnyArray) -> FloatArray:
        """Baseline in the shape of one image's activations."""
        assert self.found is not None
        last, n_prefix = self.found.channels_last, self.found.n_prefix
        if self.base.ndim == 1:
            return self.base if last else self.base.reshape(-1, *[1] * (x.ndim - 1))
        base = np.pad(self.base, [(0, 0), (n_prefix, 0)])
        places = x.shape[:-1] if last else x.shape[1:]
        shaped = base.reshape(len(base), *places)
        return np.moveaxis(shaped, 0, -1) if last else shaped


def _sums(values: FloatArray, cells: AnyArray, n_cells: int) -> FloatArray:
    """Sum of the positions of each cell, (n_cells, channels)."""
    sums = np.zeros((n_cells, len(values)))
    np.add.at(sums, cells, values.T)
    return sums


def _maxima(values: FloatArray, kept: AnyArray, cells: AnyArray, base: FloatArray) -> FloatArray:
    """Maximum over the kept positions, and the baseline where any is occluded."""
    tops = np.full((kept.shape[1], len(values)), -np.inf)
    np.maximum.at(tops, cells, values.T)
    found = np.full((len(kept), len(values)), -np.inf)
    found[~kept.all(1)] = base
    for cell, top in enumerate(tops):
        rows = kept[:, cell]
        found[rows] = np.maximum(found[rows], top)
    return found
