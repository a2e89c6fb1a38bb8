"""The engine: batches in, arrays out, halved where memory ends."""

import numpy as np
import pytest
import torch
from torch import fx, nn

from sklearn_featx.backbones._normalize import Normalize
from sklearn_featx.engines import make_engine, resolve_device
from sklearn_featx.engines._torch import TorchEngine

CPU = torch.device("cpu")


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


def engine(module, **settings):
    n_results = 1 if isinstance(module, fx.GraphModule) else 2
    return TorchEngine(module, [nn.Identity()] * n_results, device=CPU, **settings)


def traced(network):
    return fx.symbolic_trace(network.eval())


def test_halves_a_batch_that_does_not_fit_and_goes_on():
    limited = engine(Limited())
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    doubled, sums = limited.run(rows)
    np.testing.assert_array_equal(doubled, rows * 2)
    np.testing.assert_array_equal(sums[:, 0], rows.sum(1))


def test_what_did_not_fit_once_is_not_tried_again():
    limited = engine(Limited())
    rows = np.zeros((10, 2), np.float32)
    limited.run(rows)
    calls = limited._whole.network.calls
    calls.clear()
    limited.run(rows)
    assert calls == [2] * 5


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


class Joining(nn.Module):
    """Joins the axes of its maps by `view`, which needs contiguous maps."""

    def __init__(self, *, n_channels, traceable=True):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, 4, 3)
        self.traceable = traceable

    def forward(self, x):
        if not self.traceable:
            assert x.sum() > -1
        x = self.conv(x)
        return torch.relu(x.view(x.size(0), -1))


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("name", ["torch", "openvino"])
@pytest.mark.parametrize("traceable", [True, False], ids=["traced", "untraceable"])
def test_a_network_that_joins_axes_by_view(name, traceable, n_channels):
    if name == "openvino":
        pytest.importorskip("openvino")
        if not traceable:
            pytest.skip("cannot be converted")
    network = Joining(n_channels=n_channels, traceable=traceable).eval()
    module = traced(network) if traceable else network
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 6, n_channels), dtype=np.uint8)
    made = make_engine(
        name,
        module,
        [nn.Identity()],
        normalize=Normalize(None, None),
        device=CPU,
        dtype=torch.float32,
    )
    with torch.no_grad():
        wanted = network(torch.tensor(np.moveaxis(pixels, 3, 1).tolist()) / 255)
    for _ in range(2):
        np.testing.assert_allclose(made.run(pixels)[0], wanted, atol=1e-5)


def test_device_names():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "tpu:x", ""):
        with pytest.raises(ValueError, match="device="):
            resolve_device(name)


class TestBatchSize:
    def test_few_rows_of_photographs_many_of_digits(self):
        float32 = engine(nn.Identity())
        assert float32.batch_size((3, 224, 224)) == float32.batch_size() == 4
        assert float32.batch_size((3, 600, 600)) == 1
        assert float32.batch_size((3, 64, 64)) == 32
        assert float32.batch_size((1, 8, 8)) == float32.batch_size((30,)) == 256

    def test_more_rows_of_a_network_in_sections(self):
        network = traced(nn.Sequential(nn.ReLU()))
        assert engine(network).batch_size() == 16
        assert engine(network, dtype=torch.bfloat16).batch_size() == 16
        assert engine(network, compiled=True).batch_size() == 4

    def test_more_rows_where_numbers_are_shorter(self):
        half = engine(nn.Identity(), dtype=torch.bfloat16)
        assert half.batch_size((3, 224, 224)) == 8

    @pytest.mark.parametrize("side", [20, 97, 224, 299, 384])
    def test_a_power_of_two_so_that_claims_are_cut_alike(self, side):
        for network in (nn.ReLU(), fx.symbolic_trace(nn.Sequential(nn.ReLU()))):
            assert 128 % engine(network).batch_size((3, side, side)) in (0, 128)


class TestWorkers:
    def test_one_thread_for_each_batch(self):
        workers = engine(nn.ReLU()).workers(n_batches=100, n_jobs=4)
        assert (workers.n_workers, workers.n_threads) == (4, 4)

    def test_few_batches_get_more_threads_each(self):
        workers = engine(nn.ReLU()).workers(n_batches=1, n_jobs=4)
        assert (workers.n_workers, workers.start.args) == (1, (4,))

    def test_code_of_others_runs_in_one_thread(self):
        limited = engine(Limited())
        assert limited.workers(n_batches=100, n_jobs=4).n_workers == 1
        assert not limited.computes_where_it_reads

    def test_traced_code_of_others_runs_in_several(self, small_net):
        assert engine(traced(small_net)).workers(n_batches=9, n_jobs=2).n_workers == 2


