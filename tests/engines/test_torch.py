"""The engine: batches in, arrays out, halved where memory ends."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx.engines import TorchEngine, resolve_device
from sklearn_featx.engines._device import default_batch_size


class Limited(nn.Module):
    """Takes three rows at most."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        self.calls.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return x * 2, x.sum(1, keepdim=True)


def engine(module):
    cpu = torch.device("cpu")
    return TorchEngine(module, [nn.Identity(), nn.Identity()], device=cpu)


def test_halves_a_batch_that_does_not_fit_and_goes_on():
    limited = engine(Limited())
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    doubled, sums = limited.run(rows)
    np.testing.assert_array_equal(doubled, rows * 2)
    np.testing.assert_array_equal(sums[:, 0], rows.sum(1))
    assert limited.n_rows_run == 10


def test_a_row_that_does_not_fit_alone_is_an_error():
    class Never(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        engine(Never()).run(np.zeros((4, 2), np.float32))


def test_other_errors_are_not_retried():
    class Broken(nn.Module):
        calls = 0

        def forward(self, x):
            Broken.calls += 1
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        engine(Broken()).run(np.zeros((4, 2), np.float32))
    assert Broken.calls == 1


def test_device_names():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "tpu:x", ""):
        with pytest.raises(ValueError, match="device="):
            resolve_device(name)


def test_batches_are_small_on_a_cpu():
    assert default_batch_size(torch.device("cpu")) < default_batch_size(torch.device("cuda"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(small_net):
    rows = np.random.default_rng(0).random((5, 1, 16, 16), dtype=np.float32)
    results = [
        TorchEngine(small_net.eval(), [nn.Identity()], device=torch.device(name)).run(rows)[0]
        for name in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-4)
