"""What torch.fx is shown, and what it makes of it."""

import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.ops import stochastic_depth

from sklearn_featx.backbones.cutting._chain import Chain
from sklearn_featx.backbones.cutting._tracing import UntraceableError, trace
from sklearn_featx.exceptions import BackboneError


class Net(nn.Module):
    """A body from a function, so that each test shows its forward."""

    def __init__(self, forward, **modules):
        super().__init__()
        self._forward_function = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self._forward_function(self, x)


def run(found, network, x):
    return torch.fx.GraphModule(network, found.graph)(x)


def test_nodes_are_named_by_module_and_operation():
    net = Net(lambda s, x: F.relu(s.a(x)) + 1, a=nn.Linear(2, 2))
    assert list(trace(net).names.values())[1:4] == ["a", "relu", "add"]


def test_each_mode_has_its_own_graph_and_the_network_keeps_its_mode():
    net = Net(lambda s, x: F.dropout(x, 0.5, training=s.training))
    net.train()
    x = torch.ones(4, 50)
    assert torch.equal(run(trace(net), net, x), x)
    assert (run(trace(net, train=True), net, x) == 0).any()
    assert net.training


def test_modes_of_children_are_put_back_one_by_one():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    net[1].eval()
    trace(net)
    assert [m.training for m in net.modules()] == [True, True, False]


def test_optional_arguments_are_pinned_to_their_defaults():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x, mask=None, scale=2.0):
            if mask is not None:
                x = x * mask
            return self.a(x) * scale

    net = Masked()
    found = trace(net)
    assert len(found.graph.find_nodes(op="placeholder")) == 1
    x = torch.randn(2, 3)
    assert torch.equal(run(found, net, x), net(x))


def test_asserts_and_unused_shape_reads_are_dropped():
    def forward(s, x):
        _, c = x.shape
        torch._assert(c == 3, "three channels")
        return s.a(x)

    net = Net(forward, a=nn.Linear(3, 3))
    assert [n.op for n in trace(net).graph.nodes] == ["placeholder", "call_module", "output"]


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x


def test_a_part_that_cannot_be_followed_stays_whole():
    net = nn.Sequential(nn.Linear(3, 3), Branches(), nn.Linear(3, 3))
    found = trace(net)
    assert found.opaque == ("Branches",)
    x = torch.randn(2, 3)
    assert torch.equal(run(found, net, x), net(x))


def test_a_network_whose_own_forward_branches_is_untraceable():
    with pytest.raises(UntraceableError, match="depends on its input, line"):
        trace(Branches())


@pytest.mark.parametrize(
    "forget",
    [
        lambda x: x.add_(1),
        lambda x: F.relu(x, inplace=True),
        lambda x: torch.add(x, 1, out=x),
        nn.ReLU(inplace=True),
    ],
)
def test_changes_in_place_whose_result_is_dropped_are_not_lost(forget):
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.forget = forget

        def forward(self, x):
            x = x * 1
            self.forget(x)
            return x * 2

    net = nn.Sequential(nn.Identity(), Forgetful())
    x = torch.randn(2, 3)
    assert torch.equal(run(trace(net), net, x.clone()), net(x.clone()))
    assert not torch.equal(net(x.clone()), x * 2)


@pytest.mark.parametrize(
    ("forward", "kind"),
    [
        (lambda s, x: (x, x), "tuple"),
        (lambda s, x: {"out": x}, "dict"),
        (lambda s, x: [x], "list"),
    ],
)
def test_more_than_one_result_is_a_clear_error(forward, kind):
    with pytest.raises(BackboneError, match=f"returns a {kind}"):
        trace(Net(forward))


def test_more_than_one_input_is_a_clear_error():
    with pytest.raises(BackboneError, match="takes 2 inputs"):
        trace(nn.Bilinear(2, 2, 2))


def chain_of(net):
    return Chain(net, trace(net))


def crossing_names(net):
    chain = chain_of(net)
    return [chain.trace.names[chain.crossing[i]] for i in sorted(chain.crossing)]


def test_a_shortcut_forbids_the_cut_beside_it():
    net = Net(lambda s, x: s.c(s.a(x) + s.b(s.a(x) * 2)), **{k: nn.Linear(2, 2) for k in "abc"})
    assert crossing_names(net) == ["add", "c"]


def test_constants_do_not_count_as_crossing():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 2))
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            doubled = self.token * 2
            return self.b(self.a(x) + doubled) + doubled

    assert "a" in crossing_names(Token())


def test_a_tuple_is_no_split_point():
    net = Net(lambda s, x: (lambda p: p[0] + p[1])(torch.chunk(s.a(x), 2, 1)), a=nn.Linear(4, 4))
    assert crossing_names(net) == ["a", "add"]


def test_a_module_called_twice_has_two_names():
    net = Net(lambda s, x: s.a(s.a(x)), a=nn.Linear(2, 2))
    assert list(trace(net).names.values())[1:3] == ["a", "a_1"]


