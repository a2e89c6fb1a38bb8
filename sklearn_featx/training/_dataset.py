"""RowsDataset: rows, targets and weights as a torch Dataset of whole batches.

The rows are an array, or an object with a length and a `__getitem__` that takes a list of
positions: rows on disk are read once per batch. Rows of several parts, such as activations and
vectors, are tuples. An object with a method `start_epoch` gets the number of each epoch, and its
rows may differ between epochs.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from .._typing import AnyArray

Parts: TypeAlias = tuple[torch.Tensor, ...]
TrainingBatch: TypeAlias = tuple[torch.Tensor | Parts, tuple[torch.Tensor, torch.Tensor]]


class RowSource(Protocol):
    """An array, or rows that are read when they are asked for."""

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def __getitem__(self, positions: list[int], /) -> AnyArray | tuple[AnyArray, ...]:
        """Read rows, or the parts of rows, in the order of their positions."""
        ...


class RowsDataset(Dataset[TrainingBatch]):
    """Rows, targets and weights; an item is (row, (target, weight)).

    Parameters
    ----------
    rows : array-like of shape (n_rows, ...)
        Activations at the split point: an ndarray, or any object with `len(rows)` and
        `rows[list of int] -> ndarray or tuple of ndarray`. Floating point is served as float32.
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Integers in one dimension are class codes. Everything else is served as float32:
        regression targets, or 0 and 1 for several labels a row.
    weights : ndarray of shape (n_rows,), default=None
        Weight of each row, at least 0; all alike if None. They are scaled to a mean of 1.
    validation_rows : array-like of shape (n_rows, ...), default=None
        What early stopping measures the loss on, for instance rows of plain images where training
        sees views of them; None: `rows`.
    groups : array-like of shape (n_rows,), default=None
        Equal for rows that a validation split must not separate.

    Attributes
    ----------
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Codes as int64, else float32.
    weights : ndarray of shape (n_rows,)
        Float32 with a mean of 1.

    Raises
    ------
    ValueError
        If the lengths differ, or the weights are negative, not finite or all 0.
    """

    def __init__(
        self,
        rows: RowSource,
        targets: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        validation_rows: RowSource | None = None,
        groups: npt.ArrayLike | None = None,
    ) -> None:
        self.rows = rows
        self.validation_rows = rows if validation_rows is None else validation_rows
        self.targets = _as_targets(np.asarray(targets))
        self.weights = _unit_mean(np.ones(len(rows)) if weights is None else np.asarray(weights))
        self.groups = None if groups is None else np.asarray(groups)
        lengths = (len(rows), len(self.targets), len(self.weights))
        if len({*lengths, len(self.validation_rows)}) != 1:
            raise ValueError("rows, targets and weights have {}, {} and {} rows".format(*lengths))

    def __len__(self) -> int:
        return len(self.rows)

    def for_validation(self) -> "RowsDataset":
        """Return the dataset whose loss is measured: other rows, the same targets and weights.

        Returns
        -------
        dataset : RowsDataset
            It shares its arrays with this one.
        """
        dataset = copy.copy(self)
        dataset.rows = self.validation_rows
        return dataset

    def start_epoch(self, epoch: int) -> None:
        """Tell the rows which epoch begins, where they differ from one to the next.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        start = getattr(self.rows, "start_epoch", None)
        if start is not None:
            start(epoch)

    def __getitem__(self, position: int) -> TrainingBatch:
        row, (target, weight) = self.__getitems__([position])
        return of_rows(row, lambda part: part[0]), (target[0], weight[0])

    def __getitems__(self, positions: Sequence[int]) -> TrainingBatch:
        """Read a whole batch with one access to the rows.

        A DataLoader needs `collate_fn=as_is`, since the batch is already one.

        Parameters
        ----------
        positions : sequence of int
            Which rows, in this order.

        Returns
        -------
        batch : (rows, (targets, weights))
            Tensors with `len(positions)` rows.
        """
        index = [int(position) for position in positions]
        targets = torch.from_numpy(self.targets[index])
        return read_rows(self.rows, index), (targets, torch.from_numpy(self.weights[index]))


def read_rows(rows: RowSource, positions: list[int]) -> torch.Tensor | Parts:
    """Read some rows as one tensor, or as one for each part.

    Parameters
    ----------
    rows : array-like of shape (n_rows, ...)
        As in `RowsDataset`.
    positions : list of int
        Which rows, in this order.

    Returns
    -------
    batch : torch.Tensor of shape (len(positions), ...), or tuple of these
        Float32 where the rows are floating point, else of their own type.
    """
    batch = rows[positions]
    return tuple(map(_as_tensor, batch)) if isinstance(batch, tuple) else _as_tensor(batch)


def of_rows(
    rows: torch.Tensor | Parts, function: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor | Parts:
    """Apply a function to rows, or to each part of them.

    Parameters
    ----------
    rows : torch.Tensor or tuple of torch.Tensor
        Rows.
    function : callable
        From a tensor to a tensor.

    Returns
    -------
    results : torch.Tensor or tuple of torch.Tensor
        As the rows.
    """
    return tuple(map(function, rows)) if isinstance(rows, tuple) else function(rows)


def first_part(rows: torch.Tensor | Parts) -> torch.Tensor:
    """Return the activations at the split point.

    Parameters
    ----------
    rows : torch.Tensor or tuple of torch.Tensor
        Rows.

    Returns
    -------
    part : torch.Tensor
        The rows themselves, or the first part of them.
    """
    return rows[0] if isinstance(rows, tuple) else rows


def as_is(batch: Any) -> Any:
    """Collate nothing: `RowsDataset` serves whole batches.

    Parameters
    ----------
    batch : object
        The batch.

    Returns
    -------
    batch : object
        The same.
    """
    return batch


def _as_tensor(batch: npt.ArrayLike) -> torch.Tensor:
    batch = np.asarray(batch)
    if np.issubdtype(batch.dtype, np.floating):
        batch = batch.astype(np.float32, copy=False)
    # torch needs memory that is in order and may be written.
    return torch.from_numpy(np.require(batch, requirements=["C", "W"]))


def _as_targets(targets: AnyArray) -> AnyArray:
    codes = targets.ndim == 1 and targets.dtype.kind in "iub"
    return targets.astype(np.int64 if codes else np.float32)


def _unit_mean(weights: AnyArray) -> AnyArray:
    weights = weights.astype(np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("weights must be one finite number, at least 0, for each row")
    if len(weights) and not weights.any():
        raise ValueError("weights are 0 for every row: there is nothing to train on")
    mean = weights.mean() if len(weights) else 1.0
    return (weights / mean).astype(np.float32)