class TestPrecision:
    def rows(self):
        return np.random.default_rng(0).random((4, 1, 16, 16), dtype=np.float32)

    def test_bfloat16_is_near_float32_and_comes_back_as_float32(self, small_net):
        full, half = (
            TorchEngine(traced(small_net), [nn.Identity()], device=CPU, dtype=dtype).run(
                self.rows()
            )[0]
            for dtype in (torch.float32, torch.bfloat16)
        )
        assert half.dtype == np.float32
        assert not np.array_equal(half, full)
        np.testing.assert_allclose(half, full, atol=0.02 * np.abs(full).max())

    def test_the_network_stays_as_it_is(self, small_net):
        engine(traced(small_net), dtype=torch.bfloat16)
        assert {p.dtype for p in small_net.parameters()} == {torch.float32}

    def test_normalisation_is_not_rounded(self):
        class Mean(nn.Module):
            def forward(self, x):
                return x.mean((1, 2, 3), keepdim=True)

        class Third(nn.Module):
            def forward(self, x):
                assert x.dtype == torch.float32
                return x / 3

        half = TorchEngine(
            Mean(), [nn.Identity()], normalize=Third(), device=CPU, dtype=torch.bfloat16
        )
        mean = half.run(np.ones((1, 1, 2, 2), np.float32))[0].item()
        assert mean == pytest.approx(1 / 3, rel=0.004)

    @pytest.mark.parametrize(
        "network", [nn.Identity(), traced(nn.Hardtanh())], ids=["plain", "traced"]
    )
    def test_pooling_is_not_rounded(self, network):
        half = TorchEngine(network, [nn.AdaptiveAvgPool2d(1)], device=CPU, dtype=torch.bfloat16)
        x = np.zeros((1, 1, 32, 32), np.float32)
        x.flat[:515] = 1
        assert half.run(x)[0].item() == 515 / 1024


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestCuda:
    def engine(self, network, name="cuda", **settings):
        return TorchEngine(network.eval(), [nn.Identity()], device=torch.device(name), **settings)

    def test_agrees_with_the_cpu(self, small_net):
        rows = np.random.default_rng(0).random((5, 1, 16, 16), dtype=np.float32)
        results = [self.engine(small_net, name).run(rows)[0] for name in ("cpu", "cuda")]
        np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-4)

    def test_half_precision_is_near(self, small_net):
        rows = np.random.default_rng(0).random((5, 1, 16, 16), dtype=np.float32)
        full = self.engine(small_net).run(rows)[0]
        half = self.engine(small_net, dtype=torch.float16).run(rows)[0]
        np.testing.assert_allclose(half, full, atol=0.02 * np.abs(full).max())

    def test_memory_that_runs_out_halves_the_batch(self):
        class Hungry(nn.Module):
            def forward(self, x):
                # A petabyte, which no card has; where it would be little, nothing is asked for.
                if len(x) > 8:
                    torch.empty(2**50, dtype=torch.uint8, device=x.device)
                return x * 2

        rows = np.arange(64, dtype=np.float32)[:, None]
        np.testing.assert_array_equal(self.engine(Hungry()).run(rows)[0], rows * 2)

    def test_workers_on_streams_of_their_own_do_not_mix_batches(self, small_net):
        from sklearn_featx.flow._workers import compute_batches
        from sklearn_featx.images import as_image_collection, iterate_batches

        pixels = np.random.default_rng(0).integers(0, 255, (256, 16, 16, 1), dtype=np.uint8)

        class Scaled(nn.Module):
            def forward(self, x):
                return x.permute(0, 3, 1, 2) / 255

        on_gpu = self.engine(small_net, normalize=Scaled())
        workers = on_gpu.workers(n_batches=64, n_jobs=2)
        batches = iterate_batches(
            as_image_collection(pixels), range(256), lambda x: x, batch_size=4, n_threads=2
        )
        results = compute_batches(
            batches, on_gpu.run, n_workers=workers.n_workers, start=workers.start
        )
        found = np.concatenate([result for _, (result,) in results])
        expected = self.engine(small_net, "cpu", normalize=Scaled()).run(pixels)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
