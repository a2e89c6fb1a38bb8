"""Segments: shared tensors, both modes, and gradients as in the whole network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth


class Stateful(nn.Module):
    """Each thing that a cut could get wrong, in three stages."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.depth = StochasticDepth(0.5, "row")
        self.top = nn.Conv2d(8, 4, 1)
        self.register_buffer("offset", torch.ones(1, 8, 1, 1), persistent=False)

    def forward(self, x):
        x = self.stem(x) + self.offset
        x = F.dropout(x, 0.3, training=self.training)
        x = x.relu_()
        x = x + self.depth(self.body(x))
        return self.top(x)


def test_segments_share_parameters_and_buffers(cut):
    backbone = cut(Stateful())
    own = {
        id(t) for t in (*backbone.network.module.parameters(), *backbone.network.module.buffers())
    }
    parts = [t for s in backbone.stages for t in (*s.module.parameters(), *s.module.buffers())]
    assert {id(t) for t in parts} == own


def test_non_persistent_buffers_stay_so(cut):
    backbone = cut(Stateful())
    stem = next(s.module for s in backbone.stages if "stem" in s.name)
    assert "offset" in dict(stem.named_buffers())
    assert "offset" not in stem.state_dict()


def test_state_dict_names_each_tensor_once_and_as_in_the_network(cut):
    backbone = cut(Stateful())
    names = [name for s in backbone.stages for name in s.module.state_dict()]
    assert sorted(names) == sorted(backbone.network.module.state_dict())


def test_forward_follows_the_mode(cut):
    (stem, *_) = cut(Stateful()).tail(0)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(stem.eval()(x), stem(x))
    assert not torch.equal(stem.train()(x), stem(x))


@pytest.mark.parametrize("split", [0, 1, 2])
def test_one_training_step_has_the_gradients_of_the_whole_network(split, cut):
    backbone = cut(Stateful())
    whole = copy.deepcopy(backbone.network.module).requires_grad_(True)
    x = torch.randn(4, 3, 8, 8)
    tail = nn.Sequential(*backbone.tail(split)).requires_grad_(True).train()
    with torch.no_grad():
        rows = x if split == 0 else backbone.tapped([split])(x)[0]
    torch.manual_seed(1)
    tail(rows).square().mean().backward()
    # The whole network, its trunk frozen: eval mode there, training mode after.
    whole.train()
    frozen = ["stem", "body"][:split]
    parts = {name: p for name, p in whole.named_parameters() if name.split(".")[0] not in frozen}
    for name in frozen:
        whole.get_submodule(name).eval().requires_grad_(False)
    torch.manual_seed(1)
    _whole_with_frozen_trunk(whole, x, split).square().mean().backward()
    found = {}
    for part in tail:
        found.update({name: p.grad for name, p in part.named_parameters()})
    assert found.keys() == parts.keys()
    for name, parameter in parts.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=0, atol=1e-6)


def _whole_with_frozen_trunk(net, x, split):
    """Stateful's forward, in eval mode up to the split."""
    x = net.stem(x) + net.offset
    x = F.dropout(x, 0.3, training=split < 1)
    x = x.relu()
    net.depth.train(split < 2)
    x = x + net.depth(net.body(x))
    return net.top(x)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 32), ("mobilenet_v3_small", 32)])
def test_a_real_networks_tail_has_the_same_gradients(name, size, cut):
    backbone = cut(name)
    split = len(backbone.stages) - 2
    x = torch.randn(4, 3, size, size)
    tail = nn.Sequential(*backbone.tail(split)).requires_grad_(True)
    whole = copy.deepcopy(backbone.network.module).requires_grad_(True)
    with torch.no_grad():
        (rows,) = backbone.tapped([split])(x)
    # Frozen BatchNorm: eval mode everywhere, as the estimators train by default.
    tail.eval()(rows).square().mean().backward()
    whole.eval()(x).square().mean().backward()
    expected = dict(whole.named_parameters())
    found = {name: p.grad for part in tail for name, p in part.named_parameters()}
    assert found
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name].grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("already_run", [False, True])
def test_training_a_tail_never_reaches_the_backbone(already_run, cut, run_stages):
    backbone = cut(Stateful())
    if already_run:
        run_stages(backbone, torch.randn(2, 3, 8, 8))
    before = copy.deepcopy(backbone.network.module.state_dict())
    tail = nn.Sequential(*backbone.tail(0)).requires_grad_(True).train()
    optimizer = torch.optim.SGD(tail.parameters(), lr=1.0)
    x = torch.randn(4, 3, 8, 8)
    tail(x).sum().backward()
    first = tail.eval()(x)
    optimizer.step()
    assert not torch.equal(tail(x), first)
    after = backbone.network.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not backbone.network.module.training


def test_batch_norm_in_train_mode_moves_only_the_tails_statistics(cut):
    backbone = cut(Stateful())
    (stem, *_) = backbone.tail(0)
    own = dict(stem.named_buffers())["stem.1.running_mean"]
    before = own.clone()
    stem.train()(torch.randn(4, 3, 8, 8) + 3)
    assert not torch.equal(own, before)
    assert not backbone.network.module.stem[1].running_mean.any()


class InPlaceFirst(nn.Module):
    """Its second stage begins by changing what it is given, through a view."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.a(x)
        return self.b(x.view(-1, 4).mul_(2))


def test_a_tail_does_not_change_the_rows_it_is_given(cut):
    backbone = cut(InPlaceFirst(), ["a"])
    rows = torch.randn(3, 4)
    before = rows.clone()
    (tail,) = backbone.tail(1)
    tail(rows)
    assert torch.equal(rows, before)


def test_taps_are_not_changed_by_what_comes_after(cut):
    backbone = cut(InPlaceFirst())
    x = torch.randn(3, 4)
    first, _ = backbone.tapped(["a", "b"])(x)
    assert torch.equal(first, backbone.network.module.a(x))
