"""Heads by name, module and callable."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx.training import LinearModel, make_head, start_head
from sklearn_featx.training._head import Standardize


def test_linear_starts_near_zero():
    head = make_head("linear", 20, 3, seed=0)
    assert isinstance(head[0], Standardize)
    assert head[1].weight.shape == (3, 20)
    assert 0 < head[1].weight.abs().max() < 0.1
    assert not head[1].bias.any()


@pytest.mark.parametrize(("n_inputs", "hidden"), [(20, 20), (2048, 512)])
def test_mlp_hidden_layer(n_inputs, hidden):
    head = make_head("mlp", n_inputs, 3, seed=0)
    assert head[1].out_features == hidden
    assert head(torch.zeros(2, n_inputs)).shape == (2, 3)


def test_a_given_module_is_copied():
    given = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    head = make_head(given, 4, 3, seed=0)
    assert head is not given
    assert head[1].weight is not given[1].weight
    torch.testing.assert_close(head[1].weight, given[1].weight, rtol=0, atol=0)
    assert head[0].num_batches_tracked == 0
    assert head.training


def test_a_callable_may_return_one_module_each_time():
    given = nn.Linear(4, 3)
    heads = [make_head(lambda n_in, n_out: given, 4, 3, seed=0) for _ in range(2)]
    assert heads[0].weight is not heads[1].weight


def test_a_class_is_a_callable():
    assert make_head(nn.Linear, 4, 3, seed=0).weight.shape == (3, 4)


@pytest.mark.parametrize("head", ["linear", "mlp", nn.Linear])
def test_the_seed_decides_and_leaves_no_trace(head):
    before = torch.get_rng_state()
    first, same, other = (make_head(head, 5, 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [next(iter(module.parameters())) for module in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("head", "error", "message"),
    [
        ("deep", ValueError, "head='deep'"),
        (3, TypeError, "head must be"),
        (lambda n_in, n_out: 3, TypeError, "head: the callable returned int"),
        (nn.Linear(4, 7), ValueError, r"head must return shape \(n_rows, 3\).*\(2, 7\)"),
        (nn.Linear(9, 3), ValueError, r"head does not accept .*\(n_rows, 4\)"),
        (nn.BatchNorm2d(4), ValueError, "head does not accept"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.Unflatten(0, (1, 2))),
            ValueError,
            r"for 2 rows.*1, 2, 3",
        ),
        (nn.LSTM(4, 3), TypeError, r"head must return a tensor.*\(n_rows, 3\).*returned tuple"),
        (nn.Bilinear(4, 4, 3), ValueError, "head does not accept .*missing 1 required"),
    ],
)
def test_errors_name_head(head, error, message):
    with pytest.raises(error, match=message):
        make_head(head, 4, 3, seed=0)


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(50, 4)) * [1e-3, 2e-3, 3e-3, 1e-7] + 7e-3).astype(np.float32)


def test_measured_embeddings_have_mean_zero_and_spread_one(embeddings):
    module = Standardize(4)
    torch.testing.assert_close(module(torch.ones(2, 4)), torch.ones(2, 4))
    module.measure(embeddings, None)
    standard = module(torch.from_numpy(embeddings))
    assert standard.mean(0).abs().max() < 1e-4
    assert standard.square().mean().sqrt() == pytest.approx(1, abs=1e-3)
    # The feature that hardly varies stays small.
    assert standard[:, 3].abs().max() < 1e-3


def test_weights_count_as_repetitions(embeddings):
    weights = np.random.default_rng(1).integers(0, 3, 50)
    weighted, repeated = Standardize(4), Standardize(4)
    weighted.measure(embeddings, weights)
    repeated.measure(np.repeat(embeddings, weights, axis=0), None)
    torch.testing.assert_close(weighted.mean, repeated.mean)
    torch.testing.assert_close(weighted.scale, repeated.scale)


def test_constant_embeddings_are_not_divided_by_zero():
    module = Standardize(2)
    module.measure(np.ones((3, 2)), None)
    assert torch.isfinite(module(torch.ones(1, 2))).all()


def test_a_linear_head_starts_at_the_model(embeddings):
    rng = np.random.default_rng(2)
    model = LinearModel(rng.normal(size=(3, 4)), rng.normal(size=3), 1.0)
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