class Inner(nn.Module):
    """A layer, functions and constants below the network's own forward."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.shift = nn.Parameter(torch.zeros(2))
        self.register_buffer("mask", torch.ones(2))

    def forward(self, x):
        x = F.layer_norm(F.relu(self.a(x)), (2,))
        return torch.cat([x + self.shift, x * self.mask], dim=1)[:, :2] + self.shift


def test_functions_are_named_by_the_module_that_calls_them():
    names = trace(nn.Sequential(Inner(), Inner())).names.values()
    inner = ["a", "relu", "layer_norm", "add", "mul", "cat", "getitem", "add_1"]
    operations = [name for name in names if "shift" not in name and "mask" not in name]
    below = [f"{i}.{name}" for i in range(2) for name in inner]
    assert operations == ["input", *below, "output"]


def test_parameters_and_buffers_are_found_by_one_walk_over_the_network(monkeypatch):
    network = nn.Sequential(Inner(), Inner())
    walks = []
    original = network.named_parameters
    monkeypatch.setattr(network, "named_parameters", lambda *a: walks.append(a) or original(*a))
    found = trace(network)
    monkeypatch.undo()
    targets = {node.target for node in found.graph.find_nodes(op="get_attr")}
    assert targets == {"0.shift", "0.mask", "1.shift", "1.mask"}
    assert len(walks) == 1
    x = torch.randn(3, 2)
    assert torch.equal(run(found, network, x), network(x))


def test_random_modules_of_torchvision_stay_whole_and_its_blocks_are_opened():
    net = nn.Sequential(
        torchvision.ops.StochasticDepth(0.5, "row"), torchvision.ops.MLP(2, [3], inplace=False)
    )
    for train in (False, True):
        modules = trace(net, train=train).graph.find_nodes(op="call_module")
        assert [node.target for node in modules] == ["0", "1.0", "1.1"]


def double_if_small(x):
    return x * 2 if x.sum() < 10 else x


def test_functions_can_be_kept_whole():
    net = Net(lambda s, x: double_if_small(x) + 1)
    names = list(trace(net, autowrap_functions=[double_if_small]).names.values())
    assert names[1:] == ["double_if_small", "add", "output"]
    with pytest.raises(UntraceableError, match=r"^a condition, loop or number depends"):
        trace(net)


def test_torchvision_may_first_be_imported_by_a_forward(monkeypatch):
    def forward(net, x):
        from torchvision.ops import box_area

        return box_area(x)

    wanted = [str(node) for node in trace(Net(forward)).graph.nodes]
    assert wanted[1] == "box_area"
    for name in ("torchvision", "torchvision.ops"):
        monkeypatch.delitem(sys.modules, name)
    assert [str(node) for node in trace(Net(forward)).graph.nodes] == wanted


def test_random_functions_of_torchvision_stay_whole():
    net = Net(lambda s, x: stochastic_depth(x, 0.5, "row", s.training))
    assert "stochastic_depth" in trace(net, train=True).names.values()


def test_the_innermost_part_is_the_one_that_stays_whole():
    net = nn.Sequential(nn.Sequential(Net(lambda s, x: F.relu(x, inplace=True) * 0 + x)))
    assert trace(net).opaque == ()

    class Forgetful(nn.Module):
        def forward(self, x):
            y = x * 1
            y.add_(1)
            return x

    found = trace(nn.Sequential(nn.Sequential(Forgetful(), nn.ReLU())))
    assert [name.rpartition(".")[2] for name in found.opaque] == ["Forgetful"]
    assert "0.1" in found.names.values()


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (
            Net(lambda s, x: (x.flatten(1).add_(1), x * 2)[1]),
            UntraceableError,
            "'add_' changes its input in place",
        ),
        (
            nn.Bilinear(2, 2, 2),
            BackboneError,
            "backbone: the network takes 2 inputs ['input1', 'input2'], and a backbone takes one "
            "tensor. Wrap it in a module that takes one.",
        ),
        (
            Net(lambda s, x: (x, x)),
            BackboneError,
            "backbone: the network returns a tuple, and a backbone returns one tensor. Wrap it in "
            "a module that returns the wanted one.",
        ),
        (
            Net(lambda s, x: s.token + 1, token=nn.Parameter(torch.zeros(2))),
            BackboneError,
            "backbone: the network computes its result from 0 inputs [], and a backbone computes "
            "it from one tensor.",
        ),
    ],
)
def test_what_cannot_be_traced_is_said_in_full(network, error, message):
    with pytest.raises(error) as caught:
        trace(network)
    assert str(caught.value) == message


class TestValuesThatWereChangedInPlace:
    """What reads a value after its change depends on the change, under every name."""

    def check(self, forward):
        net = Net(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1)).eval()
        x = torch.rand(2, 3, 4, 4) - 0.5
        with torch.no_grad():
            expected = net(x)
            found = trace(net)
            torch.testing.assert_close(run(found, net, x), expected)
        return found

    def test_by_the_former_name(self):
        def forward(s, x):
            y = s.a(x)
            z = F.relu(y, inplace=True)
            return s.b(y) + z

        found = self.check(forward)
        (b,) = (node for node, name in found.names.items() if name == "b")
        (relu,) = (node for node, name in found.names.items() if name == "relu")
        assert b.all_input_nodes == [relu]

    def test_before_the_change_the_former_value_is_read(self):
        def forward(s, x):
            y = s.a(x)
            w = s.b(y)
            y *= 2
            return w + y

        found = self.check(forward)
        (b,) = (node for node, name in found.names.items() if name == "b")
        assert found.names[b.all_input_nodes[0]] == "a"

    def test_through_a_view(self):
        def forward(s, x):
            y = s.a(x)
            z = y.flatten(1).relu_()
            return s.b(y) + z.sum()

        with pytest.raises(UntraceableError, match="in place"):
            trace(Net(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1)))
