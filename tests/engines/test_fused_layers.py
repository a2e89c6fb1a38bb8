"""Layers of oneDNN: the same numbers, fewer passes; nothing that is still needed is overwritten."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import fx, nn

from sklearn_featx.backbones.sources._packaged import SamePad2d
from sklearn_featx.engines import _fused_layers
from sklearn_featx.engines._fused_layers import (
    FusedConvolution,
    FusedLayer,
    FusedLinear,
    fuse_layers,
)
from sklearn_featx.engines._rewrite import rewrite_for_inference
from sklearn_featx.engines._threads import limit_this_thread


def rewritten(network):
    return rewrite_for_inference(fx.symbolic_trace(network.eval()))


def fused(network):
    network = rewritten(network)
    fuse_layers(network)
    return network


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def check(network, x, atol=2e-5):
    given = x.clone()
    with torch.inference_mode():
        torch.testing.assert_close(fused(network)(x), network(x), atol=atol, rtol=1e-4)
    assert torch.equal(x, given)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_networks_compute_the_same(name, channels_last):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None)
    x = image(2, 3, 64, 64)
    check(network, x.contiguous(memory_format=torch.channels_last) if channels_last else x)


def layer_of(node):
    """What a node of a traced network calls."""
    owner = getattr(node.target, "__self__", None)
    if isinstance(owner, FusedLayer):
        return owner
    is_module = node.op == "call_module"
    return node.graph.owning_module.get_submodule(node.target) if is_module else node.target


def layers(network):
    return [layer_of(node) for node in network.graph.nodes if node.op.startswith("call")]


def count(network, *kinds):
    return sum(isinstance(layer, kinds) for layer in layers(network))


def called(network):
    """Classes and functions that a traced network calls."""
    kinds = nn.Module | FusedLayer
    return {type(layer) if isinstance(layer, kinds) else layer for layer in layers(network)}


def test_nothing_but_fused_layers_is_left_of_a_residual_network():
    network = fused(torchvision.models.resnet18(weights=None))
    pools = {nn.MaxPool2d, nn.AdaptiveAvgPool2d, torch.flatten}
    assert called(network) == {FusedConvolution, FusedLinear, *pools}


class Block(nn.Module):
    """Two convolutions whose results meet in a way of a subclass's."""

    def __init__(self, channels=4):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.a = nn.Conv2d(4, channels, 3, padding=1)
            self.b = nn.Conv2d(channels, channels, 1)
            self.c = nn.Conv2d(channels, channels, 1)


class Sum(Block):
    def forward(self, x):
        y = self.a(x)
        return y + self.b(y * 1)


class SumOfItsInput(Block):
    """The convolution reads what it would overwrite."""

    def forward(self, x):
        y = self.a(x)
        return self.b(y) + y


class UsedLater(Block):
    def forward(self, x):
        y = self.a(x)
        z = y + self.b(y)
        return z, self.c(y)


class SeenThroughAView(Block):
    def forward(self, x):
        y = self.a(x)
        view = y.flatten(1)
        z = self.c(self.b(y)) + y
        return z, view


class Returned(Block):
    def forward(self, x):
        y = self.a(x)
        return y, self.c(self.b(y)) + y


class SumWithTheInput(Block):
    """The input is the caller's."""

    def forward(self, x):
        return self.b(self.a(x)) + x


class Broadcast(Block):
    def forward(self, x):
        y = self.a(x)
        small = self.c(y.mean((2, 3), keepdim=True))
        return torch.relu(self.b(y) + small)


class BroadcastOfALargerOne(Block):
    def forward(self, x):
        small = self.a(x[:, :, :1, :1])
        return torch.relu(self.b(small) + self.c(small).expand(-1, -1, 3, 3))


class Overwritten(Block):
    """Twice, one after the other."""

    def forward(self, x):
        y = self.a(x)
        z = self.c(self.b(y)) + y
        return torch.relu(z)


class Chain(nn.Module):
    """Residual blocks in a row, with and without an activation after the sum."""

    def __init__(self, relu):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x):
        x = self.relu(self.blocks[0].a(x))
        for block in self.blocks:
            x = self.relu(block.c(self.relu(block.b(x))) + x)
        return x


class Clipped(Block):
    """An activation with limits after a sum is not one of oneDNN's."""

    def forward(self, x):
        y = self.a(x)
        return nn.functional.relu6(self.c(self.b(y)) + y)


class Scaled(Block):
    def forward(self, x):
        y = self.a(x)
        return torch.add(self.c(self.b(y)), y, alpha=0.5) + 1.0


