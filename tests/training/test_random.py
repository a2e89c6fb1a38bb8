"""Seeds decide, and leave no trace."""

import random

import numpy as np
import pytest
import torch

from sklearn_featx.training import seeded
from sklearn_featx.training._random import Draws, derive_seed


def test_a_block_is_reproducible_and_leaves_no_trace():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    draws = []
    for seed in (3, 3, 4):
        with seeded(seed):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_the_state_comes_back_after_an_error():
    def fail():
        with seeded(1):
            torch.rand(3)
            raise KeyError

    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_of_one_random_state_differ():
    seeds = {derive_seed(state, stream) for state in range(10) for stream in range(10)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(7, 2) == derive_seed(7, 2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_state_of_the_device_comes_back():
    torch.rand(1, device="cuda")
    before = torch.cuda.get_rng_state()
    with Draws(3, "cuda").active():
        first = torch.rand(4, device="cuda")
    with Draws(3, "cuda").active():
        second = torch.rand(4, device="cuda")
    assert torch.equal(first, second)
    assert torch.equal(torch.cuda.get_rng_state(), before)
