"""Compiled networks: PyTorch's compiler on the first batch, and the plain engine where it fails."""

import warnings
from typing import Any

import torch
from torch import nn

from .._parallel import ForkSafeLock
from ..exceptions import FeatxWarning
from ._device import is_out_of_memory
from ._trunk import Whole, optimize


def compile_for(whole: Whole, device: torch.device) -> nn.Module:
    """Return a module that is compiled on its first batch.

    If compiling fails, it warns once and runs as without the compiler.
    """
    return _Compiled(whole, device)


class _Compiled(nn.Module):
    """A compiled module; batches are padded to one size, since each size is compiled again."""

    def __init__(self, whole: Whole, device: torch.device) -> None:
        super().__init__()
        self._plain = whole
        self._device = device
        # The compiler writes the number of threads into its code; on a CPU, workers have one each.
        options: dict[str, Any] = {}
        if device.type == "cpu":
            options = {"freezing": True, "cpp.threads": 1}
        self._run = torch.compile(whole, dynamic=False, options=options)
        # Runs in place of the compiled network once compiling has failed.
        self._uncompiled: nn.Module | None = None
        self._lock = ForkSafeLock()
        # Types and shapes of batches.
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
                # The halves that come next are not to be filled up again.
                self._n_rows = 0
            raise
        return [result[:n_rows] for result in results]

    def _results(self, batch: torch.Tensor) -> Any:
        kind = (batch.dtype, batch.shape)
        if kind in self._known:
            return self._run(batch)
        # One worker compiles, the others wait for it.
        with self._lock:
            if self._uncompiled is None and kind not in self._known:
                self._compile(batch)
                self._known.add(kind)
        return (self._uncompiled or self._run)(batch)

    def _compile(self, batch: torch.Tensor) -> None:
        """Compile for the size of a batch; if that fails, do without the compiler from now on."""
        try:
            self._run(batch)
        except Exception as error:
            # The compiler fails in as many ways as there are systems without its tools.
            if is_out_of_memory(error):
                raise
            uncompiled = optimize(self._plain, self._device)
            # What is wrong with the batch fails here too, and is no matter of the compiler.
            uncompiled(batch)
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"compile=True: the network cannot be compiled here ({type(error).__name__}: "
                f"{reason}). It runs as with compile=False.",
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
