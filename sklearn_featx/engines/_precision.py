"""In which type a device computes: what a user named, checked, or the fastest that it has."""

from typing import Literal, TypeAlias

import torch

from ._device import fastest_gpu_type

Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "auto"]

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type to compute in.

    Parameters
    ----------
    precision : {"float32", "bfloat16", "float16", "auto"}
        ``"auto"``: the fastest type that the device computes in natively. Another is never changed.
    device : torch.device
        Where to compute.

    Returns
    -------
    dtype : torch.dtype
        The type of weights and activations.

    Raises
    ------
    ValueError
        If the processor has no arithmetic of 16-bit floats for ``"float16"``.

    Examples
    --------
    >>> import torch
    >>> from sklearn_featx.engines import resolve_precision
    >>> resolve_precision("bfloat16", torch.device("cpu"))
    torch.bfloat16
    """
    if precision == "auto":
        return _fastest(device)
    if precision == "float16" and device.type == "cpu" and not _cpu_has_float16():
        raise ValueError(
            "precision='float16': this processor does not compute in 16-bit floats. Use "
            "'bfloat16', 'float32' or 'auto'."
        )
    return _TYPES[precision]


def type_name(dtype: torch.dtype) -> str:
    """Return the name of a type, as a user writes it."""
    return str(dtype).removeprefix("torch.")


def _fastest(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    return fastest_gpu_type(device)


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself: oneDNN also emulates it, slowly."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, test, bool)() for test in tests)
    return native and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cpu_has_float16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
