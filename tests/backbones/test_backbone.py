"""A backbone's promises: split points, taps, shapes, costs, digests."""

import contextlib
import logging
import sys

import pytest
import torch
from torch import nn

from sklearn_featx.backbones import _stage
from sklearn_featx.exceptions import BackboneError, UnknownLayerError


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, stride=2)
        self.c = nn.Conv2d(8, 16, 1)

    def forward(self, x):
        return self.c(self.b(self.a(x)).relu()).mean((2, 3))


@pytest.fixture
def backbone(cut):
    return cut(Chain())


@pytest.mark.parametrize(
    ("depth", "trained"),
    [(0, []), (1, [2]), (3, [0, 1, 2]), ("all", [0, 1, 2]), ((2, 3), [0, 1]), ([1, 3], [0, 1, 2])],
)
def test_depths_count_from_the_output(depth, trained, backbone):
    assert list(backbone.trained_stages(depth)) == trained


@pytest.mark.parametrize("depth", [4, -1, (3, 2), (0, 2), (2, 4), (-1, 2), (1,), (1.0, 2)])
def test_impossible_depths_list_the_stages(depth, backbone):
    with pytest.raises(UnknownLayerError, match=r"a, b, c"):
        backbone.trained_stages(depth)


def test_layers_by_module_operation_and_number(backbone):
    x = torch.randn(2, 3, 8, 8)
    net = backbone.network.module
    a, relu, whole = backbone.tapped(["a", "relu", 3])(x)
    with torch.no_grad():
        assert torch.equal(a, net.a(x))
        assert torch.equal(relu, net.b(net.a(x)).relu())
        assert torch.equal(whole, net(x))


def test_nothing_after_the_deepest_layer_is_run(backbone):
    part = backbone.tapped(["a"])
    calls = [str(node.target) for node in part[1].graph.nodes if node.op == "call_module"]
    assert calls == ["a"]


def test_layers_in_any_order_and_twice(backbone):
    x = torch.randn(2, 3, 8, 8)
    c, a, again = backbone.tapped([3, "a", "a"])(x)
    assert c.shape == (2, 16)
    assert torch.equal(a, again)


def test_an_unknown_layer_suggests_the_nearest(cut):
    with pytest.raises(UnknownLayerError, match=r"layer3\.1"):
        cut("resnet18").tapped(["layer3.l"])


def test_pixels_are_normalized_before_the_first_stage(cut):
    backbone = cut("resnet18")
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    (found,) = backbone.tapped(["conv1"])(pixels)
    mean, std = (torch.tensor(v) for v in (backbone.preprocess.mean, backbone.preprocess.std))
    x = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, backbone.network.module.conv1(x).detach())


def test_shapes_and_costs_are_those_of_a_real_run(backbone, run_stages):
    costs = backbone.costs((3, 9, 9))
    real = [tuple(a.shape[1:]) for a in run_stages(backbone, torch.randn(2, 3, 9, 9))]
    assert [cost.output_shape for cost in costs] == real
    assert [cost.n_values for cost in costs] == [8 * 81, 8 * 16, 16]
    # Two operations for each product: positions x outputs x inputs x kernel.
    assert [cost.flops for cost in costs] == [
        2 * 81 * 8 * 3 * 9, 2 * 16 * 8 * 8 * 9, 2 * 16 * 16 * 8,
    ]  # fmt: skip


def test_an_impossible_shape_is_a_clear_error(backbone):
    with pytest.raises(BackboneError, match=r"9 x 9 pixels of 5 channels.*image_size"):
        backbone.costs((5, 9, 9))


def test_digest_depends_on_what_is_upstream_alone(cut):
    net = Chain()
    before = [cut(net).digest(k) for k in range(4)]
    assert len(set(before)) == 4
    with torch.no_grad():
        net.b.bias[0] += 1e-7
    after = [cut(net).digest(k) for k in range(4)]
    assert [x == y for x, y in zip(before, after, strict=True)] == [True, True, False, False]