class Twice(Block):
    """One layer, called twice."""

    def forward(self, x):
        return self.a(self.a(x)) + self.b(x)


class Odd(nn.Module):
    """Paddings and classes that stay as they are."""

    def __init__(self):
        super().__init__()

        class Own(nn.Conv2d):
            def forward(self, x):
                return super().forward(x) * 2

        self.layers = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding="same"), nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.SiLU(),
            Own(4, 4, 1), nn.Hardswish(),
            nn.Conv2d(4, 4, 3, stride=2, dilation=2, groups=2, bias=False), nn.SiLU(),
            nn.Conv2d(4, 4, 1), nn.Hardswish(),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    "network",
    [
        Sum(), SumOfItsInput(), UsedLater(), SeenThroughAView(), Returned(), SumWithTheInput(),
        Broadcast(), BroadcastOfALargerOne(), Overwritten(), Chain(True), Chain(False), Clipped(),
        Scaled(), Twice(), Odd(),
    ],
    ids=lambda network: type(network).__name__,
)  # fmt: skip
def test_small_networks_compute_the_same(network):
    check(network, image(2, 4, 9, 9))


@pytest.mark.parametrize("relu", [True, False])
def test_sums_of_residual_blocks_are_fused(relu):
    assert called(fused(Chain(relu))) == {FusedConvolution}


