"""Own networks are known by what they compute: any change is seen, cached or not; nothing else."""

import sys
from types import MethodType, ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.backbones._digests import digest_module

IMAGES = np.random.default_rng(0).integers(0, 255, (3, 6, 6), dtype=np.uint8)

SOURCE = '''
"""A network of a user."""
import dataclasses
import functools
import torch
from torch import nn
from torch.nn import functional as F

SCALE = 2.0
TABLE = {"shift": [0.5]}
PLACES = torch.linspace(0, 1, 6)

def deepest(x):
    return x * 1.25

def helper(x):
    """Help."""
    return deepest(x) + 0.125

def with_default(x, by=0.75, *, power=1.0):
    return x * by + power

def make(by):
    def inner(x):
        return x + by
    return inner

closed = make(3.0)
bound = functools.partial(torch.mul, other=0.875)

def decorated(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x) * 4.0
    return wrapper

@decorated
def nested(x):
    return [part * 1.0625 for part in (x,)][0]

@dataclasses.dataclass
class Config:
    slope: float = 0.375

    @property
    def doubled(self):
        return self.slope * 2.0

class Base(nn.Module):
    factor = 1.5

    def before(self, x):
        return x * self.factor

    @staticmethod
    def still(x):
        return x + 0.0625

    @property
    def shift(self):
        return 0.03125

class Part(nn.Module):
    def forward(self, x):
        return x * 1.75

class Net(Base):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.part = Part()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.config = Config()
        self.activation = F.leaky_relu
        self.register_buffer("offset", torch.tensor([0.0078125]))
        self.eval()

    def forward(self, x):
        x = self.before(self.norm(self.a(x + PLACES)))
        x = self.activation(self.part(x)) * SCALE + TABLE["shift"][0]
        x = bound(closed(with_default(helper(nested(x)))))
        x = self.still(x) * self.config.slope + self.shift + self.config.doubled + self.offset
        return self.up(x).mean((2, 3))
'''

# The same, with a branch on values: torch.fx cannot follow it.
UNTRACED = SOURCE.replace(
    "        return self.up(x)",
    "        x = x if x.sum() > -9e9 else -x\n        return self.up(x)",
)

EDITS = {
    "method": ("return x * self.factor", "return x * self.factor + 1"),
    "method of a part": ("return x * 1.75", "return x * 1.5"),
    "helper": ("deepest(x) + 0.125", "deepest(x) + 0.25"),
    "helper of a helper": ("x * 1.25", "x * 1.125"),
    "decorator": ("function(x) * 4.0", "function(x) * 5.0"),
    "decorated function": ("part * 1.0625", "part * 2.0"),
    "module constant": ("SCALE = 2.0", "SCALE = 3.0"),
    "value in a module's table": ("[0.5]", "[0.25]"),
    "tensor of the module": ("linspace(0, 1, 6)", "linspace(0, 2, 6)"),
    "closure": ("make(3.0)", "make(-3.5)"),
    "default argument": ("by=0.75", "by=0.5"),
    "default of a keyword": ("power=1.0", "power=1.5"),
    "argument of a partial": ("other=0.875", "other=0.625"),
    "class attribute": ("factor = 1.5", "factor = 1.25"),
    "property": ("return 0.03125", "return 0.5"),
    "static method": ("x + 0.0625", "x + 0.5"),
    "field of a dataclass": ("slope: float = 0.375", "slope: float = 0.5"),
    "property of a dataclass": ("self.slope * 2.0", "self.slope * 3.0"),
    "activation": ("= F.leaky_relu", "= F.elu"),
    "setting of a layer": ("align_corners=True", "align_corners=False"),
    "buffer": ("[0.0078125]", "[0.5]"),
    "seed of the weights": ("manual_seed(0)", "manual_seed(1)"),
}
NOT_EDITS = {
    "comment": ("SCALE = 2.0", "# Twice.\n\n\nSCALE = 2.0  # twice"),
    "docstring": ('"""Help."""', '"""Help me.\n\n    More.\n    """'),
    "no docstring": ('    """Help."""\n', ""),
    "new docstring": ("def deepest(x):", 'def deepest(x):\n    """Be deep."""'),
}


def loaded(source, name="users_module"):
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, f"<{name}>", "exec"), vars(module))
    return module


