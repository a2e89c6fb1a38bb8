"""Full float32 precision: products are not rounded, whatever PyTorch's settings are.

GPUs since Ampere compute float32 convolutions in TF32, with 11 significant bits, by default, and
`torch.set_float32_matmul_precision` allows products in TF32 or bfloat16, on some CPUs too. A cached
row would depend on the GPU and on settings that are not part of its key.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch

from .._parallel import ForkSafeLock
from ._device import float32_switches

_FULL = ("ieee", "none")


class _Passes:
    """The running float32 passes: the first one sets the switches, the last one resets them.

    The switches belong to the process, so another thread of the user also computes in full float32
    in the meantime.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._n_inside = 0
        self._undo: list[Callable[[], None]] = []

    def enter(self, device: torch.device) -> None:
        with self._lock:
            self._n_inside += 1
            # Every pass sets them, since a user may have changed a switch between two passes.
            self._undo += _set_full(device)

    def leave(self) -> None:
        with self._lock:
            self._n_inside -= 1
            while not self._n_inside and self._undo:
                self._undo.pop()()


_passes = _Passes()


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Context manager: float32 products are not rounded to shorter dtypes in the block."""
    _passes.enter(device)
    try:
        yield
    finally:
        _passes.leave()


def _set_full(device: torch.device) -> list[Callable[[], None]]:
    """Disable shorter dtypes; return the functions that undo this, to be called in reverse."""
    if not hasattr(torch.backends, "fp32_precision"):
        return _set_full_before_2_9(device)
    general, single = float32_switches(device)
    if all(attrgetter(path)(torch.backends).fp32_precision in _FULL for path in single):
        return []
    undo = []
    # The general switches come first, so that switches that inherit from them are not set.
    owners = [torch.backends, *(attrgetter(path)(torch.backends) for path in (*general, *single))]
    for owner in owners:
        if owner.fp32_precision != "ieee":
            undo.append(_setter(owner, "fp32_precision", owner.fp32_precision))
            owner.fp32_precision = "ieee"
    return undo


def _set_full_before_2_9(device: torch.device) -> list[Callable[[], None]]:
    """Do the same with the switches of PyTorch before 2.9, for products and for cuDNN."""
    undo: list[Callable[[], None]] = []
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
        undo.append(lambda: torch.set_float32_matmul_precision(precision))
    if device.type != "cpu" and torch.backends.cudnn.allow_tf32:
        undo.append(_setter(torch.backends.cudnn, "allow_tf32", True))
        torch.backends.cudnn.allow_tf32 = False
    return undo


def _setter(owner: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)
