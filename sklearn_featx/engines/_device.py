"""Devices: the differences of CUDA, MPS and other accelerators from a CPU.

The module covers names, dtypes, copies, streams and memory; it is the only one that names an
accelerator. Only CUDA has non-blocking copies and two workers: on MPS, a second thread crashes the
process (pytorch#197805), and a non-blocking copy from pageable memory arrives corrupted
(pytorch#189690).
"""

import functools
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from .._messages import said, shown
from .._parallel import ForkSafeLock
from .._typing import AnyArray

# Parts of messages about exhausted memory of the device, of its libraries or of the computer, most
# raised as RuntimeError. From the lists of Lightning and accelerate, extended by other devices.
_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, HIP, XPU and MPS
    "STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSOLVER and their HIP versions
    "CUDNN_STATUS_NOT_SUPPORTED",  # no algorithm fits into the free memory
    "unable to find an engine to execute",
    "Unable to find a valid cuDNN algorithm",
    "DefaultCPUAllocator",  # "can't allocate memory", on Windows "not enough memory"
    "DefaultMPSAllocator",
)
# One stream copies while the other computes.
_N_STREAMS = 2
# The lock of devices that only one thread may use simultaneously.
_alone = ForkSafeLock()


def resolve_device(device: str) -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    device : str
        ``"auto"``: a CUDA GPU if there is one, else the CPU. Any other name is used unchanged.

    Returns
    -------
    device : torch.device
        An existing device, with its number: ``"cuda"`` and ``"cuda:0"`` are the same device.

    Raises
    ------
    ValueError
        If the name is no device, or the device cannot be used.

    Examples
    --------
    >>> from sklearn_featx.engines import resolve_device
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    name = device
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
        if chosen.type == "cpu":
            return torch.device("cpu")
        # Without a number, torch uses the thread's current device.
        chosen = torch.empty(0, device=chosen).device
        _check_computes(chosen)
    except (RuntimeError, AssertionError) as error:
        # Builds without a backend raise AssertionError from its lazy initialization.
        reason = said(error)
        raise ValueError(
            f"device={shown(device)} cannot be used here ({reason}). {_way_out(device, reason)}"
        ) from error
    return chosen


def _way_out(device: str, reason: str) -> str:
    if "forked subprocess" in reason:
        return "Start the process by spawn or forkserver (joblib's loky does), or use device='cpu'."
    return "Use device='cpu'." if device == "auto" else "Use device='auto' or device='cpu'."


@functools.cache
def _check_computes(device: torch.device) -> None:
    """Compute on a device once: a build of PyTorch may detect a GPU but have no code for it."""
    (torch.zeros(1, device=device) + 1).cpu()


def fastest_gpu_type(device: torch.device) -> torch.dtype:
    """Return the fastest dtype that an accelerator computes in natively."""
    if device.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    # Tensor cores: since Volta (7) for float16, since Ampere (8) for bfloat16.
    return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32


def computes_in(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether an accelerator computes in a dtype natively, without emulation."""
    if dtype is torch.float32:
        return True
    if device.type == "cuda":
        return dtype is not torch.bfloat16 or torch.cuda.get_device_capability(device)[0] >= 8
    try:
        torch.zeros(1, dtype=dtype, device=device)
    except (RuntimeError, TypeError):
        return False
    return True


def copies_while_computing(device: torch.device) -> bool:
    """Whether a batch can be copied to a device while it computes another one."""
    return device.type == "cuda"


def to_device(batch: AnyArray, device: torch.device) -> torch.Tensor:
    """Copy a batch to a device; the copy is non-blocking on CUDA."""
    tensor = torch.from_numpy(batch)
    if not copies_while_computing(device):
        return tensor.to(device)
    try:
        # A non-blocking copy needs pinned memory. PyTorch does not reuse that memory before the
        # copy has finished, by an event on this stream.
        tensor = tensor.pin_memory()
    except RuntimeError:
        # Containers and WSL limit pinned memory. The copy then blocks.
        return tensor.to(device)
    return tensor.to(device, non_blocking=True)


def finish_copies(device: torch.device) -> None:
    """Wait until the weights have been copied, since the workers' streams do not wait for them."""
    if copies_while_computing(device):
        torch.cuda.synchronize(device)


def use_worker_stream(device: torch.device) -> None:
    """Use one of the workers' streams in this thread, so that copies overlap with computation."""
    if copies_while_computing(device):
        torch.cuda.set_stream(next(_worker_streams(device)))


@functools.cache
def _worker_streams(device: torch.device) -> Iterator[Any]:
    """Return an endless cycle of the streams of a device's workers.

    PyTorch caches memory for each stream. With new streams in each call, it would cache the memory
    of up to 32 streams.
    """
    cuda: Any = torch.cuda
    return itertools.cycle([cuda.Stream(device) for _ in range(_N_STREAMS)])


def alone_where_needed(device: torch.device) -> AbstractContextManager[Any]:
    """Context manager: on devices for one thread, no other thread computes in the block."""
    return nullcontext() if device.type in ("cpu", "cuda") else _alone


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports that the memory of the device or the computer is exhausted."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def release_memory(device: torch.device) -> None:
    """Free PyTorch's cached memory of an accelerator."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def float32_switches(device: torch.device) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names in `torch.backends` of the switches for float32 products in shorter dtypes.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    general, single : tuple of str
        The switches that others inherit from, and those of single operations.
    """
    if device.type == "cuda":
        return ("cudnn",), ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
    return ("mkldnn",), ("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
