"""RowsDataset: rows, targets and weights as a torch Dataset of whole batches.

The rows are an array, or an object with a length and a `__getitem__` that takes a list of
positions: rows on disk are read once per batch. Rows of several parts, such as activations and
vectors, are tuples; if an attribute `of_bags` is true, these are the activations of all images, the
number of images of each bag, and vectors. An object with a method `start_epoch` gets the number of
each epoch, and its rows may differ between epochs.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from .._typing import AnyArray
from ._bags import BagParts

Parts: TypeAlias = tuple[torch.Tensor, ...]
# One tensor, several of the same length, or those of bags.
Batch: TypeAlias = torch.Tensor | Parts | BagParts
TrainingBatch: TypeAlias = tuple[Batch, tuple[torch.Tensor, torch.Tensor]]


class RowSource(Protocol):
    """An array, or rows that are read on demand."""

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
        `rows[list of int] -> ndarray or tuple of ndarray`. Floating point rows become float32.
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Integers in one dimension are class codes. All other targets become float32: regression
        targets, or 0 and 1 for multilabel targets.
    weights : ndarray of shape (n_rows,), default=None
        Weight of each row, at least 0; None: all are equal. They are scaled to a mean of 1.
    validation_rows : array-like of shape (n_rows, ...), default=None
        Rows of the validation loss, such as rows of the images if training uses rows of their
        views. None: `rows`.
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
        """Return the dataset of the validation loss.

        Returns
        -------
        dataset : RowsDataset
            The validation rows, with the same targets and weights.
        """
        dataset = copy.copy(self)
        dataset.rows = self.validation_rows
        return dataset

    def start_epoch(self, epoch: int) -> None:
        """Pass the number of an epoch to the rows, if they differ between epochs.

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
            Positions of the rows, in this order.

        Returns
        -------
        batch : (rows, (targets, weights))
            Tensors with `len(positions)` rows.
        """
        index = [int(position) for position in positions]
        targets = torch.from_numpy(self.targets[index])
        return read_rows(self.rows, index), (targets, torch.from_numpy(self.weights[index]))


def read_rows(rows: RowSource, positions: list[int]) -> Batch:
    """Read some rows as a tensor, or as one tensor for each part.

    Parameters
    ----------
    rows : array-like of shape (n_rows, ...)
        As in `RowsDataset`.
    positions : list of int
        Positions of the rows, in this order.

    Returns
    -------
    batch : torch.Tensor of shape (len(positions), ...), or tuple of these
        Float32 for floating point rows; other rows keep their dtype.
    """
    batch = rows[positions]
    if getattr(rows, "of_bags", False):
        return BagParts(*map(_as_tensor, batch))
    return tuple(map(_as_tensor, batch)) if isinstance(batch, tuple) else _as_tensor(batch)


def of_rows(rows: Batch, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """Apply a function to rows, or to each part of them.

    Parameters
    ----------
    rows : torch.Tensor or tuple of torch.Tensor
        Rows.
    function : callable
        Maps a tensor to a tensor.

    Returns
    -------
    results : torch.Tensor or tuple of torch.Tensor
        The results, with the structure of the rows.
    """
    if isinstance(rows, BagParts):
        return rows.each(function)
    return tuple(map(function, rows)) if isinstance(rows, tuple) else function(rows)


def first_part(rows: Batch) -> torch.Tensor:
    """Return the activations at the split point.

    Parameters
    ----------
    rows : torch.Tensor or tuple of torch.Tensor
        Rows.

    Returns
    -------
    part : torch.Tensor
        The rows, or their first part.
    """
    if isinstance(rows, BagParts):
        return rows.images
    return rows[0] if isinstance(rows, tuple) else rows


def chunks(
    rows: Batch, targets: torch.Tensor, weights: torch.Tensor, size: int
) -> Iterator[TrainingBatch]:
    """Split a batch.

    Parameters
    ----------
    rows : torch.Tensor, tuple of torch.Tensor or BagParts
        The rows.
    targets, weights : torch.Tensor of shape (n_rows, ...)
        Targets and weights.
    size : int
        Number of rows in a chunk.

    Yields
    ------
    chunk : (rows, (targets, weights))
        As the items of a `RowsDataset`.
    """
    for start in range(0, len(weights), size):
        part = slice(start, start + size)
        some = rows.some(part) if isinstance(rows, BagParts) else of_rows(rows, itemgetter(part))
        yield some, (targets[part], weights[part])


def as_is(batch: Any) -> Any:
    """Return a batch unchanged: the `collate_fn` for whole batches of `RowsDataset`.

    Parameters
    ----------
    batch : object
        The batch.

    Returns
    -------
    batch : object
        The batch.
    """
    return batch


def _as_tensor(batch: npt.ArrayLike) -> torch.Tensor:
    batch = np.asarray(batch)
    if np.issubdtype(batch.dtype, np.floating):
        batch = batch.astype(np.float32, copy=False)
    # torch needs contiguous, writeable memory.
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
