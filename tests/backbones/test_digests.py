"""Own networks are known by what they compute: any change is seen, cached or not; nothing else."""

import functools
import os
import subprocess
import sys
from types import MethodType, ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from sklearn_featx import FineTuneClassifier, ImageReader, PretrainedFeatureExtractor
from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones._digests import digest_factory, digest_module
from sklearn_featx.exceptions import StoreWarning, WeightsError

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
    for kept in (False, cache):
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


KEEPING = """
import functools
from torch import nn

LEVEL = 2.0

@functools.lru_cache
def level():
    return LEVEL

class Net(nn.Module):
    def forward(self, x):
        x = x.mean((1, 2, 3))[:, None] * level()
        return x if not {untraced} or x.sum() > -9e9 else -x
"""


@pytest.mark.parametrize("untraced", [False, True])
def test_results_that_lru_cache_keeps_are_those_that_run(untraced, cache):
    module = loaded(KEEPING.format(untraced=untraced))
    net = module.Net()
    expected = IMAGES.mean((1, 2))[:, None] / 255

    def check(level):
        np.testing.assert_allclose(truth(net), expected * level, rtol=1e-4)
        assert_right(net, cache)

    check(2)
    module.LEVEL = 5.0
    check(2)
    module.level.cache_clear()
    check(5)


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


SETTINGS_THAT_ARE_NOT_SHOWN = {
    "heads": [nn.MultiheadAttention(8, heads) for heads in (2, 4)],
    "order of norms": [nn.TransformerEncoderLayer(8, 2, norm_first=first) for first in (0, 1)],
    "align_corners": [nn.Upsample(4, mode="bilinear", align_corners=on) for on in (False, True)],
}


@pytest.mark.parametrize("kind", SETTINGS_THAT_ARE_NOT_SHOWN)
def test_settings_that_a_layer_does_not_show(kind):
    one, other = SETTINGS_THAT_ARE_NOT_SHOWN[kind]
    other.load_state_dict(one.state_dict())
    assert digest_module(one).text != digest_module(other).text


class Two(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.c = getattr(self, shared)

    def forward(self, x):
        return self.c(self.b(self.a(x)))


def test_which_part_is_shared_counts():
    one, other = Two("a"), Two("b")
    other.a.load_state_dict(one.a.state_dict())
    other.b.load_state_dict(one.b.state_dict())
    assert digest_module(one).text != digest_module(other).text
    assert get_backbone(one).digest(1) != get_backbone(other).digest(1)


class Named(nn.Module):
    """The same operations on the same weights; only what they are called differs."""

    def __init__(self, names):
        super().__init__()
        torch.manual_seed(0)
        self.names = names
        for name in names:
            self.add_module(name, nn.Linear(3, 3))

    def forward(self, x):
        for name in self.names:
            x = getattr(self, name)(x).relu()
        return x


def test_a_layer_is_known_by_where_it_is_not_by_its_name(tmp_path):
    for names in ("ab", "ba"):
        net = Named(names)
        extractor = PretrainedFeatureExtractor(
            net, layer="a", reader=ImageReader(image_shape=(1, -1)), cache=str(tmp_path)
        )
        x = np.ones((2, 3), np.float32)
        with torch.no_grad():
            expected = net.a(torch.ones(2, 3) if names == "ab" else net.b(torch.ones(2, 3)).relu())
        found = extractor.fit(x).transform(x)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_known_by_its_code_and_its_order():
    scripts = [
        torch.jit.script(nn.Sequential(*(Scaled(by) for by in numbers)).eval())
        for numbers in ([1.0, 2.0], [2.0, 1.0], [1.0, 2.0])
    ]
    first, other, again = (digest_module(script) for script in scripts)
    assert first == again
    assert first.text != other.text
    assert first.unnamed == ()


class Scaled(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x * self.by + self.by**2


def test_what_was_compiled_is_the_network_that_was_given(builds):
    net = Named("ab")
    assert get_backbone(net) is get_backbone(torch.compile(net))
    assert builds == ["named"]


# Factories


def network(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 6), nn.Flatten())


FACTORY = """
from torch import nn
WIDTH = {width}
def parts():
    return [nn.Conv2d(1, WIDTH, 6), nn.Flatten()]
def build(*extra):
    return nn.Sequential(*parts())
"""


def test_a_factory_that_reads_a_global(cache, builds):
    module = loaded(FACTORY.format(width=4))
    for width in (4, 5, 5):
        module.WIDTH = width
        assert features(module.build, cache).shape == (3, width)
        assert features(module.build, False).shape == (3, width)
    assert builds == ["sequential"] * 2
    again = loaded(FACTORY.format(width=5), "another_module")
    features(again.build, cache)
    assert builds == ["sequential"] * 2


def test_a_factory_is_known_by_its_arguments(builds):
    widths = [features(functools.partial(network, width=w), False).shape[1] for w in (2, 3, 2)]
    assert widths == [2, 3, 2]
    assert builds == ["sequential"] * 2


def test_a_factory_that_reads_a_file_is_called_each_time(tmp_path, cache):
    path = tmp_path / "weights.pt"

    def build():
        net = network()
        net.load_state_dict(torch.load(path, weights_only=True))
        return net

    for seed in (0, 1):
        torch.manual_seed(seed)
        net = network()
        torch.save(net.state_dict(), path)
        for kept in (False, cache):
            np.testing.assert_allclose(features(build, kept), truth(net), rtol=1e-4, atol=1e-5)
    assert digest_factory(build).unnamed
    assert digest_factory(functools.partial(network, str(path))).unnamed
    assert not digest_factory(functools.partial(network, "no file")).unnamed


def test_random_weights_of_a_factory_are_the_same_in_every_call():
    before = torch.get_rng_state()
    first = get_backbone(lambda: network(3))
    torch.rand(1)
    again = get_backbone(lambda: (network(3), 1)[0])
    assert first is not again
    assert torch.equal(first.network.module[0].weight, again.network.module[0].weight)
    torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), before)


