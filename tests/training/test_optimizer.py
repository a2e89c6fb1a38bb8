"""Learning rates by depth, weight decay where it belongs, the schedule over steps."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx.training import TailAndHead
from sklearn_featx.training._optimizer import parameter_groups, resolve_optimizer, schedule_factor

RATES = {"lr": 0.1, "backbone_lr_ratio": 0.5, "layer_decay": 0.2, "weight_decay": 0.3}


def setting_of(module, key):
    """Name of each parameter in a group, with that setting of its group."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, **RATES)
    pairs = [(names[p], group[key]) for group in groups for p in group["params"]]
    assert len(pairs) == len(dict(pairs)), "a parameter is in two groups"
    return dict(pairs)


def test_only_what_is_trained_is_in_a_group(conv_tail):
    module = conv_tail(trained=(True, False, True))
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert set(setting_of(module, "lr")) == trained


def test_rates_fall_with_the_distance_from_the_head(conv_tail):
    rates = setting_of(conv_tail(trained=(True, True, True)), "lr")
    assert rates["head.1.weight"] == 0.1
    assert rates["stages.1.0.0.weight"] == pytest.approx(0.1 * 0.5 * 0.2)
    assert rates["stages.0.0.weight"] == pytest.approx(0.1 * 0.5 * 0.2**2)


def test_a_frozen_stage_does_not_change_the_rates_of_others(conv_tail):
    # github.com/huggingface/pytorch-image-models/issues/2691
    rates = setting_of(conv_tail(trained=(False, True, False)), "lr")
    assert rates["stages.1.0.0.weight"] == pytest.approx(0.1 * 0.5 * 0.2)


def test_the_last_stage_learns_at_the_backbone_rate():
    module = TailAndHead([nn.Linear(2, 2)], nn.Linear(2, 2), trained=[True], batch_norm="frozen")
    assert setting_of(module, "lr")["stages.0.weight"] == pytest.approx(0.05)


def test_the_head_comes_first(conv_tail):
    module = conv_tail()
    first = parameter_groups(module, **RATES)[0]["params"]
    assert any(parameter is module.head[1].weight for parameter in first)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 5, 8))
        self.layer_scale = nn.Parameter(torch.ones(8, 1, 1))
        self.block = nn.TransformerEncoderLayer(8, 2, 16)
        self.plane_norm = nn.LayerNorm((5, 8))


def test_weight_decay_is_for_matrices_and_kernels(conv_tail):
    module = TailAndHead([Tokens()], nn.Linear(8, 2), trained=[True], batch_norm="frozen")
    decay = setting_of(module, "weight_decay") | setting_of(conv_tail(), "weight_decay")
    decayed = {name for name, value in decay.items() if value}
    assert decayed == {
        "head.weight",
        "head.1.weight",
        "stages.0.block.self_attn.in_proj_weight",
        "stages.0.block.self_attn.out_proj.weight",
        "stages.0.block.linear1.weight",
        "stages.0.block.linear2.weight",
        "stages.1.0.0.weight",
    }
    assert {decay[name] for name in decayed} == {0.3}


def test_resolve_optimizer():
    assert resolve_optimizer("adamw") == (torch.optim.AdamW, {})
    assert resolve_optimizer("sgd")[1] == {"momentum": 0.9, "nesterov": True}
    assert resolve_optimizer(torch.optim.RMSprop) == (torch.optim.RMSprop, {})
    for wrong in ("lion", nn.Linear, 3):
        with pytest.raises(ValueError, match="optimizer must be one of"):
            resolve_optimizer(wrong)


def test_schedule_rises_then_falls_along_a_cosine():
    factors = [schedule_factor(k, 10, warmup_fraction=0.2) for k in range(10)]
    np.testing.assert_allclose(factors[:3], [1 / 3, 2 / 3, 1])
    assert factors[6] == pytest.approx(0.5)
    assert all(np.diff(factors[2:]) < 0)
    assert factors[-1] > 0


def test_no_warm_up_starts_at_the_full_rate():
    assert schedule_factor(0, 10, warmup_fraction=0.0) == 1.0
