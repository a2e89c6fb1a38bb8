"""Accelerators: all that sets CUDA, MPS and others apart from a CPU; no other file names one.

Names and their check, types, copies, streams, memory. Only CUDA copies without waiting and has
two workers: on MPS a second thread ends the process (pytorch#197805), and a copy from memory that
may move, which nobody waits for, arrives wrong (pytorch#189690).
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

# Words for memory that ran out, of the device, of one of its libraries or of the computer; most
# come as plain RuntimeErrors. As in Lightning's and accelerate's lists, and of other devices.
_OUT_OF_MEMORY = (
    "out of memory",  # of CUDA, HIP, XPU and MPS
    "STATUS_ALLOC_FAILED",  # of cuBLAS, cuDNN, cuSOLVER and their HIP names
    "CUDNN_STATUS_NOT_SUPPORTED",  # no algorithm fits into the memory that is free
    "unable to find an engine to execute",
    "Unable to find a valid cuDNN algorithm",
    "DefaultCPUAllocator",  # "can't allocate memory", on Windows "not enough memory"
    "DefaultMPSAllocator",
)
# One stream copies while the other computes.
_N_STREAMS = 2
# Of devices on which one thread at a time may compute.
_alone = ForkSafeLock()


def resolve_device(device: str) -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    device : str
        ``"auto"``: a GPU when there is one, else the CPU. Anything else is taken as it is, and
        never changed silently.

    Returns
    -------
    device : torch.device
        A device that exists, with its number: ``"cuda"`` and ``"cuda:0"`` are one device.

    Raises
    ------
    ValueError
        If the name is no device, or the device is not there.

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
        # Without a number, torch means the thread's current device.
        chosen = torch.empty(0, device=chosen).device
        _check_computes(chosen)
    except (RuntimeError, AssertionError) as error:
        # Builds without a backend raise AssertionError from its lazy start.
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
    """Compute on a device once: a build may see a card and have no code for it."""
    (torch.zeros(1, device=device) + 1).cpu()


def fastest_gpu_type(device: torch.device) -> torch.dtype:
    """Return the fastest type that a device other than the CPU computes in natively."""
    if device.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    # Tensor cores: since Volta (7) for float16, since Ampere (8) for bfloat16.
    return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32


def computes_in(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device other than the CPU has arithmetic of a type, not an emulation."""
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
    """Whether a batch can cross to a device while another is computed there."""
    return device.type == "cuda"


def to_device(batch: AnyArray, device: torch.device) -> torch.Tensor:
    """Send a batch to a device; with CUDA without waiting until it is there."""
    tensor = torch.from_numpy(batch)
    if not copies_while_computing(device):
        return tensor.to(device)
    try:
        # Only memory that cannot move is read while the program goes on. PyTorch keeps it until the
        # copy is done: the event of this stream comes before the memory is given out again.
        tensor = tensor.pin_memory()
    except RuntimeError:
        # Containers and WSL limit such memory. The copy then waits.
        return tensor.to(device)
    return tensor.to(device, non_blocking=True)


def finish_copies(device: torch.device) -> None:
    """Wait until weights that were sent to a GPU are there, for streams that do not wait."""
    if copies_while_computing(device):
        torch.cuda.synchronize(device)


def use_worker_stream(device: torch.device) -> None:
    """Let what this thread starts on a GPU overlap with what the other worker starts."""
    if copies_while_computing(device):
        torch.cuda.set_stream(next(_worker_streams(device)))


@functools.cache
def _worker_streams(device: torch.device) -> Iterator[Any]:
    """Return the streams of a device's workers, in turn, for the life of the process.

    PyTorch keeps memory apart for each stream: with new ones for each call, it would keep what 32
    streams have used.
    """
    cuda: Any = torch.cuda
    return itertools.cycle([cuda.Stream(device) for _ in range(_N_STREAMS)])


def alone_where_needed(device: torch.device) -> AbstractContextManager[Any]:
    """Open a block in which no other thread computes, on devices that take one thread alone."""
    return nullcontext() if device.type in ("cpu", "cuda") else _alone


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory, or the computer's, ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def release_memory(device: torch.device) -> None:
    """Give cached memory of a GPU back, to this process and others."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def float32_switches(device: torch.device) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return PyTorch's switches for shorter types in float32, in `torch.backends`.

    Parameters
    ----------
    device : torch.device
        Where to compute.

    Returns
    -------
    general, single : tuple of str
        Those that others follow, and those of single operations.
    """
    if device.type == "cuda":
        return ("cudnn",), ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
    return ("mkldnn",), ("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
