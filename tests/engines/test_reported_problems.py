"""Problems that people reported about inference on CPUs, tried on this package.

Others of the same search are tested beside the code that they concern: convolutions in bfloat16
that are wrong (`test_precision`), a convolution that two layers share (`test_rewrite`), a missing
C++ compiler and batches of another size (`test_compile`).
"""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.exceptions import BackboneError

X = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)


def features(network, images=X, **parameters):
    return PretrainedFeatureExtractor(network, cache=False, **parameters).fit_transform(images)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_batch_size_changes_no_feature(small_net, batch_size, precision):
    # prov-gigapath#108, transformers#2401, triton#5640
    one_pass = features(small_net, precision=precision)
    found = features(small_net, precision=precision, batch_size=batch_size)
    np.testing.assert_allclose(found, one_pass, atol=1e-6 if precision == "float32" else 1e-2)
    reverse = features(small_net, X[::-1], precision=precision, batch_size=batch_size)[::-1]
    np.testing.assert_allclose(reverse, found, atol=1e-6 if precision == "float32" else 1e-2)


def test_the_same_rows_again_in_threads():
    # mxnet#15576, Paddle#25507: only the first result of oneDNN's layers was right
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UnevenDilation().eval()
    first, *others = (features(network, n_jobs=2, batch_size=2) for _ in range(10))
    for again in others:
        np.testing.assert_array_equal(again, first)


def test_threads_of_the_user_stay_as_many(small_net):
    # serve#1138, DiffBIR#130: libraries that set the number of threads of the process
    seen = []
    before = torch.get_num_threads()
    for n_jobs in (None, 1, 2):
        features(small_net, n_jobs=n_jobs)
        seen.append(torch.get_num_threads())
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert set(seen) == {before}


class OneNormTwice(nn.Module):
    """One BatchNorm behind two convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.norm(self.second(self.norm(self.first(x)))).mean((2, 3))


class NormOfOnePath(nn.Module):
    """A convolution that is called twice, with BatchNorm on one of the paths (pytorch#197539)."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return torch.cat([self.norm(self.conv(x)), self.conv(1 - x)], 1).mean((2, 3))


class TwoNorms(nn.Module):
    """Two BatchNorms of one convolution, one of them without `eps` (pytorch#173337)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4, eps=0.0)
        for norm in (self.first, self.second):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.conv(x)
        return (self.first(x).relu() * self.second(x).sigmoid()).mean((2, 3))


class UnevenDilation(nn.Module):
    """A strided and dilated convolution whose bias BatchNorm replaces."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=(2, 1), dilation=(1, 2), padding=(0, 1), bias=False)
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.norm.running_mean.uniform_(-1, 1)

    def forward(self, x):
        return nn.functional.hardswish(self.norm(self.conv(x))).amax((2, 3))


@pytest.mark.parametrize("cls", [OneNormTwice, NormOfOnePath, TwoNorms, UnevenDilation])
@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_folded_layers_compute_as_the_plain_network(cls, engine):
    # pytorch#104593, pytorch#197539, mmcv#747
    if engine == "openvino":
        pytest.importorskip("openvino")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = cls().eval()
    with torch.inference_mode():
        try:
            plain = network(torch.from_numpy(X)[:, None] / 255).numpy()
        except ValueError as error:
            pytest.skip(f"not computed by PyTorch {torch.__version__}: {error}")
    np.testing.assert_allclose(features(network, engine=engine), plain, atol=2e-6)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8, track_running_stats=False), nn.BatchNorm2d(8)])
def test_statistics_of_a_batch_are_refused(norm):
    network = nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.ReLU())
    if norm.track_running_stats:
        assert features(network).shape == (12, 8)
        return
    for estimator in (
        PretrainedFeatureExtractor(network),
        FineTuneClassifier(network, unfreeze_depth="all", max_epochs=1),
    ):
        with pytest.raises(BackboneError, match=r"'1' normalizes by the statistics of each batch"):
            estimator.fit(X, [0, 1] * 6)


def test_subnormal_weights_are_computed_with(small_net):
    # pytorch#23862: weights of 1e-40 cost much time; they must not cost the result
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with torch.no_grad():
        network[0].weight.mul_(1e-39)
        network[0].bias.mul_(1e-39)
        network[2].weight.mul_(1e38)
    with torch.inference_mode():
        plain = network(torch.from_numpy(X)[:, None] / 255).mean((2, 3)).numpy()
    np.testing.assert_allclose(features(network), plain, rtol=1e-4, atol=1e-6)


MEMORY = """
import ctypes, gc, sys
import numpy as np
from torch import nn
from sklearn_featx import PretrainedFeatureExtractor

def resident():
    gc.collect()
    # Freed memory that the C library keeps is not lost.
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

X = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
def once():
    network = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 256, 3), nn.ReLU())
    PretrainedFeatureExtractor(network, engine=sys.argv[1], cache=False).fit_transform(X)

for _ in range(15):
    once()
before = resident()
for _ in range(40):
    once()
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_engines_that_come_and_go_leave_no_memory(engine):
    # openvino#31383, openvino#17609
    if engine == "openvino":
        pytest.importorskip("openvino")
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY, engine], capture_output=True, text=True, check=True
    )
    # Forty networks of 0.6 MiB each, and their copies: kept, they would be more than 100 MiB.
    assert float(ended.stdout) < 40


def test_an_error_in_one_worker_ends_the_others_soon(small_net):
    # densecap#65 and others wait without a word
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("no kernel image is available for execution on the device")

    start = time.perf_counter()
    with pytest.raises(BackboneError, match="no kernel image"):
        features(nn.Sequential(nn.Conv2d(1, 4, 3), Fails()), n_jobs=2, batch_size=1)
    assert time.perf_counter() - start < 30
