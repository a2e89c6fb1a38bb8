"""The precision: validation of a dtype for a device, and the choice of the fastest one."""

import functools
import platform
import time

import torch

from .._messages import user_level, warn_once
from .._typing import Precision
from ..exceptions import SlowPrecisionWarning
from ._device import computes_in, fastest_gpu_type

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Side of the matrices whose product is timed, and number of repetitions: milliseconds in total.
_TIMED_SIDE = 512
_N_TIMED = 4
# The minimum speedup. Processors with bfloat16 instructions differ by much more: it is
# faster than float32 on some and slower on others.
_WORTHWHILE = 1.25


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in.

    Parameters
    ----------
    precision : {"float32", "bfloat16", "float16", "auto"}
        ``"auto"``: the fastest dtype that the device computes in natively, which is measured once
        per process on a CPU with bfloat16. Other values are not changed.
    device : torch.device
        The device.

    Returns
    -------
    dtype : torch.dtype
        The dtype of weights and activations.

    Raises
    ------
    ValueError
        If the device does not compute in this dtype natively: some processors in float16, a GPU
        before Ampere in bfloat16, which PyTorch would emulate. If convolutions in bfloat16 are
        wrong on this processor.

    Examples
    --------
    >>> import torch
    >>> from sklearn_featx.engines import resolve_precision
    >>> resolve_precision("bfloat16", torch.device("cpu"))
    torch.bfloat16
    """
    if precision == "auto":
        return _fastest(device)
    dtype = _TYPES[precision]
    if device.type != "cpu":
        if not computes_in(device, dtype):
            raise ValueError(
                f"precision={precision!r}: the device {device} does not compute in it. Use "
                "precision='float32' or 'auto'."
            )
    elif precision == "float16" and not _cpu_has("avx512_fp16", "amx_fp16", "fp16_arith"):
        raise ValueError(
            "precision='float16': this processor does not compute in 16-bit floats. Use "
            "'bfloat16', 'float32' or 'auto'."
        )
    elif precision == "bfloat16" and not _convolves_in_bfloat16():
        raise ValueError(
            f"precision='bfloat16': PyTorch {torch.__version__} computes convolutions in bfloat16 "
            "wrongly on this processor. Use 'float32' or 'auto'."
        )
    return dtype


def warn_if_emulated(dtype: torch.dtype, device: torch.device) -> None:
    """Warn if PyTorch computes in a dtype for which the processor has no instructions.

    Parameters
    ----------
    dtype : torch.dtype
        The dtype to compute in.
    device : torch.device
        The device.

    Warns
    -----
    SlowPrecisionWarning
        For bfloat16 on x86 processors without AVX-512, where three networks took 9 to 22 times as
        long as in float32.
    """
    if dtype is torch.bfloat16 and device.type == "cpu" and not _has_bfloat16_kernels():
        warn_once(
            "precision='bfloat16': this processor has no instructions for bfloat16, which PyTorch "
            "emulates in about ten times the time of float32. Use precision='auto'.",
            SlowPrecisionWarning,
            stacklevel=user_level(),
        )


@functools.cache
def _has_bfloat16_kernels() -> bool:
    """Whether oneDNN has kernels for bfloat16: on x86, AVX-512 suffices, which converts fast."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return True
    return _cpu_has("avx512", "avx512_bw", "avx_ne_convert", "amx_tile")


def type_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def _fastest(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_gains_by_bfloat16() else torch.float32
    return fastest_gpu_type(device)


@functools.cache
def _cpu_gains_by_bfloat16() -> bool:
    """Whether the processor is measured to be faster in bfloat16 than in float32."""
    if not _cpu_has("avx512_bf16", "amx_bf16", "amx_tile") or not _convolves_in_bfloat16():
        return False
    try:
        seconds = [
            (_time_product(torch.float32), _time_product(torch.bfloat16)) for _ in range(_N_TIMED)
        ]
    except RuntimeError:
        return False
    of_float32, of_bfloat16 = map(min, zip(*seconds, strict=True))
    return bool(of_float32 >= _WORTHWHILE * of_bfloat16)


@functools.cache
def _convolves_in_bfloat16() -> bool:
    """Whether small sums are exact: on some processors, PyTorch 2.5 gave 1 for four ones."""
    shapes = [(1, 1, 2, 2), (8, 1, 3, 3), (8, 8, 1, 1), (16, 16, 3, 3)]
    try:
        return all(_is_exact(*shape) for shape in shapes)
    except RuntimeError:
        return False


def _is_exact(channels: int, depth: int, height: int, width: int) -> bool:
    """Whether a convolution of ones gives the number of its products."""
    image = torch.ones(1, channels, height, width, dtype=torch.bfloat16, device="cpu")
    weight = torch.ones(channels, depth, height, width, dtype=torch.bfloat16, device="cpu")
    with torch.inference_mode():
        sums = torch.conv2d(image, weight, groups=channels // depth)
    return bool((sums == depth * height * width).all())


def _time_product(dtype: torch.dtype) -> float:
    matrix = torch.ones(_TIMED_SIDE, _TIMED_SIDE, dtype=dtype, device="cpu")
    start = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - start


def _cpu_has(*capabilities: str) -> bool:
    """Whether PyTorch reports that the processor has one of the instruction sets."""
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)
    if get_capabilities is not None:
        known = get_capabilities()
        return any(known.get(name, False) for name in capabilities)
    # Before PyTorch 2.11, some instruction sets have a function of their own.
    tests = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in capabilities)
    return any(test() for test in tests if test is not None)
