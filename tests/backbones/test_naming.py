"""Names of values: what people reported about fingerprints of Python objects, tried on ours."""

import functools

import numpy as np
import pytest
import torch
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
