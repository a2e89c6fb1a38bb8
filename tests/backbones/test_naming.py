"""Names of values: what people reported about fingerprints of Python objects, tried on ours."""

import functools
import math
import sys
import weakref
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from sklearn_featx.backbones._naming import Namer


def name(value):
    namer = Namer()
    digest = namer.name(value)
    assert namer.unnamed == []
    return digest


def defined(source, module="__main__"):
    space = {"__name__": module, "torch": torch, "F": F, "np": np, "functools": functools}
    exec(source, space)
    return space


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f = lambda x: x + 1", "f = lambda x: x + 1.0"),
        ("f = lambda x: x + 1", "f = lambda x: x + True"),
        ("f = lambda x: x + 0.0", "f = lambda x: x + -0.0"),
        ("f = lambda x: x in {1, 2}", "f = lambda x: x in {1, 3}"),
        ("t = np.zeros(3)\ndef f(x): return x + t", "t = np.ones(3)\ndef f(x): return x + t"),
        ("def f(x): return g(x)\ndef g(x): return x", "def f(x): return g(x)\ndef g(x): return -x"),
        (
            "def f(n): return g(n)\ndef g(n): return f(n - 1) if n else 1",
            "def f(n): return g(n)\ndef g(n): return f(n - 1) if n else 2",
        ),
        ("def f(x, *, a): return x", "def f(x, *, b): return x"),
        ("f = [lambda x: x, 1]", "f = (lambda x: x, 1)"),
        ("def f(x): return F.relu(x)", "def f(x): return F.elu(x)"),
    ],
)
def test_other_code_has_another_name(one, other):
    assert name(defined(one)["f"]) != name(defined(other)["f"])
    # A notebook's cell that is run again, or the same code in a script.
    assert name(defined(one)["f"]) == name(defined("\n\n" + one, "script")["f"])


def test_a_replaced_function_of_a_library_counts(monkeypatch):
    function = defined("def f(x): return F.relu(x)")["f"]
    before = name(function)
    monkeypatch.setattr(F, "relu", functools.wraps(F.relu)(lambda x: x))
    assert name(function) != before


def test_an_object_that_holds_itself_has_a_name():
    cycle = {"value": 1}
    cycle["self"] = cycle
    before = name(cycle)
    cycle["value"] = 2
    assert name(cycle) != before


def test_the_state_behind_a_bound_method_counts():
    class Scale:
        def __init__(self, by):
            self.by = by

        def __getstate__(self):
            return {}

        def call(self, x):
            return x * self.by

    assert name(Scale(1).call) != name(Scale(2).call)
    assert name(functools.partial(Scale(1).call, 3)) == name(functools.partial(Scale(1).call, 3))


def test_a_function_that_keeps_results_is_uncertain_while_it_has_any():
    space = defined("LEVEL = 2\n@functools.lru_cache\ndef level(): return LEVEL", "users")
    function = space["level"]
    before = name(function)
    function()
    space["LEVEL"] = 5
    namer = Namer()
    namer.name(function)
    assert namer.unnamed == ["functools._lru_cache_wrapper level keeps results of earlier calls"]
    function.cache_clear()
    assert name(function) != before


def test_kept_results_of_a_library_are_its_own_affair():
    @functools.lru_cache
    def of_torch():
        return 1

    of_torch()
    of_torch.__wrapped__.__module__ = "torch.nn"
    name(of_torch)


CLASSES = """
import enum, collections
class Color(enum.Enum):
    RED = {value}
    def code(self): return self.value + {code}
class Slots:
    __slots__ = ("by",)
    def __init__(self): self.by = {value}
class Values(list):
    pass
Values.factor = {code}
class Cached:
    @functools.cached_property
    def by(self): return {code}
def unassigned():
    def f(x): return later + {code}
    if x := {value} > 5:
        later = x
    return f
values = Values([{value}])
slots = Slots()
f = unassigned()
"""


