"""Where heads start: scale and probe."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx.training import LinearModel, make_head, start_head
from sklearn_featx.training._standardise import Standardise


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(50, 4)) * [1e-3, 2e-3, 3e-3, 1e-7] + 7e-3).astype(np.float32)


def test_measured_embeddings_have_mean_zero_and_spread_one(embeddings):
    module = Standardise(4)
    torch.testing.assert_close(module(torch.ones(2, 4)), torch.ones(2, 4))
    module.measure(embeddings, None)
    standard = module(torch.from_numpy(embeddings))
    assert standard.mean(0).abs().max() < 1e-4
    assert standard.square().mean().sqrt() == pytest.approx(1, abs=1e-3)
    # The feature that hardly varies stays small.
    assert standard[:, 3].abs().max() < 1e-3


def test_weights_count_as_repetitions(embeddings):
    weights = np.random.default_rng(1).integers(0, 3, 50)
    weighted, repeated = Standardise(4), Standardise(4)
    weighted.measure(embeddings, weights)
    repeated.measure(np.repeat(embeddings, weights, axis=0), None)
    torch.testing.assert_close(weighted.mean, repeated.mean)
    torch.testing.assert_close(weighted.scale, repeated.scale)


def test_constant_embeddings_are_not_divided_by_zero():
    module = Standardise(2)
    module.measure(np.ones((3, 2)), None)
    assert torch.isfinite(module(torch.ones(1, 2))).all()


def test_a_linear_head_starts_at_the_model(embeddings):
    rng = np.random.default_rng(2)
    model = LinearModel(rng.normal(size=(3, 4)), rng.normal(size=3))
    head = make_head("linear", 4, 3, seed=0)
    start_head(head, embeddings, None, model)
    expected = embeddings @ model.weight.T + model.bias
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(embeddings)), expected, rtol=1e-4)


def test_an_mlp_is_only_scaled(embeddings):
    head, untouched = (make_head("mlp", 4, 3, seed=0) for _ in range(2))
    start_head(head, embeddings, None)
    assert (head[0].scale != 1).all()
    assert isinstance(head[1], nn.Linear)
    torch.testing.assert_close(head[1].weight, untouched[1].weight)
