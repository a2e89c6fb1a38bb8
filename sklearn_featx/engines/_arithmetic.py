"""Arithmetic: what the last bits of a row depend on, besides network and image."""

from typing import TypeAlias

import torch

from .._digest import installed_version
from ._engine import EngineName
from ._precision import type_name

Fact: TypeAlias = str | bool


def arithmetic_facts(
    device: torch.device, dtype: torch.dtype, engine: EngineName
) -> tuple[Fact, ...]:
    """Return what roundings depend on.

    PyTorch's settings for products of float32 are not among them: a pass does not follow them.

    Parameters
    ----------
    device : torch.device
        Where to compute. Its kind counts, not its number.
    dtype : torch.dtype
        In which type.
    engine : {"torch", "compiled", "openvino"}
        What runs the network.

    Returns
    -------
    facts : tuple of str or bool
        Engine, kind of device, type, versions of the libraries that compute, and whether oneDNN is
        among them.
    """
    runtime = installed_version("openvino") if engine == "openvino" else ""
    onednn = bool(torch.backends.mkldnn.enabled)
    return engine, device.type, type_name(dtype), str(torch.__version__), runtime, onednn
