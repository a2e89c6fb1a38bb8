"""Networks that cannot be cut: the same rows, however a batch is divided."""

import torch
from torch import nn

from sklearn_featx.engines._micro_batches import MicroBatched


class Noting(nn.Module):
    """Notes how many rows it gets at a time."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def forward(self, x):
        self.rows.append(len(x))
        return x * 2, x.sum(1)


def test_each_number_of_rows_is_tried_and_returns_the_same(n_trial_runs):
    network = Noting()
    x = torch.rand(37, 3)
    divided = MicroBatched(network)
    for _ in range(n_trial_runs(3)):
        doubled, sums = divided(x)
        torch.testing.assert_close(doubled, x * 2, atol=0, rtol=0)
        torch.testing.assert_close(sums, x.sum(1), atol=0, rtol=0)
    assert set(network.rows) == {37, 16, 5, 4, 1}


def test_one_result(n_trial_runs):
    divided = MicroBatched(nn.ReLU())
    x = torch.randn(5, 3)
    for _ in range(n_trial_runs(2)):
        assert torch.equal(divided(x), torch.relu(x))


def test_batches_of_one_or_no_row_are_left_whole(n_trial_runs):
    network = Noting()
    divided = MicroBatched(network)
    for _ in range(n_trial_runs(2)):
        assert divided(torch.rand(1, 3))[0].shape == (1, 3)
        assert divided(torch.rand(0, 3))[0].shape == (0, 3)
    assert set(network.rows) == {0, 1}


def test_what_is_known_of_one_size_is_not_of_another(n_trial_runs):
    network = Noting()
    divided = MicroBatched(network)
    for _ in range(n_trial_runs(2)):
        divided(torch.rand(8, 3))
    network.rows.clear()
    divided(torch.rand(32, 3))
    assert network.rows == [32]
