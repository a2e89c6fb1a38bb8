"""Columns beside the images, which a fitted `ColumnTransformer` joins with their features."""

import copy
from typing import Any, NamedTuple

import numpy as np
from sklearn.compose import ColumnTransformer

from .._messages import shown
from .._typing import AnyArray, FloatArray
from ..exceptions import UnsuitableModelError


class Beside(NamedTuple):
    """Rows of a table: features of their images, and the other columns.

    Parameters
    ----------
    branch : estimator
        The fitted transformer of the column of images.
    images : array-like, Series or DataFrame of n_images images
        Input of `branch`.
    place : ndarray of int
        Columns of its output among all.
    weight : float
        Weight of these columns.
    values : ndarray of shape (n_images, n_others)
        The other columns.
    columns : dict of str to ndarray of int
        Columns of each other transformer, among `values`.
    """

    branch: Any
    images: Any
    place: AnyArray
    weight: float
    values: FloatArray
    columns: dict[str, AnyArray]

    def joined(self, images: AnyArray, others: FloatArray) -> FloatArray:
        """Put the outputs of the branch and the other columns in the order of the table."""
        whole = np.empty((len(images), len(self.place) + others.shape[1]))
        whole[:, self.place] = images * self.weight
        whole[:, np.setdiff1d(np.arange(whole.shape[1]), self.place)] = others
        return whole

    def shares(self, rows: list[int], weights: FloatArray) -> dict[str, FloatArray]:
        """Return what the columns of each other transformer add to scores.

        Parameters
        ----------
        rows : list of int
            Some images.
        weights : ndarray of shape (n, n_features)
            Weight of each column, the others last, for each of them.
        """
        n_others = self.values.shape[1]
        added = self.values[rows] * weights[:, weights.shape[1] - n_others :]
        return {name: added[:, at].sum(1) for name, at in self.columns.items()}


def columns_beside(table: ColumnTransformer, name: str, X: Any) -> Beside:
    """Separate the images of a table from its other columns.

    Parameters
    ----------
    table : ColumnTransformer
        Fitted.
    name : str
        Name of the transformer of the images.
    X : array-like or DataFrame of n_images rows
        Its input.

    Raises
    ------
    TypeError
        If X is no table.
    """
    if len(np.shape(X)) != 2:
        raise UnsuitableModelError(
            f"X={shown(X)}: the model takes a table with columns beside the images. Pass one with "
            "the columns that it was fitted on."
        )
    recorder = _Recorder(table.named_transformers_[name])
    # Only the table knows the input of the branch: columns are names, numbers, masks or slices.
    watched = copy.copy(table)
    watched.n_jobs = None
    watched.transformers_ = [
        (n, recorder if n == name else step, columns) for n, step, columns in table.transformers_
    ]
    found = watched.transform(X)
    whole = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)
    place = np.arange(whole.shape[1])[table.output_indices_[name]]
    others = np.setdiff1d(np.arange(whole.shape[1]), place)
    columns = {
        n: np.flatnonzero(np.isin(others, np.arange(whole.shape[1])[where]))
        for n, where in table.output_indices_.items()
        if n != name and where.stop > where.start
    }
    weight = (table.transformer_weights or {}).get(name)
    return Beside(
        recorder.transformer, recorder.seen, place, 1.0 if weight is None else float(weight),
        whole[:, others], columns,
    )  # fmt: skip


class _Recorder:
    """A transformer that keeps its input."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self.seen: Any = None

    def transform(self, X: Any) -> Any:
        self.seen = X
        return self.transformer.transform(X)
