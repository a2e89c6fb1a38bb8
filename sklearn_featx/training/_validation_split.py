"""The validation split of early stopping: a share of the rows, stratified, or of whole groups."""

from typing import Any

import numpy as np
import numpy.typing as npt
from skorch.dataset import ValidSplit
from torch.utils.data import Subset

from .._typing import AnyArray
from ._dataset import RowsDataset
from ._net import FineTuneNet

# Random orders of the groups, of which the best is taken.
_N_DRAWS = 100


class HoldOut(ValidSplit):
    """A share of the rows, or of whole groups if the dataset has groups.

    Parameters
    ----------
    cv : float
        Share of the rows that are held out.
    stratified : bool, default=False
        Whether each class is held out in this share, as nearly as groups allow.
    random_state : int, default=None
        Seed.
    """

    def __call__(self, dataset: Any, y: Any = None, groups: Any = None) -> tuple[Any, Any]:
        """Split a dataset.

        Parameters
        ----------
        dataset : Dataset
            The rows.
        y : ndarray of shape (n_rows,), default=None
            Targets, for a stratified split.
        groups : ndarray of shape (n_rows,), default=None
            Equal for rows that must not be separated.

        Returns
        -------
        train, valid : Subset
            The two parts.
        """
        if groups is None:
            parts: tuple[Any, Any] = super().__call__(dataset, y)
            return parts
        classes = np.unique(y, return_inverse=True)[1] if self.stratified else None
        held = hold_out_groups(groups, classes, self.cv, seed=self.random_state)
        train, valid = np.flatnonzero(~held), np.flatnonzero(held)
        return Subset(dataset, train.tolist()), Subset(dataset, valid.tolist())


class _FixedSplit:
    """A split that was made before.

    Parameters
    ----------
    train : list of int
        Positions of the training rows.
    valid : list of int or Dataset
        Positions of the held-out rows, or a dataset of other rows.
    """

    def __init__(self, train: list[int], valid: Any) -> None:
        self.train, self.valid = train, valid

    def __call__(self, dataset: Any, y: Any = None, groups: Any = None) -> tuple[Any, Any]:  # noqa: ARG002 (skorch's interface)
        """Return the two parts of a dataset."""
        known = isinstance(self.valid, list)
        valid = Subset(dataset, self.valid) if known else self.valid
        return Subset(dataset, self.train), valid


def fix_split(net: FineTuneNet, dataset: RowsDataset) -> slice | AnyArray:
    """Hold out rows of a dataset now, and make the fit of a net hold out the same rows.

    Parameters
    ----------
    net : FineTuneNet
        The net, not yet initialized. Its `train_split` is replaced.
    dataset : RowsDataset
        Rows in the order of those that it will be fitted to.

    Returns
    -------
    train : slice or ndarray of shape (n_train,)
        Positions of the rows that are not held out.
    """
    if not net.train_split:
        return slice(None)
    net.planned_ = True
    train, valid = net.get_split_datasets(dataset)
    if not (isinstance(train, Subset) and train.dataset is dataset):
        # All rows, with others for the validation.
        return slice(None)
    indices = [int(row) for row in train.indices]
    held: Any = valid
    if isinstance(valid, Subset) and isinstance(valid.dataset, RowsDataset):
        held = [int(row) for row in valid.indices]
    net.train_split = _FixedSplit(indices, held)
    return np.array(indices)


def hold_out_groups(
    groups: AnyArray, classes: AnyArray | None, fraction: float, *, seed: int | None
) -> npt.NDArray[np.bool_]:
    """Choose groups with about a fraction of the rows, of each class if classes are given.

    The groups are drawn in several random orders, and the order whose first groups come nearest is
    taken. A class is held out wholly only if every order does so.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,)
        Group of each row.
    classes : ndarray of shape (n_rows,) or None
        Class codes from 0.
    fraction : float
        Share of the rows.
    seed : int or None
        Seed of the orders.

    Returns
    -------
    held : ndarray of shape (n_rows,), bool
        Whether a row is held out; at least one group is, and at least one is not.

    Raises
    ------
    ValueError
        If there is one group only.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError("all rows are of one group, and groups are not separated.")
    classes = np.zeros(len(codes), np.intp) if classes is None else classes
    table = np.zeros((len(names), int(classes.max()) + 1))
    np.add.at(table, (codes, classes), 1)
    rng = np.random.default_rng(seed)
    draws = (_nearest(table, rng.permutation(len(names)), fraction) for _ in range(_N_DRAWS))
    chosen = min(draws, key=lambda draw: draw[0])[1]
    return np.isin(codes, chosen)


def _nearest(table: AnyArray, order: AnyArray, fraction: float) -> tuple[float, AnyArray]:
    """Return the first groups of an order that have about a fraction of the rows, and their cost.

    The cost is the number of rows too many or too few, plus all rows for each class of which none
    is left to train on.
    """
    sums = np.cumsum(table[order[:-1]].sum(axis=1))
    chosen = order[: 1 + int(np.argmin(np.abs(sums - fraction * table.sum())))]
    held, total = table[chosen].sum(axis=0), table.sum(axis=0)
    lost = (held == total) & (total > 0)
    return float(np.abs(held - fraction * total).sum() + table.sum() * lost.sum()), chosen
