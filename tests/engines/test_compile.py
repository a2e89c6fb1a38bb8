"""Compiling: one size for all batches, and the plain engine with one warning where it fails."""

import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.engines._compile import Compiled
from sklearn_featx.engines._trunk import Whole
from sklearn_featx.exceptions import FeatxWarning

CPU = torch.device("cpu")


class Double(nn.Module):
    def forward(self, x):
        return x * 2


def whole(network):
    """What an engine runs: its results are a list."""
    return Whole(None, network, [nn.Identity()], torch.float32)


class Compiler:
    """Stands for PyTorch's: notes the sizes it compiles for, and may fail."""

    def __init__(self):
        self.sizes, self.error, self.delay = [], None, 0.0

    def __call__(self, module, *, dynamic, options):
        assert dynamic is False
        assert options == {"freezing": True, "cpp.threads": 1}

        def run(x):
            self.sizes.append(len(x))
            time.sleep(self.delay)
            if self.error is not None:
                raise self.error
            return module(x)

        return run


@pytest.fixture
def compiler(monkeypatch):
    made = Compiler()
    monkeypatch.setattr(torch, "compile", made)
    return made


def test_it_is_kept(compiler):
    made = Compiled(whole(Double()), CPU)
    for n in (4, 4):
        torch.testing.assert_close(made(torch.ones(n, 3)), [torch.full((n, 3), 2.0)])
    assert compiler.sizes == [4, 4, 4]


def test_smaller_batches_are_filled_up_and_cut_again(compiler):
    made = Compiled(whole(Double()), CPU)
    for n in (4, 1, 3):
        x = torch.arange(3.0 * n).reshape(n, 3)
        torch.testing.assert_close(made(x), [x * 2])
    assert set(compiler.sizes) == {4}


def test_where_it_fails_one_warning_says_why(compiler):
    compiler.error = RuntimeError("no C++ compiler\nand so on")
    made = Compiled(whole(Double()), CPU)
    x = torch.ones(4, 3)
    with pytest.warns(FeatxWarning) as caught:
        results = made(x)
    assert [str(w.message) for w in caught] == [
        "compile=True: the network cannot be compiled here (RuntimeError: no C++ compiler). It "
        "runs as with compile=False."
    ]
    torch.testing.assert_close(results, [x * 2])
    torch.testing.assert_close(made(x[:1]), [x[:1] * 2])
    assert compiler.sizes == [4]


def test_what_is_wrong_with_a_batch_is_said_as_without_the_compiler(compiler):
    class Refusing(nn.Module):
        def forward(self, x):
            raise ValueError("three channels are expected")

    made = Compiled(whole(Refusing()), CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="three channels"):
            made(torch.ones(2, 3))


def test_halves_after_memory_ran_out_are_not_filled_up(compiler):
    made = Compiled(whole(Double()), CPU)
    made(torch.ones(4, 3))
    compiler.error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="allocate"):
        made(torch.ones(8, 3))
    compiler.error = None
    made(torch.ones(2, 3))
    assert compiler.sizes[-1] == 2


def test_several_workers_compile_once(compiler):
    compiler.delay = 0.05
    made = Compiled(whole(Double()), CPU)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: made(torch.ones(2, 3))[0], range(8)))
    assert all(torch.equal(result, torch.full((2, 3), 2.0)) for result in results)
    # Each batch is a run, and the compiling one more.
    assert compiler.sizes == [2] * 9


def test_an_extractor_compiles_its_network(compiler, digits):
    settings = {"backbone": nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval(), "cache": False}
    wanted = PretrainedFeatureExtractor(**settings).fit_transform(digits[0][:9])
    assert compiler.sizes == []
    found = PretrainedFeatureExtractor(**settings, compile=True).fit_transform(digits[0][:9])
    np.testing.assert_array_equal(found, wanted)
    assert sum(compiler.sizes) >= 9


@pytest.mark.slow  # 24 s with an empty folder of compiled code
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_features_are_the_same_with_the_real_one(digits, monkeypatch):
    from torch._inductor import config

    # No processes of its own for one small kernel.
    monkeypatch.setattr(config, "compile_threads", 1)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval()
    settings = {"backbone": network, "cache": False}
    wanted = PretrainedFeatureExtractor(**settings).fit_transform(digits[0][:9])
    found = PretrainedFeatureExtractor(**settings, compile=True).fit_transform(digits[0][:9])
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
