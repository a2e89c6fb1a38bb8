"""The device that a user named, checked; the only file that says "cuda"."""

from typing import Any

import torch

from .._typing import AnyArray


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
        A device that exists.

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
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        # Builds without a backend raise AssertionError from its lazy start.
        raise ValueError(
            f"device={device!r} cannot be used here ({str(error).splitlines()[0]}). "
            "Use device='auto' or device='cpu'."
        ) from error
    return chosen


def fastest_gpu_type(device: torch.device) -> torch.dtype:
    """Return the fastest type that a device other than the CPU computes in natively."""
    if device.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    # Tensor cores: since Volta (7) for float16, since Ampere (8) for bfloat16.
    return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32


def to_device(batch: AnyArray, device: torch.device) -> torch.Tensor:
    """Send a batch to a device; to a GPU without waiting until it is there."""
    tensor = torch.from_numpy(batch)
    if device.type == "cuda":
        # Only memory that cannot move is read while the program goes on.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def finish_copies(device: torch.device) -> None:
    """Wait until weights that were sent to a GPU are there, for streams that do not wait."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def use_own_stream(device: torch.device) -> None:
    """Let what this thread starts on a GPU overlap with what other threads start."""
    if device.type == "cuda":
        cuda: Any = torch.cuda
        cuda.set_stream(cuda.Stream(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory, or the computer's, ran out."""
    # On a CPU PyTorch has no type for it: "DefaultCPUAllocator: can't allocate memory".
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def release_memory(device: torch.device) -> None:
    """Give cached memory of a GPU back, to this process and others."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
