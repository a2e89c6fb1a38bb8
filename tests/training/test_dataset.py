"""Rows, targets and weights, one batch with one access."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from sklearn_featx.training import RowsDataset
from sklearn_featx.training._dataset import as_is


class LazyRows:
    """Rows that count how often they are asked."""

    def __init__(self, array):
        self.array = array
        self.asked = []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, positions):
        assert isinstance(positions, list)
        self.asked.append(positions)
        return self.array[positions]


def test_a_batch_is_one_access_also_through_a_subset():
    rows = LazyRows(np.arange(20.0).reshape(10, 2))
    dataset = Subset(RowsDataset(rows, np.arange(10)), [9, 7, 5, 3])
    (batch,) = DataLoader(dataset, batch_size=4, collate_fn=as_is)
    assert rows.asked == [[9, 7, 5, 3]]
    np.testing.assert_array_equal(batch[0], rows.array[[9, 7, 5, 3]])
    np.testing.assert_array_equal(batch[1][0], [9, 7, 5, 3])


def test_items_collate_to_the_same_batch():
    dataset = RowsDataset(np.eye(3), [0.5, 1.5, 2.5], [1, 2, 3])
    items = [dataset[i] for i in range(3)]
    whole = dataset.__getitems__([0, 1, 2])
    assert torch.equal(torch.stack([row for row, _ in items]), whole[0])
    assert torch.equal(torch.stack([target for _, (target, _) in items]), whole[1][0])
    assert torch.equal(torch.stack([weight for _, (_, weight) in items]), whole[1][1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_become_float32(dtype):
    assert RowsDataset(np.ones((2, 3), dtype), [0, 1])[0][0].dtype == torch.float32


def test_integer_rows_keep_their_type():
    assert RowsDataset(np.ones((2, 3), np.int64), [0, 1])[0][0].dtype == torch.int64


def test_read_only_rows_are_served_without_a_warning():
    rows = np.ones((2, 3), np.float32)
    rows.flags.writeable = False
    assert RowsDataset(rows, [0, 1])[0][0].sum() == 3


@pytest.mark.parametrize(
    ("targets", "dtype"),
    [
        (np.array([0, 1], np.int8), np.int64),
        (np.array([True, False]), np.int64),
        (np.array([0.0, 1.0]), np.float32),
        (np.array([[0, 1], [1, 1]]), np.float32),
    ],
)
def test_types_of_targets(targets, dtype):
    assert RowsDataset(np.ones((2, 3)), targets).targets.dtype == dtype


def test_weights_have_a_mean_of_one():
    np.testing.assert_allclose(
        RowsDataset(np.ones((3, 1)), [0, 1, 2], [2, 4, 6]).weights, [0.5, 1, 1.5]
    )
    np.testing.assert_array_equal(RowsDataset(np.ones((3, 1)), [0, 1, 2]).weights, 1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([0, 0], "0 for every row"), ([1, -1], "at least 0"), ([1, np.nan], "finite")],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        RowsDataset(np.ones((2, 1)), [0, 1], weights)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="have 2, 3 and 2 rows"):
        RowsDataset(np.ones((2, 1)), [0, 1, 2])
