"""The engine contract, and the choice of an engine by its name."""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import torch
from torch import nn

from .._typing import AnyArray, EngineChoice, FloatArray
from ._openvino import OpenVinoEngine
from ._precision import warn_if_emulated
from ._threads import Workers
from ._torch import TorchEngine

EngineName: TypeAlias = EngineChoice | Literal["compiled"]


class Engine(Protocol):
    """Computes one frozen network on batches."""

    @property
    def computes_where_it_reads(self) -> bool:
        """Whether the thread that reads a batch should also compute it."""

    def batch_size(self, row_shape: Sequence[int] | None = None) -> int:
        """Return the default number of rows in one pass."""

    def workers(self, n_batches: int, n_jobs: int | None) -> Workers:
        """Divide threads among workers, each of which may call `run`."""

    def run(self, batch: AnyArray) -> list[FloatArray]:
        """Compute a batch of shape (n, ...); return one float32 array for each result."""


def make_engine(
    name: EngineName,
    network: nn.Module,
    pools: Sequence[nn.Module],
    *,
    normalize: nn.Module | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Engine:
    """Return the engine with this name for a network; see `TorchEngine` for the parameters.

    Raises `ValueError` if the engine does not run on the device, and warns if that is slow.
    """
    if name != "openvino":
        warn_if_emulated(dtype, device)
        compiled = name == "compiled"
        return TorchEngine(
            network, pools, normalize=normalize, device=device, dtype=dtype, compiled=compiled
        )
    if device.type != "cpu":
        raise ValueError(
            f"engine='openvino' runs on CPUs, and the device is {device}. "
            "Use device='cpu', or engine='torch'."
        )
    return OpenVinoEngine(network, pools, normalize=normalize, dtype=dtype)
