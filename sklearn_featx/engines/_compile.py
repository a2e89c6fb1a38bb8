"""Compiled networks: PyTorch's compiler on the first batch, and without it where that fails."""

import threading
import warnings
from typing import Any

import torch
from torch import nn

from ..exceptions import FeatxWarning
from ._device import is_out_of_memory
from ._onednn import fused_for


def compile_for(module: nn.Module, device: torch.device) -> nn.Module:
    """Return a module that is compiled on its first batch.

    Parameters
    ----------
    module : nn.Module
        A frozen module, the caller's own copy.
    device : torch.device
        Where it is.

    Returns
    -------
    compiled : nn.Module
        Where compiling fails it warns once, and goes on without.
    """
    return _Compiled(module, device)


class _Compiled(nn.Module):
    """A compiled module; batches are filled up to one size, since each size is compiled anew."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self._plain = module
        self._device = device
        # The compiler writes the number of threads into its code; on a CPU, workers have one each.
        options: dict[str, Any] = {}
        if device.type == "cpu":
            options = {"freezing": True, "cpp.threads": 1}
        self._run = torch.compile(module, dynamic=False, options=options)
        self._lock = threading.Lock()
        self._known: set[tuple[int, ...]] = set()
        self._n_rows = 0
        self._failed = False

    def forward(self, batch: torch.Tensor) -> Any:
        n_rows = len(batch)
        self._n_rows = max(self._n_rows, n_rows)
        try:
            results = self._results(batch if self._failed else _filled(batch, self._n_rows))
        except RuntimeError as error:
            if is_out_of_memory(error):
                # The halves that come next are not to be filled up again.
                self._n_rows = 0
            raise
        return [result[:n_rows] for result in results]

    def _results(self, batch: torch.Tensor) -> Any:
        if self._failed:
            return self._plain(batch)
        if tuple(batch.shape) in self._known:
            return self._run(batch)
        # One worker compiles, the others wait for it.
        with self._lock:
            results = self._first(batch)
        self._known.add(tuple(batch.shape))
        return results

    def _first(self, batch: torch.Tensor) -> Any:
        if self._failed:
            return self._plain(batch)
        try:
            return self._run(batch)
        except Exception as error:
            # The compiler fails in as many ways as there are systems without its tools.
            if is_out_of_memory(error):
                raise
            results = fused_for(self._plain, self._device)(batch)
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"compile=True: the network cannot be compiled here ({type(error).__name__}: "
                f"{reason}). It runs as with compile=False.",
                FeatxWarning,
                stacklevel=2,
            )
            self._failed = True
            return results


def _filled(batch: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Repeat the last row until there are `n_rows`."""
    missing = n_rows - len(batch)
    if missing <= 0:
        return batch
    return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])])
