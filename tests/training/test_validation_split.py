"""The validation split: whole groups, near the fraction, of every class."""

import numpy as np
import pytest

from sklearn_featx.training import RowsDataset
from sklearn_featx.training._validation_split import HoldOut, hold_out_groups


@pytest.mark.parametrize("seed", range(5))
def test_whole_groups_near_the_fraction(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, 400)
    classes = groups % 4
    held = hold_out_groups(groups, classes, 0.2, seed=seed)
    assert not set(groups[held]) & set(groups[~held])
    for label in range(4):
        assert 0.1 < held[classes == label].mean() < 0.3
    again = hold_out_groups(groups, classes, 0.2, seed=seed)
    np.testing.assert_array_equal(again, held)


@pytest.mark.parametrize("sizes", [[5, 5, 5, 5], [10, 10, 10, 2]])
def test_no_class_is_held_out_wholly(sizes):
    groups = np.repeat([0, 1, 2, 3], sizes)
    classes = np.repeat([0, 0, 0, 1], sizes)
    for seed in range(10):
        # The group of two rows is nearer to a tenth of all rows.
        held = hold_out_groups(groups, classes, 0.25 if len(groups) == 20 else 0.1, seed=seed)
        assert held.sum() == sizes[0]
        assert not held[classes == 1].any()


def test_one_of_two_groups_is_left():
    held = hold_out_groups(np.array(["a", "a", "b"]), None, 0.9, seed=0)
    assert set(held[:2]) in ({True}, {False})
    assert held[2] != held[0]


def test_a_single_group_is_not_separated():
    with pytest.raises(ValueError, match="all rows are of one group"):
        hold_out_groups(np.zeros(4), None, 0.5, seed=0)


@pytest.mark.parametrize("stratified", [True, False])
def test_parts_of_a_dataset(stratified):
    dataset = RowsDataset(np.zeros((12, 2)), np.tile([0, 1], 6), groups=np.repeat(range(4), 3))
    split = HoldOut(0.25, stratified=stratified, random_state=0)
    train, valid = split(dataset, dataset.targets, groups=dataset.groups)
    assert sorted(train.indices + valid.indices) == list(range(12))
    assert len(set(dataset.groups[valid.indices])) == 1
    train, valid = split(dataset, dataset.targets)
    assert len(valid) == 3
