"""What the tests of backbones share: cutting without warnings, and running a chain of stages."""

import warnings

import pytest
import torch

from sklearn_featx.backbones import _registry, get_backbone


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def fresh(monkeypatch):
    """A registry that remembers nothing yet."""
    monkeypatch.setattr(_registry, "_networks", _registry._Memo(8))
    monkeypatch.setattr(_registry, "_backbones", _registry._Memo(16))


@pytest.fixture(scope="session")
def cut():
    """get_backbone with random weights and without the warnings about that."""

    def build(backbone, granularity="stage", weights=None):
        with warnings.catch_warnings():
            # Old architectures say that their random initialization will change.
            warnings.filterwarnings("ignore", category=FutureWarning)
            return get_backbone(backbone, weights, granularity, warn=False)

    return build


@pytest.fixture(scope="session")
def run_stages():
    """The activations after each stage, copied."""

    def run(backbone, x):
        activations = []
        with torch.no_grad():
            for stage in backbone.stages:
                x = stage.module(x)
                activations.append(x.clone())
        return activations

    return run


@pytest.fixture(scope="session")
def assert_exact(run_stages):
    """Every boundary exact, and the parameters partitioned."""

    def check(backbone, x):
        n_stages = len(backbone.stages)
        with torch.no_grad():
            expected = backbone.network.module(x.clone())
            activations = run_stages(backbone, x.clone())
            assert torch.equal(activations[-1], expected)
            for split in range(1, n_stages):
                (trunk,) = backbone.tapped([split])(x.clone())
                assert torch.equal(trunk, activations[split - 1])
                # Copies of all tails would be most of the test's time: one is, the others share.
                copied = split == n_stages // 2
                shared = [stage.module for stage in backbone.stages[split:]]
                for part in backbone.tail(split) if copied else shared:
                    trunk = part(trunk)
                assert torch.equal(trunk, expected)
        owned = [id(p) for stage in backbone.stages for p in stage.module.parameters()]
        assert len(owned) == len(set(owned))
        assert set(owned) == {id(p) for p in backbone.network.module.parameters()}

    return check
