"""Shared pictures, networks and switches."""

import gc
import os
import sys

# The matrices are small: threads would mostly wait for each other, in this process and in those
# that tests start. NumPy's and SciPy's libraries read it when they are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# scikit-learn skips its array API checks without it; it must be set before SciPy is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from threadpoolctl import threadpool_limits
from torch import nn

import sklearn_featx

# Where it is installed, OpenVINO forks a process for each report of its use to its developers. The
# package hides it from its own import, but tests import OpenVINO themselves.
sys.modules.setdefault("openvino_telemetry", None)


def pytest_collection_finish():
    # The garbage collector need not walk the imported modules again and again.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    # Hypothesis asks the collector, at the end, who refers to an object.
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # The networks are small, too. A plugin of pytest may have loaded NumPy's library earlier.
    torch.set_num_threads(1)
    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="session")
def photographs():
    """Two real photographs, (427, 640, 3) uint8."""
    return load_sample_images().images


@pytest.fixture(scope="session")
def digits():
    """60 real handwritten digits of three classes, (60, 8, 8) uint8 from 0 to 255, and labels."""
    X, y = load_digits(n_class=3, return_X_y=True)
    return (X[:60] * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8), y[:60]


@pytest.fixture(scope="session")
def digit_files(digits, tmp_path_factory):
    """The digits as PNG files in a folder for each class: (paths, labels)."""
    folder = tmp_path_factory.mktemp("digits")
    paths = []
    for i, (image, label) in enumerate(zip(*digits, strict=True)):
        path = folder / f"class {label}" / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
        paths.append(str(path))
    return paths, digits[1]


class SmallNet(nn.Module):
    """Three convolutional stages with BatchNorm and dropout; takes gray images of any size."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.body = nn.Sequential(
                nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()
            )
            self.top = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.uniform_(-0.1, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        x = self.top(self.body(self.stem(x)))
        return self.dropout(x.mean((2, 3)))


class Plain(nn.Module):
    """Takes (n, d) for any d: one parameter, one multiplication."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


@pytest.fixture
def small_net():
    return SmallNet()


@pytest.fixture(scope="session")
def small_net_factory():
    return SmallNet


@pytest.fixture(scope="session")
def plain_factory():
    return Plain


@pytest.fixture
def builds(monkeypatch):
    """Names of the networks that are built while the test runs, in order."""
    from sklearn_featx.backbones import _registry

    monkeypatch.setattr(_registry, "_networks", _registry._Memo(8))
    monkeypatch.setattr(_registry, "_backbones", _registry._Memo(16))
    built = []
    for name in ("build_torchvision", "build_custom", "_packaged_network"):
        original = getattr(_registry, name)

        def spy(*args, _original=original, **kwargs):
            network = _original(*args, **kwargs)
            built.append(network.name)
            return network

        monkeypatch.setattr(_registry, name, spy)
    return built


@pytest.fixture
def trunk_rows(monkeypatch):
    """Number of rows in each pass through an engine while the test runs."""
    from sklearn_featx.engines._torch import TorchEngine

    rows = []
    original = TorchEngine.run

    def spy(engine, batch):
        rows.append(len(batch))
        return original(engine, batch)

    monkeypatch.setattr(TorchEngine, "run", spy)
    return rows


@pytest.fixture(scope="session")
def package_version():
    return sklearn_featx.__version__
