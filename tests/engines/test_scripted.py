"""Convolutions as one call: every bit as when each is called, and nothing else is overwritten."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torchvision
from torch import fx, nn

from sklearn_featx.engines._onednn import FusedConvolution, fuse_layers
from sklearn_featx.engines._rewrite import rewrite_for_inference
from sklearn_featx.engines._scripted import ScriptedConvolutions, script_convolutions
from sklearn_featx.engines._threads import limit_this_thread


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def fused(network, dtype=torch.float32):
    network = rewrite_for_inference(fx.symbolic_trace(network.eval()), dtype)
    fuse_layers(network)
    return network


def scripted(network, dtype=torch.float32):
    network = fused(network, dtype)
    script_convolutions(network)
    return network


def layers(network):
    """Convolutions that a network calls, alone or as one."""
    kinds = ScriptedConvolutions | FusedConvolution
    found = [getattr(node.target, "__self__", None) for node in network.graph.nodes]
    return [layer for layer in found if isinstance(layer, kinds)]


def functions(network):
    """What runs for each shape that was seen."""
    found = [layer for layer in layers(network) if isinstance(layer, ScriptedConvolutions)]
    return [function for layer in found for function in layer._functions.values()]


def count_scripts(network):
    """How many shapes have a script; none may be run step by step."""
    found = functions(network)
    assert all(isinstance(function, partial) for function in found)
    return len(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
)
def test_networks_compute_the_same_bits(name, dtype):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None)
    alone, together = fused(network, dtype), scripted(network, dtype)
    with torch.inference_mode():
        for n in (2, 2, 2, 1, 2, 1, 1):
            x = image(n, 3, 64, 64, seed=n).to(dtype)
            assert torch.equal(together(x), alone(x))
    assert len(layers(together)) < len(layers(alone))
    assert count_scripts(together) > 0


def test_mobilenet_v2_is_one_call():
    (layer,) = layers(scripted(torchvision.models.mobilenet_v2(weights=None)))
    assert isinstance(layer, ScriptedConvolutions)


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
    """The script overwrites one of its inputs, which nobody needs any more."""

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
    """What each convolution returns is used afterwards, too."""

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
    ("network", "n_scripted"),
    [
        (Residual(), 1), (SumFromOutside(), 1), (SumThatComesFirst(), 2), (UsedOutside(), 1),
        (SumWithTheInput(), 1), (TwoInputs(), 1), (Apart(), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_small_networks_compute_the_same_bits(network, n_scripted):
    alone, together = fused(network), scripted(network)
    assert sum(isinstance(layer, ScriptedConvolutions) for layer in layers(together)) == n_scripted
    with torch.inference_mode():
        for _ in range(4):
            x = image(3, 4, 9, 9)
            torch.testing.assert_close(together(x), alone(x), atol=0.0, rtol=0.0)
            assert torch.equal(x, image(3, 4, 9, 9))
            torch.testing.assert_close(together(x), network(x), atol=1e-5, rtol=1e-4)
    assert count_scripts(together) == n_scripted


class Broadcast(Layers):
    """A sum with maps of one position, which is more than one operator."""

    def forward(self, x):
        small = self.d(x.mean((2, 3), keepdim=True))
        return self.b(self.a(torch.sin(x))) + small


def test_a_sum_of_maps_of_other_sizes_is_run_step_by_step():
    alone, together = fused(Broadcast()), scripted(Broadcast())
    (layer,) = [layer for layer in layers(together) if isinstance(layer, ScriptedConvolutions)]
    with torch.inference_mode():
        for _ in range(3):
            x = image(2, 4, 5, 5)
            assert torch.equal(together(x), alone(x))
    assert functions(together) == [layer._steps.forward]


PEAK = """
import pathlib, torch
from torch import fx, nn
from sklearn_featx.engines._onednn import fuse_layers
from sklearn_featx.engines._scripted import script_convolutions

network = fx.symbolic_trace(nn.Sequential(*[nn.Conv2d(4, 4, 1) for _ in range(12)]).eval())
fuse_layers(network)
script_convolutions(network)

def kibibytes(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

with torch.inference_mode():
    network(torch.ones(1, 4, 8, 8))
    x = torch.ones(1, 4, 2048, 2048).contiguous(memory_format=torch.channels_last)
    before = kibibytes("VmRSS")
    for _ in range(3):
        network(x)
    print((kibibytes("VmHWM") - before) / (x.nbytes / 1024))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others do not tell a peak so")
def test_maps_are_freed_when_they_are_used_up():
    """On the first run of a shape, too: of twelve maps, two or three are needed at a time."""
    answer = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True
    )
    assert 1.0 < float(answer.stdout) < 5.0


def test_maps_of_another_size():
    alone, together = fused(Residual()), scripted(Residual())
    with torch.inference_mode():
        for side in (9, 5, 9, 12, 5, 12):
            x = image(2, 4, side, side)
            assert torch.equal(together(x), alone(x))
    assert count_scripts(together) == 3


def test_each_number_of_threads_has_a_script_of_its_own():
    together, x = scripted(Residual()), image(2, 4, 9, 9)

    def run(n_threads):
        limit_this_thread(n_threads)
        with torch.inference_mode():
            return [together(x) for _ in range(3)]

    # A pool for each, so that its thread is new.
    results = []
    for n_threads in (1, 2, 1):
        with ThreadPoolExecutor(1) as pool:
            results += pool.submit(run, n_threads).result()
    assert count_scripts(together) == 2
    for result in results:
        torch.testing.assert_close(result, results[0])


def test_workers_that_start_together():
    network = torchvision.models.mobilenet_v2(weights=None)
    alone, together = fused(network), scripted(network)
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
    network = scripted(Residual())
    assert all(isinstance(layer, FusedConvolution) for layer in layers(network))
    with torch.inference_mode():
        assert network(image(1, 4, 9, 9)).shape == (1, 4, 9, 9)
