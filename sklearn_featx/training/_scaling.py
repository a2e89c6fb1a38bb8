"""Scaling of embeddings by the mean and spread of their columns."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np

from .._typing import AnyArray

# Number of values that are converted to float64 together: 128 MB.
_VALUES_AT_ONCE = 2**24


class Scaling(NamedTuple):
    """Mean and spread of embeddings; scaled embeddings have a mean variance of 1.

    Embeddings of one layer have one spread for all columns, so that nearly constant columns are not
    amplified.

    With several layers, the variance of each column is shrunk half way to the mean of its layer.
    Scaled layers have the same total variance: with one spread for all, that with the largest
    numbers would dominate.

    Parameters
    ----------
    mean : ndarray of shape (n_features,)
        Mean of each column.
    spread : ndarray of shape (n_features,)
        Divisor of each column.
    """

    mean: AnyArray
    spread: AnyArray

    @classmethod
    def of(
        cls, embeddings: AnyArray, weights: AnyArray | None, widths: Sequence[int] | None = None
    ) -> Self:
        """Compute the scaling of training embeddings.

        Parameters
        ----------
        embeddings : ndarray of shape (n_rows, n_features)
            The training rows.
        weights : ndarray of shape (n_rows,) or None
            Their weights.
        widths : sequence of int, default=None
            Number of columns of each layer. None: a single layer.
        """
        mean, variances = np.empty((2, embeddings.shape[1]))
        for columns in column_slices(embeddings):
            some = embeddings[:, columns].astype(np.float64)
            mean[columns] = np.average(some, axis=0, weights=weights)
            some -= mean[columns]
            variances[columns] = np.average(np.square(some, out=some), axis=0, weights=weights)
        # The mean of equal numbers is rounded: what is left of them is not their variance.
        rounding = len(embeddings) * np.finfo(np.float64).eps * np.abs(mean)
        variances[variances <= np.square(rounding)] = 0.0
        if widths is None or len(widths) < 2:
            spread = np.full(len(mean), np.sqrt(variances.mean()))
        else:
            spread = np.sqrt(_shrunk(variances, np.asarray(widths)))
        return cls(mean, np.where(spread > 0, spread, 1.0))

    def apply(self, embeddings: AnyArray) -> AnyArray:
        """Center and scale embeddings."""
        scaled: AnyArray = (embeddings - self.mean) / self.spread
        return scaled

    def apply_to(self, columns: slice, embeddings: AnyArray) -> AnyArray:
        """Center and scale some of the columns of embeddings."""
        scaled: AnyArray = (embeddings[:, columns] - self.mean[columns]) / self.spread[columns]
        return scaled


def column_slices(embeddings: AnyArray) -> Iterator[slice]:
    """Divide the columns of embeddings into slices whose float64 copies are small."""
    n_rows, n_columns = embeddings.shape
    width = max(1, _VALUES_AT_ONCE // max(n_rows, 1))
    return (slice(start, start + width) for start in range(0, n_columns, width))


def _shrunk(variances: AnyArray, widths: AnyArray) -> AnyArray:
    layer = np.repeat(np.arange(len(widths)), widths)
    shrunk = (variances + (np.bincount(layer, variances) / widths)[layer]) / 2
    # A constant layer has no variance to divide by.
    totals = np.bincount(layer, variances / np.where(shrunk > 0, shrunk, 1.0))
    scaled: AnyArray = shrunk * (totals * len(widths) / len(variances))[layer]
    return scaled
