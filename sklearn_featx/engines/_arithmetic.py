"""Arithmetic facts: everything but network and image that the last bits of a row depend on."""

from typing import TypeAlias

import torch

from .._digest import installed_version
from ._engine import EngineName
from ._precision import type_name

Fact: TypeAlias = str | bool


def arithmetic_facts(
    device: torch.device, dtype: torch.dtype, engine: EngineName
) -> tuple[Fact, ...]:
    """Return the facts that roundings depend on.

    PyTorch's settings for float32 products are not included, because a pass overrides them.

    Parameters
    ----------
    device : torch.device
        The device; only its type is included, not its number.
    dtype : torch.dtype
        The dtype of weights and activations.
    engine : {"torch", "compiled", "openvino"}
        The engine.

    Returns
    -------
    facts : tuple of str or bool
        Engine, type of device, dtype, versions of the computing libraries, and whether oneDNN is
        enabled.
    """
    runtime = installed_version("openvino") if engine == "openvino" else ""
    onednn = bool(torch.backends.mkldnn.enabled)
    return engine, device.type, type_name(dtype), str(torch.__version__), runtime, onednn
