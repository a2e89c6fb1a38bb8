"""Own modules: copied, never changed, told apart by content in every process."""

import copy
import functools
import importlib
import os
import subprocess
import sys
import threading
from types import FunctionType

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from sklearn_featx.backbones._digests import digest_module
from sklearn_featx.exceptions import BackboneError


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return F.relu(self.b(F.relu(self.norm(self.a(x))))) * 0.5


def test_the_users_module_stays_as_it_was(cut):
    net = Small().train()
    net.a.weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    backbone = cut(net)
    with torch.no_grad():
        backbone.tapped(["a"])(torch.randn(2, 1, 8, 8))
    nn.Sequential(*backbone.tail(0)).train()(torch.randn(2, 1, 8, 8))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True, True, True]
    own = {id(p) for p in net.parameters()}
    assert own.isdisjoint(id(p) for p in backbone.network.module.parameters())
    assert not net._forward_hooks


def test_grayscale_networks_see_grayscale_images(cut):
    assert cut(Small()).preprocess.channels == 1
    assert cut(nn.Conv2d(3, 2, 1)).preprocess.channels == 3


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (lambda: nn.Linear(4, 3), (2, 4)),
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (2, 4)),
        (lambda: nn.Sequential(nn.Linear(4, 3)), (2, 4)),
        (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), (2, 4)),
        (lambda: nn.Conv2d(3, 2, 3), (2, 3, 8, 8)),
        (nn.Identity, (2, 4)),
        (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), (2, 3, 2)),
        (lambda: nn.MultiheadAttention(4, 2), None),
    ],
    ids=[
        "linear",
        "sequential",
        "one stage",
        "in place",
        "conv",
        "identity",
        "no parameters",
        "mha",
    ],
)
def test_odd_roots(net, shape, cut, assert_exact):
    module = net()
    if shape is None:
        with pytest.raises(BackboneError, match="takes one tensor"):
            cut(module)
        return
    backbone = cut(module)
    assert all(stage.name for stage in backbone.stages)
    assert_exact(backbone, torch.randn(shape))


def test_parameters_that_no_operation_uses_belong_to_a_stage(cut, assert_exact):
    class WithUnused(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.mask_token = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return self.b(self.a(x))

    backbone = cut(WithUnused())
    assert [stage.name for stage in backbone.stages] == ["a", "b"]
    assert_exact(backbone, torch.randn(2, 4))


def test_constants_and_optional_arguments(cut, assert_exact):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.plain = torch.arange(4.0)

        def forward(self, x, mask=None, *, scale: float = 2.0):
            x = self.a(x) + self.plain + torch.ones(4)
            return self.b(x if mask is None else x * mask) * scale

    backbone = cut(Odd())
    assert len(backbone.stages) == 2
    assert_exact(backbone, torch.randn(3, 4))


def test_a_tuple_of_results_is_a_clear_error(cut):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x), x

    with pytest.raises(BackboneError, match=r"returns a tuple.*Wrap it"):
        cut(Pair())


def test_a_module_that_cannot_be_copied_asks_for_a_function(cut):
    class Locked(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.lock = threading.Lock()

    with pytest.raises(BackboneError, match="Pass a function"):
        cut(Locked())
    assert len(cut(Locked).stages) == 1


def test_a_factory_must_return_a_module(cut):
    with pytest.raises(BackboneError, match="returned int"):
        cut(lambda: 3)


def perturb_weight(net):
    with torch.no_grad():
        net.b.weight.view(torch.int32).view(-1)[3] += 1


def perturb_buffer(net):
    net.norm.running_var[1] += 1e-6


def perturb_setting(net):
    net.norm.eps = 1.1e-5


class OtherConstant(Small):
    def forward(self, x):
        return F.relu(self.b(F.relu(self.norm(self.a(x))))) * 0.25


@pytest.mark.parametrize("change", [perturb_weight, perturb_buffer, perturb_setting])
def test_one_change_changes_the_digest(change, cut):
    net = Small()
    before, backbone = digest_module(net), cut(net).digest(2)
    assert digest_module(copy.deepcopy(net)) == before
    change(net)
    assert digest_module(net) != before
    assert cut(net).digest(2) != backbone


def test_a_constant_in_forward_changes_the_digest(cut):
    a, b = Small(), OtherConstant()
    b.load_state_dict(a.state_dict())
    assert digest_module(a) != digest_module(b)
    assert cut(a).digest(2) != cut(b).digest(2)
    # The first stage has the same operations and weights in both.
    assert cut(a).digest(1) == cut(b).digest(1)


def test_what_code_of_a_library_is_compiled_to_does_not_count(monkeypatch):
    def forward(self, x):
        return nn.LayerNorm.forward(self, x)

    norm = LayerNorm2d(4)
    before = digest_module(norm)
    assert digest_module(LayerNorm2d(4, eps=1e-3)) != before
    monkeypatch.setattr(LayerNorm2d, "forward", functools.wraps(LayerNorm2d.forward)(forward))
    assert digest_module(norm) != before, "a method that a user put in its place counts"
    # As another version of Python would compile the library's own.
    theirs = FunctionType(forward.__code__, vars(sys.modules[LayerNorm2d.__module__]))
    monkeypatch.setattr(LayerNorm2d, "forward", theirs)
    assert digest_module(norm) == before


def test_modes_and_gradients_do_not_change_the_digest():
    net = Small()
    before = digest_module(net)
    assert digest_module(net.eval().requires_grad_(False)) == before


OWN_NET = """
import functools
import torch
from torch import nn
from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones._digests import digest_module

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(4, 4)
        self.activation = functools.partial(torch.clamp, min=0.0)
        self.names = {"x", "y", "z"}
        self.table = {"k": torch.ones(2)}

    def forward(self, x):
        return self.activation(self.a(x)) * 0.5

def digests():
    return f"{digest_module(Net()).text} {get_backbone(Net()).digest(1)}"
"""


def test_digests_are_equal_in_every_process(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(OWN_NET)
    monkeypatch.syspath_prepend(tmp_path)
    here = importlib.import_module("own_net").digests()
    there = subprocess.run(
        [sys.executable, "-c", "import own_net; print(own_net.digests())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert here == there
    assert here.count("b2-1:") == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit:")
@pytest.mark.parametrize("wrap", [lambda part: part, nn.Sequential], ids=["whole", "layer"])
def test_torchscript_is_refused(cut, wrap):
    with pytest.raises(BackboneError, match=r"is TorchScript, .* Pass the nn\.Module") as error:
        cut(wrap(torch.jit.script(Small().eval())))
    assert "\n" not in str(error.value)
