"""Networks that torch.fx cannot follow: cut where their parts are seen to run in order."""

import copy

import pytest
import torch
from torch import nn

from sklearn_featx.backbones import get_backbone
from sklearn_featx.exceptions import CutWarning, UnknownLayerError

# A warning comes when a network is cut, not when it is remembered.
pytestmark = pytest.mark.usefixtures("fresh")


class Branching(nn.Module):
    """Its forward asks for a value, which torch.fx cannot answer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Conv2d(4, 4, 3)
        self.top = nn.Conv2d(4, 2, 1)

    def check(self, x):
        if bool(torch.isnan(x).any()):
            raise ValueError("not a number")

    def forward(self, x):
        self.check(x)
        return self.top(self.body(self.act(self.stem(x))))


class Residual(Branching):
    def forward(self, x):
        self.check(x)
        x = self.act(self.stem(x))
        return self.top(x + nn.functional.pad(self.body(x), (1, 1, 1, 1)))


class Encoder(Branching):
    """A list of layers, called with constants; and a pooler whose result is not returned."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3) for _ in range(2))
        self.pooler = nn.Linear(4, 4)

    def forward(self, x):
        self.check(x)
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        self.pooler(x.mean((2, 3)))
        return x


def fallback(net):
    with pytest.warns(CutWarning, match="cannot be traced"):
        return get_backbone(net)


def names(backbone):
    return [stage.name for stage in backbone.stages]


def test_parts_in_order_are_stages_and_exact(assert_exact):
    backbone = fallback(Branching())
    assert names(backbone) == ["stem", "body", "top"]
    assert_exact(backbone, torch.randn(2, 3, 9, 9))


def test_a_shortcut_makes_one_stage_of_it(assert_exact):
    backbone = fallback(Residual())
    assert names(backbone) == ["network"]
    assert_exact(backbone, torch.randn(2, 3, 9, 9))


def test_calls_whose_result_is_not_needed_are_left_out_and_their_parameters_kept(assert_exact):
    backbone = fallback(Encoder())
    assert_exact(backbone, torch.randn(2, 3, 9, 9))


def test_layers_are_the_names_and_numbers_of_stages():
    net = Branching().eval()
    backbone = fallback(net)
    x = torch.randn(2, 3, 9, 9)
    stem, top = backbone.tapped(["stem", 3])(x)
    with torch.no_grad():
        assert torch.equal(stem, net.act(net.stem(x)))
        assert torch.equal(top, net(x))
    with pytest.raises(UnknownLayerError, match="'body'"):
        backbone.tapped(["bodi"])


def test_the_module_is_not_changed_and_keeps_no_hooks():
    net = Branching().train()
    before = copy.deepcopy(net.state_dict())
    backbone = fallback(net)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert net.training
    assert not any(m._forward_hooks for m in backbone.network.module.modules())


def test_a_part_called_with_a_number_that_could_depend_on_the_image_is_not_cut():
    class Sized(Branching):
        def __init__(self):
            super().__init__()
            self.up = Up()

        def forward(self, x):
            self.check(x)
            return self.up(self.stem(x), x.shape[-1])

    assert names(fallback(Sized())) == ["network"]


class Up(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x, size):
        return nn.functional.interpolate(self.conv(x), (size, size))


def test_weights_shared_by_two_parts_make_one_stage():
    class Shared(Branching):
        def __init__(self):
            super().__init__()
            self.body2 = nn.Conv2d(4, 4, 3)
            self.body2.weight = self.body.weight

        def forward(self, x):
            self.check(x)
            return self.top(self.body2(self.body(self.stem(x))))

    assert names(fallback(Shared())) == ["network"]


def test_constants_change_the_digest():
    class Scaled(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.conv(x) * self.by if x.sum() > 0 else x

    class Net(Branching):
        def __init__(self, by):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.body = nn.Conv2d(3, 4, 3), Scaled(by)

        def forward(self, x):
            self.check(x)
            return self.body(self.stem(x))

    torch.manual_seed(0)
    a = fallback(Net(1.0))
    torch.manual_seed(0)
    b = fallback(Net(2.0))
    assert names(a) == names(b) != ["network"]
    assert a.digest(1) == b.digest(1)
    assert a.digest(len(a.stages)) != b.digest(len(b.stages))


class Reading(nn.Module):
    """Has code that needs values, not only shapes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        if x.abs().max().item() > 1e6:
            raise ValueError("not normalized")
        kept = x[x.sum((1, 2, 3)) > -1e6]
        return self.head(self.body(kept).mean((2, 3)))


def test_shapes_of_a_network_that_reads_values():
    backbone = fallback(Reading())
    assert backbone.shapes(backbone.tapped([len(backbone.stages)]), (3, 9, 9)) == [(2,)]
