"""Rounding weights to 16 bits: the sum of a small filter stays, and with it the features."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.engines import _precision
from sklearn_featx.engines._rounding import round_convolutions, round_weights

TYPES = [torch.bfloat16, torch.float16]


def weights(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def error_of_sums(rounded, wanted):
    return (rounded.double() - wanted.double()).flatten(1).sum(1).abs()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [3, 5])
def test_a_filters_sum_is_off_by_the_rounding_of_its_smallest_weight(dtype, size):
    wanted = weights(200, 1, size, size)
    smallest = wanted.flatten(1).abs().amin(1)
    # What the smallest took over is of the size of a rounding of the next, seldom of one above it.
    error = error_of_sums(round_weights(wanted, dtype), wanted)
    assert error.mean() < 0.15 * error_of_sums(wanted.to(dtype), wanted).mean()
    assert (error <= torch.finfo(dtype).eps * (smallest + 0.01)).float().mean() > 0.9


@pytest.mark.parametrize("dtype", TYPES)
def test_no_weight_moves_by_more_than_a_rounding_of_the_largest(dtype):
    wanted = weights(200, 1, 3, 3)
    moved = (round_weights(wanted, dtype).float() - wanted).flatten(1).abs().amax(1)
    assert (moved <= torch.finfo(dtype).eps * wanted.flatten(1).abs().amax(1)).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_rounding_again_changes_nothing(dtype):
    once = round_weights(weights(20, 1, 5, 5), dtype)
    assert torch.equal(round_weights(once.float(), dtype), once)


def test_large_filters_are_rounded_to_nearest():
    wanted = weights(4, 65, 1, 1)
    assert torch.equal(round_weights(wanted, torch.bfloat16), wanted.bfloat16())


def test_a_module_keeps_its_type_and_gets_the_values_of_the_other():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(4, 4))
    linear = module[1].weight.detach().clone()
    round_convolutions(module, torch.bfloat16)
    weight = module[0].weight
    assert weight.dtype is torch.float32
    assert torch.equal(weight, weight.bfloat16().float())
    assert torch.equal(module[1].weight, linear)


@pytest.fixture(scope="module")
def photographs():
    """Sixteen parts of two photographs; two where emulated bfloat16 would take seconds for each."""
    n_parts = 8 if _precision._has_bfloat16_kernels() else 1
    return [
        np.ascontiguousarray(photograph[12 * i : 12 * i + 330, 17 * i : 17 * i + 500])
        for photograph in load_sample_images().images
        for i in range(n_parts)
    ]


@pytest.fixture(scope="module")
def smallest_cosine(photographs):
    def smallest(engine):
        settings = {"cache": False, "normalize": True}
        wanted = PretrainedFeatureExtractor(**settings).fit_transform(photographs)
        other = PretrainedFeatureExtractor(**settings, engine=engine, precision="bfloat16")
        return float((other.fit_transform(photographs) * wanted).sum(1).min())

    return smallest


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bfloat16_turns_features_of_photographs_by_a_cosine_of_0_999(smallest_cosine, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    assert smallest_cosine(engine) >= 0.999
