"""A forward that computes a value without its input has the same value in every call, or none."""

import random
import time

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.exceptions import BackboneError

X = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)


class Adds(nn.Module):
    """Adds what a function returns."""

    def __init__(self, draw):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.draw = draw

    def forward(self, x):
        return self.conv(x).mean((2, 3)) + self.draw()


DRAWS = {
    "torch.rand": lambda: torch.rand(1),
    "torch.randn": lambda: torch.randn(3),
    "normal_": lambda: torch.empty(3).normal_(),
    "bernoulli": lambda: torch.bernoulli(torch.full((50,), 0.5)).sum(),
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002
    "random": lambda: random.random(),
    "the time": lambda: time.perf_counter(),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("cls", [PretrainedFeatureExtractor, FineTuneClassifier])
def test_a_value_that_changes_is_refused(name, cls):
    with pytest.raises(BackboneError, match="has another value in each call") as error:
        cls(Adds(DRAWS[name])).fit(X, [0, 1, 0, 1])
    assert len(str(error.value)) <= 300


CONSTANTS = {
    "arange": lambda: torch.arange(3.0),
    "nan": lambda: torch.tensor([0.0, 1.0, float("nan")]),
    "a number": lambda: 0.5,
    "an empty tensor": lambda: torch.zeros(1, 3)[:0].sum(0),
    "grad mode": lambda: 1.0 if torch.is_grad_enabled() else 2.0,
}


@pytest.mark.filterwarnings("ignore:backbone 'adds' gives NaN")
@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("cache", [True, False])
def test_a_constant_is_computed_with(name, cache):
    network = Adds(CONSTANTS[name])
    with torch.inference_mode():
        plain = network.eval()(torch.from_numpy(X)[:, None] / 255).numpy()
    rows = PretrainedFeatureExtractor(network, cache=cache).fit_transform(X)
    np.testing.assert_allclose(rows, plain, atol=1e-6)


def test_other_networks_are_traced_as_they_are(small_net):
    before = set(vars(small_net))
    PretrainedFeatureExtractor(small_net).fit(X)
    assert set(vars(small_net)) == before
