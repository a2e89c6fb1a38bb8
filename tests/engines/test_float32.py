"""float32 is float32 inside a pass, whatever PyTorch's switches say, and they come back."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx.engines import _float32
from sklearn_featx.engines._float32 import full_float32
from sklearn_featx.engines._torch import TorchEngine

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")

pytestmark = pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="switches of PyTorch 2.9"
)


def switches():
    backends = torch.backends
    owners = {
        "root": backends,
        "cuda.matmul": backends.cuda.matmul,
        "cudnn": backends.cudnn,
        "cudnn.conv": backends.cudnn.conv,
        "cudnn.rnn": backends.cudnn.rnn,
        "mkldnn": backends.mkldnn,
        "mkldnn.matmul": backends.mkldnn.matmul,
        "mkldnn.conv": backends.mkldnn.conv,
    }
    return {name: owner.fp32_precision for name, owner in owners.items()}


@pytest.fixture(autouse=True)
def _as_before():
    before = torch.get_float32_matmul_precision()
    yield
    torch.backends.fp32_precision = "none"
    torch.backends.cudnn.fp32_precision = "none"
    torch.backends.mkldnn.fp32_precision = "none"
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = True


def nothing():
    pass


def medium():
    torch.set_float32_matmul_precision("medium")


def one_operation():
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def whole_library():
    torch.backends.cudnn.fp32_precision = "tf32"
    torch.backends.mkldnn.fp32_precision = "bf16"


def everything():
    torch.backends.fp32_precision = "tf32"


@pytest.mark.parametrize("loosen", [nothing, medium, one_operation, whole_library, everything])
@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_nothing_is_shortened_inside_and_all_is_as_before_after(loosen, device):
    loosen()
    before = switches()
    with full_float32(device):
        inside = switches()
        with full_float32(device):
            pass
        assert switches() == inside
    kinds = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
    if device.type == "cpu":
        kinds = ("mkldnn.matmul", "mkldnn.conv")
    assert {inside[kind] for kind in kinds} <= {"ieee", "none"}
    assert switches() == before


@pytest.mark.slow
def test_what_followed_a_general_switch_follows_it_again():
    # A process of its own: once it is set, the default of cuDNN's convolutions cannot be put back.
    program = """
import torch
from sklearn_featx.engines._float32 import full_float32
with full_float32(torch.device("cuda:0")):
    pass
assert torch.backends.cudnn.conv.fp32_precision == "tf32"
torch.backends.fp32_precision = "ieee"
assert torch.backends.cudnn.conv.fp32_precision == "ieee"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_last_of_several_passes_puts_the_switches_back():
    inside, go_on = threading.Event(), threading.Event()

    def work():
        with full_float32(CUDA):
            inside.set()
            go_on.wait(10)

    before = switches()
    thread = threading.Thread(target=work)
    with full_float32(CUDA):
        thread.start()
        inside.wait(10)
    assert switches()["cudnn.conv"] == "ieee"
    go_on.set()
    thread.join()
    assert switches() == before


def test_an_engine_computes_in_full_float32(monkeypatch):
    class Look(nn.Module):
        def forward(self, x):
            seen.append(torch.backends.mkldnn.matmul.fp32_precision)
            return x

    seen = []
    medium()
    loosened = torch.backends.mkldnn.matmul.fp32_precision
    assert loosened not in ("ieee", "none")
    for dtype in (torch.float32, torch.bfloat16):
        TorchEngine(Look(), [nn.Identity()], device=CPU, dtype=dtype).run(
            np.zeros((2, 3), np.float32)
        )
    assert seen == ["ieee", loosened]


def test_features_do_not_depend_on_the_switches():
    torch.manual_seed(0)
    network = nn.Linear(256, 256)
    rows = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)

    def features():
        return TorchEngine(network, [nn.Identity()], device=CPU).run(rows)[0]

    before = features()
    medium()
    np.testing.assert_array_equal(features(), before)


class TestOlderVersions:
    """Before 2.9 there is a switch for products and one for cuDNN."""

    @pytest.fixture(autouse=True)
    def _old(self, monkeypatch):
        monkeypatch.setattr(_float32, "_set_full", _float32._set_full_before_2_9)

    def look(self):
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    @pytest.mark.parametrize("precision", ["highest", "high", "medium"])
    def test_off_inside_and_on_again(self, precision):
        torch.set_float32_matmul_precision(precision)
        with full_float32(CUDA):
            assert self.look() == ("highest", False)
        assert self.look() == (precision, True)

    def test_cudnn_is_no_matter_of_a_cpu(self):
        medium()
        with full_float32(CPU):
            assert self.look() == ("highest", True)
        assert self.look() == ("medium", True)