def test_linear_layers_of_any_number_of_axes():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2, bias=False)

        def forward(self, x):
            return self.second(torch.relu(self.first(x.flatten(2).transpose(1, 2))))

    network = Tokens()
    assert count(fused(network), FusedLinear) == 2
    check(network, image(2, 4, 3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vision_transformer(dtype):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64).eval()
        nn.init.normal_(network.heads.head.weight)
    found = rewrite_for_inference(fx.symbolic_trace(network), dtype)
    fuse_layers(found, dtype)
    # Of each of the two blocks the two layers after attention, the patches, and the head. Some
    # processors have no such layers in bfloat16.
    assert count(found, FusedLinear) == 5 * _fused_layers.passes_self_test(dtype)
    assert count(found, nn.MultiheadAttention) == 2
    with torch.inference_mode():
        x = image(3, 3, 32, 32)
        wanted, given = network(x), found(x.to(dtype)).float()
    tolerance = 2e-5 if dtype is torch.float32 else 0.03
    torch.testing.assert_close(given, wanted, atol=tolerance * float(wanted.abs().max()), rtol=0)


class Padded(nn.Module):
    """Padding that depends on the size of the map, before a layer that filters each channel."""

    def __init__(self, kernel, stride, groups=4, **settings):
        super().__init__()
        self.pad = SamePad2d(kernel, stride)
        self.convolution = nn.Conv2d(4, 4, kernel, stride, groups=groups, **settings)

    def forward(self, x):
        return torch.relu(self.convolution(self.pad(x)))


class PaddedMapWithTwoReaders(Padded):
    def forward(self, x):
        x = self.pad(x)
        return self.convolution(x), x.mean((2, 3))


class PaddedSum(Padded):
    """The sum needs to know how large a padded map becomes."""

    def forward(self, x):
        y = self.pad(x)[:, :, ::2, ::2] * 1
        return self.convolution(self.pad(x)) + y[:, :, :5, :4]


def traced_with_pads(network):
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, qualified_name):
            return isinstance(m, SamePad2d) or super().is_leaf_module(m, qualified_name)

    network = rewrite_for_inference(fx.GraphModule(network, Tracer().trace(network.eval())))
    fuse_layers(network)
    return network


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (2, 2), (4, 3), (3, 1), (7, 3)])
def test_padding_becomes_part_of_a_layer_that_filters_each_channel(kernel, stride):
    network = Padded(kernel, stride)
    found = traced_with_pads(network)
    assert called(found) == {FusedConvolution}
    with torch.inference_mode():
        for height, width in [(8, 8), (9, 8), (8, 9), (13, 10), (7, 11), (8, 8)]:
            x = image(2, 4, height, width)
            torch.testing.assert_close(found(x), network(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "network",
    [
        Padded(3, 2, groups=1),  # every tap more is a product for each pair of channels
        Padded(3, 2, padding=1),
        Padded(3, 2, dilation=2),
        PaddedMapWithTwoReaders(3, 2),
    ],
)
def test_padding_that_stays(network):
    found = traced_with_pads(network)
    assert SamePad2d in called(found)
    with torch.inference_mode():
        x = image(2, 4, 9, 8)
        torch.testing.assert_close(found(x), network(x), atol=1e-6, rtol=1e-5)


def test_a_sum_after_a_padded_layer():
    network = PaddedSum(3, 2)
    found = traced_with_pads(network)
    with torch.inference_mode():
        x = image(2, 4, 10, 8)
        torch.testing.assert_close(found(x), network(x), atol=1e-6, rtol=1e-5)


def test_maps_of_another_size_than_the_first():
    convolution = nn.Conv2d(32, 64, 1).eval()
    layer = FusedConvolution(convolution)
    with torch.inference_mode():
        for side in (28, 7, 56):
            x = image(2, 32, side, side)
            torch.testing.assert_close(layer.run(x), convolution(x), atol=1e-5, rtol=1e-4)


class ByName(nn.Module):
    """Its layers are given their input by name."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(input=self.conv(input=x).mean((2, 3)))


def test_input_by_name():
    check(ByName(), image(2, 3, 8, 8))


class Inside(nn.Module):
    """A part that is not traced has a layer that is called from outside, too."""

    def __init__(self):
        super().__init__()
        self.part = SamePad2d(3, 2)
        self.part.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return self.part(self.part.conv(x))


def test_a_layer_inside_of_a_part_that_is_called_as_a_whole():
    network = Inside().eval()
    found = traced_with_pads(network)
    assert count(found, FusedConvolution) == 1
    assert isinstance(found.get_submodule("part.conv"), nn.Conv2d)
    with torch.inference_mode():
        x = image(2, 3, 9, 8)
        torch.testing.assert_close(found(x), network(x), atol=1e-6, rtol=1e-5)


def test_workers_that_start_together_order_the_weights_once(monkeypatch):
    ordered, original = [], torch.ops.mkldnn._reorder_convolution_weight

    def slow(*arguments):
        ordered.append(arguments)
        time.sleep(0.02)
        return original(*arguments)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", slow)
    layer, x = FusedConvolution(nn.Conv2d(3, 8, 3)), image(1, 3, 8, 8)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: layer.run(x), range(4)))
    assert len(ordered) == 1
    assert all(torch.equal(result, results[0]) for result in results)


def test_each_number_of_threads_has_an_order_of_its_own():
    layer, x = FusedConvolution(nn.Conv2d(32, 192, 1)), image(1, 32, 28, 28)

    def run(n_threads):
        limit_this_thread(n_threads)
        return layer.run(x)

    # A pool for each, so that its thread is new.
    results = []
    for n_threads in (1, 2, 1):
        with ThreadPoolExecutor(1) as pool:
            results.append(pool.submit(run, n_threads).result())
    assert sorted(n_threads for n_threads, _ in layer._ordered) == [1, 2]
    torch.testing.assert_close(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_batch_and_one_row(dtype):
    network = rewrite_for_inference(fx.symbolic_trace(Overwritten()), dtype)
    fuse_layers(network, dtype)
    x = image(2, 4, 5, 5).to(dtype)
    with torch.inference_mode():
        assert network(x[:0]).shape == (0, 4, 5, 5)
        torch.testing.assert_close(network(x[:1]), network(x)[:1])


OPERATORS = {name: getattr(torch.ops.mkldnn, name) for name in _fused_layers._OPERATORS}


@pytest.fixture
def operators(monkeypatch):
    """Set the operators that PyTorch has under ``torch.ops.mkldnn`` and ``torch.ops.onednn``."""

    def forget():
        _fused_layers._ops.cache_clear()
        _fused_layers.passes_self_test.cache_clear()

    def provide(mkldnn=None, onednn=None):
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**(mkldnn or {})))
        monkeypatch.setattr(torch.ops, "onednn", SimpleNamespace(**(onednn or {})))
        forget()

    yield provide
    forget()


def changed(name, change):
    """One operator, with another function behind each of its names."""
    packet = OPERATORS[name]
    overloads = {key: getattr(packet, key) for key in ("default", "binary") if hasattr(packet, key)}

    class Packet:
        def __call__(self, *arguments):
            return change(packet, *arguments)

    made = Packet()
    for key, overload in overloads.items():
        setattr(made, key, partial(change, overload))
    return {**OPERATORS, name: made}


def raising(operator, *arguments):
    raise RuntimeError("no such signature")


def slightly_off(operator, *arguments):
    return operator(*arguments).mul(1.01)


class Divided(nn.Module):
    """A network of one's own: an image of one level has no spread, and 0 / 0 is NaN."""

    def __init__(self, spread, *, after=False):
        super().__init__()
        self.spread, self.after = spread, after
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        level = x.mean((1, 2, 3), keepdim=True)
        scaled = self.spread(x - level)
        maps = torch.relu(self.first(x if self.after else scaled))
        maps = self.second(maps)
        return torch.relu(maps + scaled.mean(1, keepdim=True) if self.after else maps)


class TestNan:
    """A row that the network has no numbers for stays NaN: 0 would look like a feature."""

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize(
        "spread",
        [
            lambda x: x / x.std((1, 2, 3), keepdim=True),
            lambda x: x * x.pow(2).mean((1, 2, 3), keepdim=True).reciprocal(),
            lambda x: torch.div(x, (x**2).sum((1, 2, 3), keepdim=True)),
            lambda x: x * torch.rsqrt((x * x).mean((1, 2, 3), keepdim=True)),
            lambda x: torch.softmax(x.masked_fill(x == 0, -torch.inf).flatten(1), 1).view_as(x),
            lambda x: torch.where(x == 0, torch.nan, x),
            lambda x: (x == 0) * 1e38 * 1e38 * 0 + x,
        ],
    )
    def test_of_an_operation(self, spread, after):
        network = Divided(spread, after=after).eval()
        x = torch.stack([torch.full((3, 8, 8), 0.5), image(3, 8, 8)])
        with torch.inference_mode():
            found, expected = fused(network)(x), network(x)
        assert expected[0].isnan().any()
        torch.testing.assert_close(found, expected, equal_nan=True, atol=2e-5, rtol=1e-4)

    def test_of_a_weight(self):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6())
        network[0].weight.data[2, 1, 0, 0] = torch.nan
        x = image(1, 3, 8, 8)
        with torch.inference_mode():
            found = fused(network)(x)
        assert found[0].isnan().all((1, 2)).tolist() == [False, False, True, False]

    def test_division_by_a_number_is_still_fused(self):
        class Halved(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Conv2d(3, 4, 3)

            def forward(self, x):
                return torch.relu(self.layer((x / 2) ** 2))

        network = fused(Halved())
        assert not network.graph.find_nodes(op="call_function", target=torch.relu)


def test_layers_of_another_dtype_stay():
    class Double(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3).double()
            self.second = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.second(torch.relu(self.first(x.double())).float())

    network = Double().eval()
    assert count(fused(network), FusedConvolution) == 1
    check(network, image(2, 3, 8, 8))


class TestSelfTest:
    """Where oneDNN's operators are not what they were, networks run plainly and a log says so."""

    def check_plain(self, caplog, reason):
        with caplog.at_level(logging.DEBUG, logger="sklearn_featx"):
            for _ in range(2):
                network = fused(Sum())
        assert count(network, FusedConvolution) == 0
        (line,) = caplog.messages
        assert line.startswith("Layers are not fused in torch.float32")
        assert reason in line
        x = image(2, 4, 6, 6)
        with torch.inference_mode():
            torch.testing.assert_close(network(x), Sum().eval()(x), atol=1e-6, rtol=1e-5)

    def test_operators_under_their_second_name(self, operators):
        operators(onednn=OPERATORS)
        assert count(fused(Sum()), FusedConvolution) == 2
        check(Sum().eval(), image(2, 4, 6, 6))

    @pytest.mark.parametrize("name", OPERATORS)
    def test_missing(self, operators, caplog, name):
        operators({key: value for key, value in OPERATORS.items() if key != name})
        self.check_plain(caplog, "AttributeError")

    @pytest.mark.parametrize("name", OPERATORS)
    def test_raising(self, operators, caplog, name):
        operators(changed(name, raising))
        self.check_plain(caplog, "RuntimeError: no such signature")

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("_convolution_pointwise", "convolution in 1 groups, nonlinearity none"),
            ("_convolution_pointwise_", "sum after a convolution, nonlinearity none"),
            ("_linear_pointwise", "linear layer"),
        ],
    )
    def test_differing(self, operators, caplog, name, what):
        operators(changed(name, slightly_off))
        self.check_plain(caplog, what)

    def test_one_type_may_pass_and_another_fail(self, operators):
        def not_in_bfloat16(operator, x, *arguments):
            result = operator(x, *arguments)
            return result if x.dtype is torch.float32 else result * 2

        operators(changed("_linear_pointwise", not_in_bfloat16))
        assert _fused_layers.passes_self_test(torch.float32)
        assert not _fused_layers.passes_self_test(torch.bfloat16)

    def test_the_global_generator_is_not_drawn_from(self, operators):
        operators(OPERATORS)
        before = torch.random.get_rng_state()
        _fused_layers.passes_self_test(torch.float32)
        assert torch.equal(torch.random.get_rng_state(), before)