def test_settings_of_a_part_kept_whole_are_in_the_digest(cut):
    class Scale(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, x):
            return x * self.by if x.sum() > 0 else x

    a, b = (cut(nn.Sequential(nn.Identity(), Scale(by))) for by in (2.0, 3.0))
    assert a.digest(1) != b.digest(1)


def test_all_stages_are_in_inference_mode_without_gradient(backbone):
    for stage in backbone.stages:
        assert not any(module.training for module in stage.module.modules())
        assert not any(p.requires_grad for p in stage.module.parameters())


def test_the_trunk_runs_without_a_graph_for_gradients(backbone):
    (out,) = backbone.tapped([3])(torch.randn(2, 3, 8, 8))
    assert not out.requires_grad


def test_pooling_knows_the_networks_layout(cut):
    assert cut("swin_t").pool("avg").channels_last
    assert not cut("resnet18").pool("avg").channels_last
    signal = nn.Sequential(nn.Conv1d(2, 4, 3))
    assert not cut(signal).pool("avg").tokens


class TestShapesWithoutFakeTensors:
    """PyTorch's mode of tensors without values is not public: without it, zeros are run."""

    @pytest.fixture
    def shape(self, monkeypatch):
        def forget():
            _stage._fake_tensors.cache_clear()

        forget()
        monkeypatch.setattr(_stage, "_QUICK", 0)
        yield lambda: [tuple(x.shape) for x in _stage.dry_run(nn.Conv2d(3, 4, 3), (2, 3, 9, 9))]
        forget()

    def test_with_it_nothing_is_computed(self, shape, monkeypatch):
        monkeypatch.setattr(torch, "zeros", None)
        assert shape() == [(2, 4, 7, 7)]

    def test_where_zeros_are_quick_they_are_run(self, monkeypatch):
        monkeypatch.setattr(_stage, "_fake_tensors", None)
        # 4 parameters and 2 x 3 x 8 x 8 numbers.
        monkeypatch.setattr(_stage, "_QUICK", 4 * 2 * 3 * 8 * 8)
        (output,) = _stage.dry_run(nn.Conv2d(3, 1, 1), (2, 3, 8, 8))
        assert output.shape == (2, 1, 8, 8)
        with pytest.raises(TypeError):
            _stage.dry_run(nn.Conv2d(3, 1, 1), (2, 3, 8, 9))

    @pytest.mark.parametrize("quick", [0, 1e13])
    def test_nothing_is_changed(self, quick, monkeypatch):
        class Changing(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("seen", torch.zeros(1))
                self.last = None

            def forward(self, x):
                self.seen += 1
                self.last = x
                return x + torch.rand(1)

        monkeypatch.setattr(_stage, "_QUICK", quick)
        module, state = Changing(), torch.get_rng_state()
        _stage.dry_run(module, (2, 3))
        assert (module.seen, module.last) == (0, None)
        assert torch.equal(torch.get_rng_state(), state)

    def test_missing(self, shape, monkeypatch, caplog):
        monkeypatch.setitem(sys.modules, "torch._subclasses.fake_tensor", None)
        with caplog.at_level(logging.DEBUG, logger="sklearn_featx"):
            assert [shape(), shape()] == [[(2, 4, 7, 7)]] * 2
        assert len(caplog.messages) == 1
        assert "running on zeros: ModuleNotFoundError" in caplog.text

    def test_of_no_use(self, shape, monkeypatch):
        monkeypatch.setattr("torch._subclasses.fake_tensor.FakeTensorMode", contextlib.nullcontext)
        assert shape() == [(2, 4, 7, 7)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_type_are_refused_with_the_way_out(dtype, cut):
    with pytest.raises(BackboneError, match=rf"are {dtype}: pass network\.float\(\)"):
        cut(Chain().to(dtype)).shapes(nn.Sequential(Chain().to(dtype)), (3, 8, 8))