@pytest.mark.parametrize("kind", ["Color", "slots", "values", "Cached", "f"])
def test_unusual_classes_and_functions(kind):
    def found(value, code):
        return name(defined(CLASSES.format(value=value, code=code))[kind])

    assert found(1, 2) == found(1, 2)
    assert len({found(1, 2), found(3, 2) if kind in ("slots", "values") else found(1, 4)}) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.float32(1), np.float64(1)),
        (np.float32(1), np.float32(2)),
        (np.array(["a", None], object), np.array(["b", None], object)),
        (float("nan"), 0.0),
        (np.add, np.subtract),
        ("text".upper, "other".upper),
        (dict.fromkeys, OrderedDict.fromkeys),
        (compile("1", "", "eval"), compile("2", "", "eval")),
        (math, functools),
        ({1.0, "a"}, {1, "a"}),
    ],
)
def test_other_values_have_other_names(one, other):
    assert name(one) == name(one)
    assert name(one) != name(other)


def test_what_a_weak_reference_shows_counts():
    def one(x):
        return x

    def other(x):
        return -x

    assert name(weakref.ref(one)) == name(weakref.ref(one))
    assert name(weakref.ref(one)) != name(weakref.ref(other))


@pytest.mark.parametrize(
    "body",
    [
        "import helpers_of_f.scales as s; return x * s.by",
        "import helpers_of_f.scales; return x * helpers_of_f.scales.by",
        "; ".join(f"x.a{k}" for k in range(300)) + "; from .scales import by; return x * by",
        "from helpers_of_f import scales; return x * scales.by",
        "from helpers_of_f.scales import by; return x * by",
        "from helpers_of_f.scales import other, by; return x * by",
        "from .scales import by; return x * by",
        "from . import scales; return x * scales.by",
    ],
)
def test_what_is_imported_when_the_code_runs_counts(body, monkeypatch):
    package, scales = ModuleType("helpers_of_f"), ModuleType("helpers_of_f.scales")
    package.__path__, package.scales, scales.by, scales.other = [], scales, 2.0, 0
    monkeypatch.setitem(sys.modules, "helpers_of_f", package)
    monkeypatch.setitem(sys.modules, "helpers_of_f.scales", scales)
    space = {"__name__": "helpers_of_f.code", "__package__": "helpers_of_f"}
    exec(f"def f(x):\n    {body}", space)
    before = name(space["f"])
    assert name(space["f"]) == before
    scales.by = 3.0
    assert name(space["f"]) != before


def test_what_cannot_be_imported_has_a_name():
    one = defined("def f(x):\n    import not_installed_1\n    return x")["f"]
    other = defined("def f(x):\n    import not_installed_2\n    return x")["f"]
    assert name(one) == name(one) != name(other)


def test_all_of_a_module_that_is_handed_on_counts():
    module = ModuleType("users_own")
    module.by = 2.0
    space = defined("def f(x): return g(helper, x)\ndef g(m, x): return m.by * x")
    space["helper"] = module
    before = name(space["f"])
    module.by = 3.0
    assert name(space["f"]) != before


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (nested(100_000), "is nested too deeply"),
        ([[] for _ in range(20_001)], "reaches too much code"),
        ({1, np.nditer(np.zeros(2))}, "has no name"),
        (torch.empty(2, device="meta"), "has no name"),
        (np.nditer(np.zeros(2)), "has no name"),
    ],
)
def test_what_has_no_certain_name_is_recorded(value, why):
    namer = Namer()
    namer.name(value)
    assert any(text.endswith(why) for text in namer.unnamed), namer.unnamed


def test_tensors_without_an_array_of_numpy():
    def sparse(by):
        return (torch.eye(3) * by).to_sparse()

    assert name(sparse(1)) == name(sparse(1)) != name(sparse(2))


def test_operators_are_those_of_torch_or_uncertain():
    @torch.library.custom_op("featx_tests::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert name(torch.ops.aten.relu) != name(torch.ops.aten.sigmoid)
    assert name(torch.ops.aten.relu.default) == name(torch.ops.aten.relu.default)
    namer = Namer()
    namer.name(torch.ops.featx_tests.double)
    assert namer.unnamed
    assert "is an operator of its own" in namer.unnamed[0]


def test_a_traced_network_is_known_by_its_operations_and_weights():
    def traced(seed, module=nn.ReLU):
        torch.manual_seed(seed)
        return fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), module()))

    wanted = name(traced(0))
    assert name(traced(0)) == wanted
    assert wanted not in (name(traced(1)), name(traced(0, nn.Sigmoid)))
    edited = traced(0)
    edited.forward = lambda x: x
    assert name(edited) != wanted
