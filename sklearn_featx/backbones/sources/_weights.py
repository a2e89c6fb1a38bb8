"""Weights: reading files without executing code, and loading state dicts completely."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from ..._messages import cause, short, shown
from ..._optional import import_optional
from ...exceptions import FeatxError, WeightsError

StateDict = Mapping[str, torch.Tensor]


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exists(path: Path) -> bool:
    """Whether a path exists; False for a path that the system rejects, such as a too long one."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a weights file without executing code from it.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file, or a file of `torch.save` that contains only tensors.

    Returns
    -------
    state : dict of str to torch.Tensor
        The tensors, on the CPU. The ``"state_dict"`` or ``"model"`` entry of a checkpoint is
        unwrapped, and the ``"module."`` prefix of data-parallel training is removed.

    Raises
    ------
    WeightsError
        If the file does not exist or contains other objects than tensors.
    """
    if not (exists(path) and path.is_file()):
        what = "is a folder, not a file" if exists(path) else "does not exist"
        raise WeightsError(f"weights: the file {shown(str(path))} {what}. Pass a weights file.")
    if path.suffix == ".safetensors":
        safetensors = import_optional(
            "safetensors.torch", extra="safetensors", purpose="A .safetensors file"
        )
        loaded = _attempt(lambda: safetensors.load_file(path), path)
    else:
        loaded = _attempt(lambda: torch.load(path, map_location="cpu", weights_only=True), path)
    return _state_of(loaded, path)


def load_state(
    module: nn.Module,
    state: StateDict,
    *,
    source: str,
    ignored: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> None:
    """Load a state dict; all keys must match, except the given prefixes.

    Parameters
    ----------
    module : nn.Module
        The network to fill, in place.
    state : mapping of str to torch.Tensor
        The weights.
    source : str
        Origin of the weights, for messages.
    ignored : tuple of str, default=()
        Prefixes of keys that may be missing or of another shape: the classification head.
    optional : tuple of str, default=()
        Prefixes of keys that the network may lack: auxiliary heads.

    Raises
    ------
    WeightsError
        If keys are missing, unexpected or of another shape.
    """
    missing, unexpected, misfits = _differences(module, state, ignored, optional)
    if missing or unexpected or misfits:
        raise WeightsError(
            f"weights: {shown(source)} does not fit the network. Missing: {_some(missing)}; "
            f"unexpected: {_some(unexpected)}; of another shape: {_some(misfits)}. Check backbone."
        )
    own = module.state_dict()
    fitting = OrderedDict((k, v) for k, v in state.items() if k in own and v.shape == own[k].shape)
    # Some modules do not load without the version of their class.
    fitting._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(fitting, strict=False)


def fits(module: nn.Module, state: StateDict, *, optional: tuple[str, ...] = ()) -> bool:
    """Whether a state dict can be loaded, ignoring keys that begin with `optional`."""
    return not any(_differences(module, state, (), optional))


def _differences(
    module: nn.Module, state: StateDict, ignored: tuple[str, ...], optional: tuple[str, ...]
) -> tuple[list[str], list[str], list[str]]:
    """Return the keys that are missing, unexpected, and of another shape (with both shapes)."""
    own = module.state_dict()
    # Files from before PyTorch 0.4.1 lack batch counters, which inference does not use.
    missing = [
        k
        for k in own
        if k not in state and not k.startswith(ignored) and not k.endswith("num_batches_tracked")
    ]
    unexpected = [k for k in state if k not in own and not k.startswith((*ignored, *optional))]
    misfits = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape and not k.startswith(ignored)
    ]
    return missing, unexpected, misfits


def _attempt(load: Callable[[], object], path: Path) -> object:
    try:
        return load()
    except Exception as error:
        # The readers raise many types of errors, from UnpicklingError to struct.error.
        raise WeightsError(
            f"weights: {shown(str(path))} cannot be read as tensors ({_why(error)}). Other "
            "objects are refused, since reading them could run code. Save the network's "
            "state_dict() instead."
        ) from error


def _why(error: Exception) -> str:
    """Return the reason of a failure in one line, without torch's advice, which does not apply."""
    if isinstance(error, FeatxError):
        return str(error)
    if "weights_only" in str(error):
        return "it contains more than tensors, or is no file of torch.save"
    return "the file is damaged or incomplete" if "archive" in str(error) else cause(error)


def _state_of(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    for entry in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(entry), Mapping):
            loaded = loaded[entry]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise WeightsError(
            f"weights: {shown(str(path))} contains no state dict of tensors. Save state_dict()."
        )
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(short(name) for name in names[:2]) + more
