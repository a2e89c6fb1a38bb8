"""The rewrite for inference: a copy, faster, the same to float tolerance."""

import pytest
import torch
from torch import fx, nn

from sklearn_featx.engines._rewrite import rewrite_for_inference


def norms(module):
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


def traced(network):
    return fx.symbolic_trace(network.eval())


@pytest.fixture
def x():
    return torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_folds_every_batch_norm_behind_a_convolution(small_net, x):
    network = traced(small_net)
    rewritten = rewrite_for_inference(network)
    assert norms(network) == 3
    assert sum(node.target.count("1") for node in rewritten.graph.find_nodes(op="call_module")) == 0
    with torch.inference_mode():
        torch.testing.assert_close(rewritten(x), network(x), atol=1e-5, rtol=1e-5)


def test_leaves_the_network_as_it_was(small_net, x):
    network = traced(small_net)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    rewrite_for_inference(network)(x)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


class Twice(nn.Module):
    """One convolution, read by two: folding a BatchNorm into it would change the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.norm.running_mean.fill_(0.5)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class SharedConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(1), nn.BatchNorm2d(1)])
        self.norms[0].running_mean.fill_(0.5)
        self.norms[1].running_var.fill_(4.0)

    def forward(self, x):
        return self.norms[1](self.conv(self.norms[0](self.conv(x))))


@pytest.mark.parametrize("cls", [Twice, SharedConvolution])
def test_does_not_fold_what_is_used_twice(cls, x):
    network = traced(cls())
    with torch.inference_mode():
        torch.testing.assert_close(rewrite_for_inference(network)(x), network(x))


def test_a_batch_norm_that_stays_keeps_its_type(x):
    network = traced(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3)))
    rewritten = rewrite_for_inference(network, torch.bfloat16)
    types = {name: tensor.dtype for name, tensor in rewritten.named_parameters()}
    assert types == {
        **dict.fromkeys(["0.weight", "0.bias"], torch.float32),
        **dict.fromkeys(["1.weight", "1.bias"], torch.bfloat16),
    }


@pytest.mark.parametrize("idle", [nn.Dropout(), nn.Identity()], ids=["Dropout", "Identity"])
def test_only_layers_that_do_nothing_are_removed(idle, x):
    network = traced(nn.Sequential(nn.Conv2d(1, 2, 3), idle, nn.ReLU()))
    assert len(rewrite_for_inference(network).graph.find_nodes(op="call_module")) == 2
    network.get_submodule("1").register_forward_hook(lambda module, args, output: 2 * output)
    with torch.inference_mode():
        torch.testing.assert_close(rewrite_for_inference(network)(x), network(x))
    network.get_submodule("1")._forward_hooks.clear()
    network.get_submodule("1").train()
    assert len(rewrite_for_inference(network).graph.find_nodes(op="call_module")) == 3


def test_buffers_of_five_dimensions_are_no_trouble(x):
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    network.register_buffer("mask", torch.zeros(1, 2, 3, 4, 5))
    with torch.inference_mode():
        torch.testing.assert_close(rewrite_for_inference(network.eval())(x), network(x))