@pytest.fixture(autouse=True)
def _quiet(recwarn):
    yield
    sys.modules.pop("users_module", None)


@pytest.fixture(params=[SOURCE, UNTRACED], ids=["traced", "untraced"])
def source(request):
    return request.param


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "rows")


def truth(net):
    with torch.no_grad():
        return net.eval()(torch.from_numpy(IMAGES).float()[:, None] / 255).numpy()


def features(net, cache):
    return PretrainedFeatureExtractor(net, cache=cache, n_jobs=1).transform(IMAGES)


def assert_right(net, cache):
    """What the network computes is what comes out: without a cache, and with one that lasts."""
    for kept in (None, cache):
        np.testing.assert_allclose(features(net, kept), truth(net), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("edit", EDITS)
def test_edited_code_is_seen(edit, source, cache):
    old, new = EDITS[edit]
    assert source.count(old) == 1
    net = loaded(source).Net()
    assert_right(net, cache)
    edited = loaded(source.replace(old, new)).Net()
    assert not np.allclose(truth(edited), truth(net), rtol=1e-4, atol=1e-5)
    assert_right(edited, cache)


@pytest.mark.parametrize("edit", NOT_EDITS)
def test_what_changes_nothing_is_found(edit, source, tmp_path, builds, trunk_rows):
    old, new = NOT_EDITS[edit]
    net = loaded(source).Net()
    before = features(net, str(tmp_path))
    again = loaded(source.replace(old, new), "moved_module").Net()
    np.testing.assert_array_equal(features(again, str(tmp_path)), before)
    assert builds == ["net"]
    assert sum(trunk_rows) == len(IMAGES)
    assert digest_module(net).unnamed == ()


def add_hook(net):
    net.norm.register_forward_hook(lambda module, args, output: output * 1.5)


def add_pre_hook(net):
    net.part.register_forward_pre_hook(lambda module, args: (args[0] - 1,))


def hook_root(net):
    net.register_forward_hook(lambda module, args, output: output + 1)


def hook_a_layer(net):
    net.a.register_forward_hook(lambda module, args, output: output + 1)


def patch_part(net):
    net.part.forward = lambda x: x * 0.1


def patch_layer(net):
    net.a.forward = MethodType(lambda self, x: nn.Conv2d.forward(self, x) * 2 + 1, net.a)


def patch_root(net):
    net.forward = MethodType(lambda self, x: type(self).forward(self, x) * 2, net)


def patch_method(net):
    net.before = lambda x: x * 9


def set_attribute(net):
    net.config.slope = 0.9


def set_setting(net):
    net.norm.eps = 0.5


def set_buffer(net):
    net.norm.running_mean += 0.5


def set_weight(net):
    net.a.weight.data[0, 0, 0, 0] += 0.25


class Twice(nn.Module):
    def forward(self, weight):
        return weight * 2


def parametrized(net):
    parametrize.register_parametrization(net.a, "weight", Twice())


def weight_norm(net):
    nn.utils.weight_norm(net.a)
    net.a.weight_g.data *= 2


def pruned(net):
    prune.l1_unstructured(net.a, "weight", amount=0.5)


MUTATIONS = [
    add_hook, add_pre_hook, hook_root, hook_a_layer, patch_part, patch_layer, patch_root,
    patch_method, set_attribute, set_setting, set_buffer, set_weight, parametrized, pruned,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("mutate", [*MUTATIONS, weight_norm])
def test_a_changed_object_is_seen(mutate, source, cache):
    net = loaded(source).Net()
    before = truth(net)
    assert_right(net, cache)
    mutate(net)
    assert not np.allclose(truth(net), before, rtol=1e-4, atol=1e-5)
    assert_right(net, cache)


def test_a_changed_global_is_seen(source, cache):
    module = loaded(source)
    net = module.Net()
    assert_right(net, cache)
    for name, value in [("SCALE", 5.0), ("helper", lambda x: x - 1), ("TABLE", {"shift": [9]})]:
        setattr(module, name, value)
        assert_right(net, cache)
    module.TABLE["shift"][0] = 11
    assert_right(net, cache)
    module.Net.before = lambda self, x: x + 10
    assert_right(net, cache)
