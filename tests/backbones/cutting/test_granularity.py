"""What is a stage: the rules, on small trees of modules."""

import pytest
import torch
from torch import nn

from sklearn_featx.backbones.cutting._granularity import blocks, groupings, has_weights, top_level
from sklearn_featx.exceptions import UnknownLayerError


def linear():
    return nn.Linear(4, 4)


class Tree(nn.Module):
    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x


def test_parts_without_weights_are_no_stages():
    net = Tree(a=linear(), act=nn.ReLU(), norm=nn.LayerNorm(4), b=linear(), drop=nn.Dropout())
    assert top_level(net) == ["a", "b"]


def test_a_network_whose_weights_are_in_one_child_is_opened():
    assert top_level(Tree(net=Tree(a=linear(), b=linear()))) == ["net.a", "net.b"]


def test_containers_are_opened_on_request():
    net = Tree(stem=linear(), blocks=nn.Sequential(linear(), linear()))
    assert top_level(net) == ["stem", "blocks"]
    assert top_level(net, ["blocks"]) == ["stem", "blocks.0", "blocks.1"]


def test_blocks_open_containers_to_the_first_module():
    layer = nn.Sequential(Tree(a=linear(), b=linear()), Tree(a=linear(), b=linear()))
    assert blocks(Tree(stem=linear(), layer=layer), ["stem", "layer"]) == [
        "stem", "layer.0", "layer.1",
    ]  # fmt: skip


def test_groupings_hold_parameter_names():
    stages, _ = groupings(Tree(a=linear(), b=linear()))
    assert stages == {"a": ("a.weight", "a.bias"), "b": ("b.weight", "b.bias")}


def test_norms_alone_are_no_weights():
    net = Tree(norm=nn.BatchNorm1d(4), a=linear())
    assert not has_weights(net, ["norm.weight", "norm.bias"])
    assert has_weights(net, ["norm.weight", "a.weight"])


def names(backbone):
    return [stage.name for stage in backbone.stages]


def test_stages_are_in_order_of_use_not_of_definition(cut):
    class Reversed(Tree):
        def forward(self, x):
            return self.a(self.b(x))

    assert names(cut(Reversed(a=linear(), b=linear()))) == ["b", "a"]


def test_stages_that_no_cut_separates_are_one(cut):
    class Parallel(Tree):
        def forward(self, x):
            return self.c(self.a(x) + self.b(x))

    assert names(cut(Parallel(a=linear(), b=linear(), c=linear()))) == ["a+b", "c"]


class Tied(Tree):
    """Its second and third layer have one weight."""

    def __init__(self):
        super().__init__(a=linear(), b=linear(), c=linear(), d=linear())
        self.c.weight = self.b.weight


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [("stage", ["a", "b+c", "d"]), (["a", "c"], ["a", "c", "output"])],
)
def test_a_shared_parameter_is_never_in_two_stages(granularity, expected, cut, assert_exact):
    backbone = cut(Tied(), granularity)
    assert names(backbone) == expected
    assert_exact(backbone, torch.randn(2, 4))


def test_a_module_used_twice_is_in_one_stage(cut, assert_exact):
    class Twice(Tree):
        def forward(self, x):
            return self.c(self.a(self.b(self.a(x))))

    backbone = cut(Twice(a=linear(), b=linear(), c=linear()))
    assert len(backbone.stages) == 2
    assert_exact(backbone, torch.randn(2, 4))


def test_ends_by_name_leave_the_rest_as_the_last_stage(cut, assert_exact):
    backbone = cut("resnet18", ["layer1", "layer3.0"])
    assert names(backbone) == ["layer1", "layer3.0", "output"]
    assert_exact(backbone, torch.randn(2, 3, 32, 32))


def test_named_ends_may_be_in_any_order(cut, assert_exact):
    backbone = cut("resnet18", ["layer3.0", "layer1"])
    assert names(backbone) == ["layer1", "layer3.0", "output"]
    assert_exact(backbone, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("last", ["layer4", "fc"])
def test_what_has_no_parameters_joins_the_last_named_stage(last, cut, assert_exact):
    backbone = cut("resnet18", ["layer2", last])
    assert names(backbone) == ["layer2", last]
    assert all(any(True for _ in stage.module.parameters()) for stage in backbone.stages)
    assert_exact(backbone, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (["layer1", "layer1"], "granularity: 'layer1' is named twice"),
        (["bn1", "relu", "layer1"], "'relu' ends no stage.*between 'bn1' and it"),
        (["layer4", "avgpool"], "'avgpool' ends no stage.*between 'layer4' and it"),
    ],
)
def test_an_end_of_no_stage_is_named(ends, message, cut):
    with pytest.raises(UnknownLayerError, match=message):
        cut("resnet18", ends)


def test_an_unknown_end_suggests_the_nearest(cut):
    with pytest.raises(UnknownLayerError, match="'layer1'"):
        cut("resnet18", ["layr1"])


def test_an_end_inside_a_shortcut_names_places_near_it(cut):
    with pytest.raises(UnknownLayerError, match=r"shortcut passes it by.*maxpool"):
        cut("resnet18", ["layer1.0.conv1"])
