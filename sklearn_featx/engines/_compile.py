"""Compiled networks: PyTorch's compiler, with the plain network as fallback."""

import warnings
from typing import Any

import torch
from torch import nn

from .._messages import cause
from .._parallel import ForkSafeLock
from ..exceptions import FeatxWarning
from ._device import is_out_of_memory
from ._trunk import Whole, optimize


class Compiled(nn.Module):
    """A module that is compiled on its first batch, with batches padded to one size.

    If the compilation fails, it warns once and runs without the compiler.

    Parameters
    ----------
    whole : Whole
        The module.
    device : torch.device
        Its device.
    """

    def __init__(self, whole: Whole, device: torch.device) -> None:
        super().__init__()
        self._plain = whole
        self._device = device
        # The compiled code has a fixed number of threads; each CPU worker has one.
        options: dict[str, Any] = {}
        if device.type == "cpu":
            options = {"freezing": True, "cpp.threads": 1}
        self._run = torch.compile(whole, dynamic=False, options=options)
        # The fallback after a failed compilation.
        self._uncompiled: nn.Module | None = None
        self._lock = ForkSafeLock()
        # Dtypes and shapes of compiled batches.
        self._known: set[tuple[torch.dtype, torch.Size]] = set()
        self._n_rows = 0

    def forward(self, batch: torch.Tensor) -> Any:
        if self._uncompiled is not None:
            return self._uncompiled(batch)
        n_rows = len(batch)
        self._n_rows = max(self._n_rows, n_rows)
        try:
            results = self._results(_filled(batch, self._n_rows))
        except RuntimeError as error:
            if is_out_of_memory(error):
                # The next batches are halves, which must not be padded to the former size.
                self._n_rows = 0
            raise
        return [result[:n_rows] for result in results]

    def _results(self, batch: torch.Tensor) -> Any:
        kind = (batch.dtype, batch.shape)
        if kind in self._known:
            return self._run(batch)
        # One worker compiles while the others wait.
        with self._lock:
            if self._uncompiled is None and kind not in self._known:
                self._compile(batch)
                self._known.add(kind)
        return (self._uncompiled or self._run)(batch)

    def _compile(self, batch: torch.Tensor) -> None:
        """Compile for the size of a batch; if this fails, use the plain network from now on."""
        try:
            self._run(batch)
        except Exception as error:
            # A system without the compiler's tools may raise errors of any type.
            if is_out_of_memory(error):
                raise
            uncompiled = optimize(self._plain, self._device)
            # An error of the batch itself is raised here, without blaming the compiler.
            uncompiled(batch)
            warnings.warn(
                f"compile=True: the network cannot be compiled here ({cause(error)}). It runs as "
                "with compile=False.",
                FeatxWarning,
                stacklevel=2,
            )
            self._uncompiled = uncompiled


def _filled(batch: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Repeat the last row until there are `n_rows`."""
    missing = n_rows - len(batch)
    if missing <= 0:
        return batch
    return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])])