# What cannot be named


class Uncertain(nn.Module):
    """Reads a generator that runs on: what it computes cannot be known before."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = x.mean((1, 2, 3))[:, None] * self.scale
        return x if x.sum() > -9e9 and eval("True") else -x


def test_what_cannot_be_named_is_not_remembered(tmp_path, builds, trunk_rows):
    net = Uncertain()
    extractor = PretrainedFeatureExtractor(net, cache=str(tmp_path), n_jobs=1)
    for _ in range(2):
        with pytest.warns(
            StoreWarning, match="not cached, the network's computation has no digest"
        ):
            features = extractor.transform(IMAGES)
        np.testing.assert_allclose(features, truth(net), rtol=1e-4)
    assert sum(trunk_rows) == 2 * len(IMAGES)
    assert len(builds) == 2


def test_what_the_trace_shows_is_remembered_whatever_else_an_object_holds(tmp_path, trunk_rows):
    net = Named("ab")
    net.progress = (i for i in [1])
    del net.progress
    net.reader = open  # compiled, of Python
    net.places = range(3)
    assert not digest_module(net).unnamed
    net.table = [memoryview(b"no name")]
    assert digest_module(net).unnamed


def test_a_fitted_estimator_refuses_its_network_when_the_code_has_changed(digits):
    module = loaded(UNTRACED)
    images, labels = digits
    clf = FineTuneClassifier(module.Net(), unfreeze_depth=0, C=1.0, cache=False, image_size=6)
    clf.fit(images[:12], labels[:12])
    clf.predict(images[:2])
    module.SCALE = 4.0
    with pytest.raises(WeightsError, match="not the one that this estimator was fitted on"):
        clf.predict(images[:2])
    module.SCALE = 2.0
    clf.predict(images[:2])


IN_A_PROCESS = """
import sys, numpy as np
sys.path.insert(0, {folder!r})
from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.engines._torch import TorchEngine
from sklearn_featx.backbones._digests import digest_factory, digest_module
import {module} as module
passes = []
run = TorchEngine.run
TorchEngine.run = lambda engine, batch: passes.append(len(batch)) or run(engine, batch)
images = np.random.default_rng(0).integers(0, 255, (3, 6, 6), dtype=np.uint8)
for spec in (module.Net(), module.Net):
    PretrainedFeatureExtractor(spec, cache={cache!r}, n_jobs=1).transform(images)
print(passes, digest_module(module.Net()).text, digest_factory(module.Net).text)
"""


@pytest.mark.slow
def test_another_process_finds_the_rows_of_the_same_code_alone(source, tmp_path):
    old, new = EDITS["helper of a helper"]
    outputs = []
    for i, text in enumerate([source, source + "\n# The end.\n", source.replace(old, new)]):
        (tmp_path / f"module_{i}.py").write_text(text)
        program = IN_A_PROCESS.format(
            folder=str(tmp_path), module=f"module_{i}", cache=str(tmp_path / "rows")
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={**os.environ, "PYTHONHASHSEED": str(i)},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(done.stdout.partition("]"))
    (first, _, names), (second, _, same), (third, _, others) = outputs
    assert (first, second, third) == ("[3", "[", "[3")
    assert names == same != others


class ReadsTheTableOfModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3)) * sys.modules["settings_of_a_user"].factor


@pytest.mark.parametrize("cache", [True, False])
def test_a_module_that_is_found_by_its_name(cache, monkeypatch):
    settings = ModuleType("settings_of_a_user")
    settings.factor = 1.0
    monkeypatch.setitem(sys.modules, "settings_of_a_user", settings)
    network = ReadsTheTableOfModules()
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    before = PretrainedFeatureExtractor(network, cache=cache).fit_transform(images)
    settings.factor = 3.0
    after = PretrainedFeatureExtractor(network, cache=cache).fit_transform(images)
    np.testing.assert_allclose(after, 3 * before, rtol=1e-5)
