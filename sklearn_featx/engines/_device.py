"""The device that a user named, checked; the only file that says "cuda"."""

import contextlib
from collections.abc import Iterator

import torch


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


def default_batch_size(device: torch.device) -> int:
    """Rows in one pass: few on a CPU, so that activations stay in its cache, many elsewhere."""
    return 8 if device.type == "cpu" else 128


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError)


@contextlib.contextmanager
def memory_released(device: torch.device) -> Iterator[None]:
    """After the block, give cached memory of a GPU back to other processes."""
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
