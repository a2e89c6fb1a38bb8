"""Training rows of the linear probe, in at most as many coordinates as rows or columns.

With an L2 penalty, the solution lies in the span of the rows, and the penalty is equal in every
orthonormal basis of the span. A problem of 2,000 rows and 50,000 columns is therefore solved in
2,000 coordinates, without an approximation.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray
from ._scaling import Scaling, column_slices

# The maximum of min(n_rows, n_columns) for which a decomposition costs less than it saves.
MOST_COORDINATES = 5_000


class ProbeRows:
    """Training rows of a linear model.

    Coordinates are the principal components of the scaled features, from the Gram matrix if there
    are fewer rows than columns, otherwise from the scatter matrix. With more than
    `MOST_COORDINATES` rows and columns, they are the scaled features.

    Parameters
    ----------
    features : array-like of shape (n_rows, n_features)
        Input of the head.
    sample_weight : array-like of shape (n_rows,) or None
        Weight of each row, 1 if None. Rows of weight 0 are dropped.
    widths : sequence of int, default=None
        Numbers of columns of the layers that stand side by side; None: all are of one layer.

    Attributes
    ----------
    coordinates : ndarray of shape (n_counted, n_coordinates)
        Rows with a positive weight, in float64.
    sample_weight : ndarray of shape (n_counted,)
        Their weights.
    """

    def __init__(
        self,
        features: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None,
        widths: Sequence[int] | None = None,
    ) -> None:
        features = np.asarray(features)
        weights = np.ones(len(features)) if sample_weight is None else np.asarray(sample_weight)
        self._counted = weights > 0
        self._features = features if self._counted.all() else features[self._counted]
        self.sample_weight = weights[self._counted].astype(np.float64)
        with np.errstate(invalid="ignore"):
            self._scaling = Scaling.of(self._features, self.sample_weight, widths)
        if not np.isfinite(self._scaling.mean).all():
            first = np.argmax(self._counted & ~np.isfinite(features).all(axis=1))
            raise ValueError(
                f"the linear probe needs finite features: row {first} of the training rows "
                "contains NaN or infinity. Try precision='float32' or another layer."
            )
        self._by_rows = self._by_columns = None
        n_rows, n_columns = self._features.shape
        if min(n_rows, n_columns) > MOST_COORDINATES:
            self.coordinates = self._scaling.apply(self._features)
        elif n_rows < n_columns:
            self.coordinates, self._by_rows = self._of_gram_matrix()
        else:
            self.coordinates, self._by_columns = self._of_scatter_matrix()

    def counted(self, targets: npt.ArrayLike) -> AnyArray:
        """Targets of the rows with a positive weight."""
        return np.asarray(targets)[self._counted]

    def fold(self, coef: AnyArray, intercept: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Convert a model of the coordinates to a model of the unscaled features.

        Parameters
        ----------
        coef : ndarray of shape (n_outputs, n_coordinates)
            Coefficients.
        intercept : ndarray of shape (n_outputs,)
            Intercepts.

        Returns
        -------
        weight : ndarray of shape (n_outputs, n_features)
            Coefficients.
        bias : ndarray of shape (n_outputs,)
            Such that features @ weight.T + bias equals coordinates @ coef.T + intercept.
        """
        weight = self._of_scaled_features(coef) / self._scaling.spread
        return weight, intercept - weight @ self._scaling.mean

    def _of_scaled_features(self, coef: AnyArray) -> AnyArray:
        if self._by_columns is not None:
            return coef @ self._by_columns.T
        if self._by_rows is None:
            return coef
        by_rows = coef @ self._by_rows.T
        parts = [by_rows @ self._scaled(some) for some in column_slices(self._features)]
        return np.concatenate(parts, axis=1)

    def _of_gram_matrix(self) -> tuple[AnyArray, AnyArray]:
        n_rows = len(self._features)
        gram = np.zeros((n_rows, n_rows))
        for columns in column_slices(self._features):
            scaled = self._scaled(columns)
            gram += scaled @ scaled.T
        lengths, vectors = _components(gram)
        # Constant features have one length, which is 0.
        return vectors * lengths, vectors / np.where(lengths > 0, lengths, 1.0)

    def _of_scatter_matrix(self) -> tuple[AnyArray, AnyArray]:
        scaled = self._scaling.apply(self._features)
        vectors = _components(scaled.T @ scaled)[1]
        return scaled @ vectors, vectors

    def _scaled(self, columns: slice) -> AnyArray:
        return self._scaling.apply_to(columns, self._features)


def _components(symmetric: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Square roots of the eigenvalues above rounding errors, at least one, and the eigenvectors."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    kept[-1] = True
    return np.sqrt(np.maximum(values[kept], 0.0)), vectors[:, kept]
