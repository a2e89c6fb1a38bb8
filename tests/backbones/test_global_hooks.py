"""Hooks that are registered on all modules of the process."""

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.backbones import _global_hooks
from sklearn_featx.exceptions import BackboneError

X = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)


def plain(net):
    with torch.no_grad():
        return net.eval()(torch.from_numpy(X)[:, None] / 255).numpy()


def triple(module, args, output):
    return output * 3


def double(module, args):
    return (args[0] * 2,)


class Adding:
    def __call__(self, module, args, output):
        return output + 1


@pytest.mark.parametrize(
    ("register", "hook"),
    [
        (register_module_forward_hook, triple),
        (register_module_forward_hook, Adding()),
        (register_module_forward_pre_hook, double),
    ],
)
def test_rows_of_a_network_without_the_hook_are_not_returned(small_net, register, hook):
    extractor = PretrainedFeatureExtractor(small_net)
    before = extractor.fit_transform(X)
    handle = register(hook)
    try:
        for other in (extractor, PretrainedFeatureExtractor(small_net, cache=False)):
            with pytest.raises(BackboneError, match="hook is registered on all modules"):
                other.fit(X).transform(X)
    finally:
        handle.remove()
    np.testing.assert_array_equal(extractor.transform(X), before)
    np.testing.assert_allclose(before, plain(small_net), atol=1e-6)


def test_a_fitted_fine_tuner_refuses_them_too(small_net):
    model = FineTuneClassifier(small_net, unfreeze_depth=0, C=1.0).fit(X, [0, 1, 0, 1])
    handle = register_module_forward_hook(triple)
    try:
        with pytest.raises(BackboneError, match="hook is registered on all modules"):
            model.predict(X)
    finally:
        handle.remove()


def test_observers_of_pytorch_are_no_hindrance(small_net):
    with FlopCounterMode(display=False):
        rows = PretrainedFeatureExtractor(small_net, cache=False).fit_transform(X)
    np.testing.assert_allclose(rows, plain(small_net), atol=1e-6)


@pytest.fixture
def fresh_self_test():
    _global_hooks.passes_self_test.cache_clear()
    yield
    _global_hooks.passes_self_test.cache_clear()


def test_the_self_test_passes_and_leaves_nothing(fresh_self_test):
    assert _global_hooks.passes_self_test()
    for kind in _global_hooks._KINDS:
        assert not getattr(_global_hooks._modules, kind)


@pytest.mark.parametrize("absence", ["table is gone", "table is another", "function is gone"])
def test_without_pytorchs_tables_networks_are_computed(
    small_net, absence, monkeypatch, caplog, fresh_self_test
):
    class Tables:
        """PyTorch's module of modules, in another version."""

        def __getattr__(self, name):
            if absence == "table is gone" and name.startswith("_global"):
                raise AttributeError(name)
            if absence == "table is another" and name.startswith("_global"):
                return {}
            if absence == "function is gone" and name.startswith("register"):
                raise AttributeError(name)
            return getattr(torch.nn.modules.module, name)

    monkeypatch.setattr(_global_hooks, "_modules", Tables())
    with caplog.at_level("DEBUG", "sklearn_featx.backbones._global_hooks"):
        rows = PretrainedFeatureExtractor(small_net, cache=False).fit_transform(X)
        PretrainedFeatureExtractor(small_net, cache=False).fit_transform(X)
    np.testing.assert_allclose(rows, plain(small_net), atol=1e-6)
    assert caplog.text.count("Global hooks are not found") == 1
