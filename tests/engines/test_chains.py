"""Chains of convolutions: every bit as when each is called, and nothing else is overwritten."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torchvision
from torch import fx, nn

from sklearn_featx.engines._chains import Chain, Step, chain_convolutions
from sklearn_featx.engines._onednn import FusedConvolution, fuse_layers
from sklearn_featx.engines._rewrite import rewrite_for_inference
from sklearn_featx.engines._threads import limit_this_thread


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def fused(network, dtype=torch.float32):
    network = rewrite_for_inference(fx.symbolic_trace(network.eval()), dtype)
    fuse_layers(network)
    return network


def chained(network, dtype=torch.float32):
    network = fused(network, dtype)
    chain_convolutions(network)
    return network


def owners(network):
    """Chains and convolutions that a network calls."""
    found = [getattr(node.target, "__self__", None) for node in network.graph.nodes]
    return [owner for owner in found if isinstance(owner, Chain | FusedConvolution)]


def scripts(network):
    """Scripts of a network's chains; none of them may be run step by step."""
    chains = [owner for owner in owners(network) if isinstance(owner, Chain)]
    ways = [way for chain in chains for way in chain._ways.values()]
    assert all(isinstance(way, partial) for way in ways)
    return ways


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
)
def test_networks_compute_the_same_bits(name, dtype):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None)
    alone, together = fused(network, dtype), chained(network, dtype)
    with torch.inference_mode():
        for n in (2, 2, 2, 1, 2, 1, 1):
            x = image(n, 3, 64, 64, seed=n).to(dtype)
            assert torch.equal(together(x), alone(x))
    assert len(owners(together)) < len(owners(alone))
    assert scripts(together)


def test_mobilenet_v2_is_one_chain():
    (chain,) = owners(chained(torchvision.models.mobilenet_v2(weights=None)))
    assert isinstance(chain, Chain)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.a = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.b = nn.Conv2d(4, 4, 1)
            self.c = nn.Conv2d(4, 4, 3, padding=1, groups=4)
            self.d = nn.Conv2d(4, 4, 1)


class Residual(Layers):
    def forward(self, x):
        y = torch.relu(self.a(x))
        return torch.relu(self.c(nn.functional.relu6(self.b(y))) + y)


class SumFromOutside(Layers):
    """The chain overwrites one of its inputs, which nobody needs any more."""

    def forward(self, x):
        y = nn.functional.silu(self.a(x))
        z = torch.sin(y)
        return self.c(self.b(z)) + y


class SumThatComesFirst(Layers):
    def forward(self, x):
        y = self.a(x)
        z = self.c(torch.sin(self.b(y))) + y
        return self.d(z)


class UsedOutside(Layers):
    """What each convolution returns is used after the chain, too."""

    def forward(self, x):
        y = self.a(x)
        z = self.b(y)
        u = self.c(z)
        return torch.sin(y) + torch.cos(z), u


class SumWithTheInput(Layers):
    """The input is the caller's."""

    def forward(self, x):
        return self.b(self.a(x)) + x


class TwoInputs(Layers):
    def forward(self, x):
        y, z = torch.sin(x), torch.cos(x)
        return self.b(y), self.c(z)


class Apart(Layers):
    """No two follow each other."""

    def forward(self, x):
        return self.b(torch.sin(self.a(x)))


@pytest.mark.parametrize(
    ("network", "n_chains"),
    [
        (Residual(), 1), (SumFromOutside(), 1), (SumThatComesFirst(), 2), (UsedOutside(), 1),
        (SumWithTheInput(), 1), (TwoInputs(), 1), (Apart(), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_small_networks_compute_the_same_bits(network, n_chains):
    alone, together = fused(network), chained(network)
    assert sum(isinstance(owner, Chain) for owner in owners(together)) == n_chains
    with torch.inference_mode():
        for _ in range(4):
            x = image(3, 4, 9, 9)
            torch.testing.assert_close(together(x), alone(x), atol=0.0, rtol=0.0)
            assert torch.equal(x, image(3, 4, 9, 9))
            torch.testing.assert_close(together(x), network(x), atol=1e-5, rtol=1e-4)
    assert len(scripts(together)) == n_chains


def test_a_sum_of_maps_of_other_sizes_is_run_step_by_step():
    first, second = FusedConvolution(Layers().b), FusedConvolution(Layers().c)
    x, y = image(2, 4, 5, 5), image(2, 4, 1, 1)
    chain = Chain([Step(first, (1,)), Step(second, (0, 2))], [3])
    with torch.inference_mode():
        wanted = second.run(x, first.run(y))
        for _ in range(3):
            (found,) = chain.run(x, y)
            assert torch.equal(found, wanted)
    assert list(chain._ways.values()) == [chain._run_steps]


def test_maps_of_another_size():
    alone, together = fused(Residual()), chained(Residual())
    with torch.inference_mode():
        for side in (9, 5, 9, 12, 5, 12):
            x = image(2, 4, side, side)
            assert torch.equal(together(x), alone(x))
    assert len(scripts(together)) == 3


def test_each_number_of_threads_has_a_script_of_its_own():
    together, x = chained(Residual()), image(2, 4, 9, 9)

    def run(n_threads):
        limit_this_thread(n_threads)
        with torch.inference_mode():
            return [together(x) for _ in range(3)]

    # A pool for each, so that its thread is new.
    results = []
    for n_threads in (1, 2, 1):
        with ThreadPoolExecutor(1) as pool:
            results += pool.submit(run, n_threads).result()
    assert len(scripts(together)) == 2
    for result in results:
        torch.testing.assert_close(result, results[0])


def test_workers_that_start_together():
    network = torchvision.models.mobilenet_v2(weights=None)
    alone, together = fused(network), chained(network)
    images = [image(1 + i % 3, 3, 32, 32, seed=i) for i in range(24)]

    def run(x):
        limit_this_thread(1)
        with torch.inference_mode():
            return together(x)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, images))
    limit_this_thread(1)
    with torch.inference_mode():
        for x, result in zip(images, found, strict=True):
            assert torch.equal(result, alone(x))


def test_where_pytorch_cannot_the_layers_stay(monkeypatch):
    monkeypatch.delattr(torch._C, "parse_ir")
    network = chained(Residual())
    assert all(isinstance(owner, FusedConvolution) for owner in owners(network))
    with torch.inference_mode():
        assert network(image(1, 4, 9, 9)).shape == (1, 4, 9, 9)
