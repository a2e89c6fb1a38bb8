"""Devices: names, types, copies, streams and memory, with stand-ins where no GPU is."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx.engines import _device, resolve_device, resolve_precision
from sklearn_featx.engines._torch import TorchEngine

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda:0", "mps:0"))


@pytest.fixture
def seen_as(monkeypatch):
    """Let tensors of a device be made on the CPU, in the name of another device."""

    def see(device, index=0):
        class Tensor:
            def __init__(self):
                self.device = torch.device(device.type, index)

            def __add__(self, other):
                return self

            def cpu(self):
                return self

        for name in ("empty", "zeros"):
            monkeypatch.setattr(torch, name, lambda *shape, device, dtype=None: Tensor())
        _device._check_computes.cache_clear()

    yield see
    _device._check_computes.cache_clear()


class TestNames:
    @pytest.mark.parametrize("name", ["cuda", "mps"])
    def test_without_and_with_a_number_are_one_device(self, seen_as, name):
        seen_as(torch.device(name))
        assert resolve_device(name) == resolve_device(f"{name}:0") == torch.device(name, 0)

    def test_without_a_number_is_the_current_device(self, seen_as):
        seen_as(CUDA, index=1)
        assert resolve_device("cuda") == torch.device("cuda:1")

    def test_numbers_of_the_cpu_are_one_device(self):
        assert resolve_device("cpu:0") == resolve_device("cpu")

    def test_a_device_without_values_is_refused(self):
        with pytest.raises(ValueError, match=r"device='meta' cannot be used here .*device='auto'"):
            resolve_device("meta")

    def test_a_card_that_the_build_has_no_code_for_is_refused(self, monkeypatch):
        def fail(*shape, device):
            raise RuntimeError("CUDA error: no kernel image is available for execution\nhints")

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch, "empty", fail)
        with pytest.raises(ValueError, match=r"device='auto' .*no kernel image .*'cpu'") as error:
            resolve_device("auto")
        assert "\n" not in str(error.value)

    def test_a_forked_process_says_how_to_start_it(self, monkeypatch):
        def fail(*shape, device):
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA")

        monkeypatch.setattr(torch, "empty", fail)
        with pytest.raises(ValueError, match="spawn or forkserver"):
            resolve_device("cuda")


class TestTypes:
    @pytest.mark.parametrize(("capability", "works"), [((7, 5), False), ((8, 0), True)])
    def test_bfloat16_since_ampere(self, monkeypatch, capability, works):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert resolve_precision("float16", CUDA) is torch.float16
        if works:
            assert resolve_precision("bfloat16", CUDA) is torch.bfloat16
        else:
            with pytest.raises(ValueError, match=r"precision='bfloat16'.*cuda:0.*'float32'"):
                resolve_precision("bfloat16", CUDA)

    @pytest.mark.parametrize(
        ("capability", "wanted"),
        [((6, 1), torch.float32), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
    )
    def test_auto_is_the_type_of_the_tensor_cores(self, monkeypatch, capability, wanted):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert resolve_precision("auto", CUDA) is wanted

    def test_others_are_asked(self, monkeypatch):
        def make(n, *, dtype, device):
            if dtype is torch.bfloat16:
                raise TypeError("BFloat16 is not supported on MPS")

        monkeypatch.setattr(torch, "zeros", make)
        assert resolve_precision("float16", MPS) is torch.float16
        with pytest.raises(ValueError, match="precision='bfloat16'"):
            resolve_precision("bfloat16", MPS)


class Sent:
    """A tensor on its way, which notes how it was sent."""

    def __init__(self, pinned=False, can_be_pinned=True):
        self.pinned, self.can_be_pinned = pinned, can_be_pinned

    def pin_memory(self):
        if not self.can_be_pinned:
            raise RuntimeError("CUDA error: out of memory")
        return Sent(pinned=True)

    def to(self, device, non_blocking=False):
        return (device.type, self.pinned, non_blocking)


class TestCopies:
    def send(self, monkeypatch, device, **how):
        monkeypatch.setattr(torch, "from_numpy", lambda batch: Sent(**how))
        return _device.to_device(np.zeros(2), device)

    def test_only_pinned_memory_is_not_waited_for(self, monkeypatch):
        assert self.send(monkeypatch, CUDA) == ("cuda", True, True)
        assert self.send(monkeypatch, CUDA, can_be_pinned=False) == ("cuda", False, False)

    @pytest.mark.parametrize("name", ["cpu", "mps", "xpu"])
    def test_others_wait(self, monkeypatch, name):
        assert self.send(monkeypatch, torch.device(name)) == (name, False, False)


class TestWorkers:
    def engine(self, device, module=None):
        made = TorchEngine(module or nn.ReLU(), [nn.Identity()], device=CPU)
        made.device = device
        return made

    def test_two_with_cuda_one_elsewhere(self):
        assert self.engine(CUDA).workers(9, n_jobs=4).n_workers == 2
        assert self.engine(MPS).workers(9, n_jobs=4).n_workers == 1
        assert self.engine(torch.device("xpu:0")).workers(9, n_jobs=4).n_workers == 1

    def test_code_of_others_runs_in_one_thread(self):
        class Own(nn.Module):
            def forward(self, x):
                return x

        assert self.engine(CUDA, Own()).workers(9, n_jobs=4).n_workers == 1

    def test_streams_are_two_for_the_life_of_the_process(self, monkeypatch):
        made, used = [], []
        cuda = SimpleNamespace(
            Stream=lambda device: made.append(device) or len(made), set_stream=used.append
        )
        monkeypatch.setattr(torch, "cuda", cuda)
        _device._worker_streams.cache_clear()
        try:
            for _ in range(6):
                _device.use_worker_stream(CUDA)
            _device.use_worker_stream(MPS)
        finally:
            _device._worker_streams.cache_clear()
        assert made == [CUDA, CUDA]
        assert used == [1, 2, 1, 2, 1, 2]

    def test_one_thread_at_a_time_where_needed(self):
        def is_free():
            """Whether another thread gets the lock at once."""
            lock = _device._alone._lock
            with ThreadPoolExecutor(1) as other:
                free = other.submit(lock.acquire, False).result()
                if free:
                    other.submit(lock.release).result()
            return free

        with _device.alone_where_needed(MPS):
            assert not is_free()
        assert is_free()
        for device in (CPU, CUDA):
            with _device.alone_where_needed(device), _device.alone_where_needed(device):
                assert is_free()


def test_a_first_pass_runs_alone_on_a_gpu(monkeypatch):
    """What layers make on it is there before the stream of another worker reads it."""
    inside, most, start = [], [], threading.Barrier(2)

    class Table(nn.Module):
        def forward(self, x):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.02)
            inside.pop()
            return x

    made = TorchEngine(Table(), [nn.Identity()], device=CPU)
    made.device = CUDA
    monkeypatch.setattr("sklearn_featx.engines._torch.to_device", lambda b, d: torch.from_numpy(b))

    def run():
        start.wait()
        made.run(np.zeros((2, 3), np.float32))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if ..."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate"),
        MemoryError("std::bad_alloc"),
    ],
    ids=str,
)
def test_memory_that_runs_out_is_recognized(error):
    assert _device.is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        ValueError("out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
    ids=str,
)
def test_other_errors_are_not(error):
    assert not _device.is_out_of_memory(error)
