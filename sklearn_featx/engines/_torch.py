"""The engine of PyTorch: runs a frozen module on batches of pixels or plain tensors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from .._typing import AnyArray, FloatArray
from ._device import default_batch_size, is_out_of_memory, memory_released
from ._rewrite import rewrite_for_inference


class TorchEngine:
    """Runs one frozen module.

    Parameters
    ----------
    module : nn.Module
        Returns one tensor or a tuple of tensors; it is copied, and the copy is rewritten.
    pools : sequence of nn.Module
        What is done to each of its results before they leave the device.
    device : torch.device
        Where to compute.
    """

    def __init__(
        self,
        module: nn.Module,
        pools: Sequence[nn.Module],
        *,
        device: torch.device,
    ) -> None:
        self._module = rewrite_for_inference(module).to(device)
        self._pools = tuple(pools)
        self.device = device
        self.n_rows_run = 0

    @property
    def batch_size(self) -> int:
        """Rows in one pass when the user leaves the choice to the engine."""
        return default_batch_size(self.device)

    def run(self, batch: AnyArray) -> list[FloatArray]:
        """Run a batch; where the device's memory does not hold it, its halves.

        Parameters
        ----------
        batch : ndarray of shape (n, ...)
            What the module takes.

        Returns
        -------
        results : list of ndarray of shape (n, ...), float32
            One array for each result of the module.
        """
        try:
            with torch.inference_mode():
                results = [result.float().cpu().numpy() for result in self._forward(batch)]
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
            half = len(batch) // 2
            with memory_released(self.device):
                parts = [self.run(batch[:half]), self.run(batch[half:])]
            return [np.concatenate(pair) for pair in zip(*parts, strict=True)]
        self.n_rows_run += len(batch)
        return results

    def _forward(self, batch: AnyArray) -> list[torch.Tensor]:
        x = torch.from_numpy(batch).to(self.device, non_blocking=True)
        outputs = self._module(x)
        found = outputs if isinstance(outputs, tuple) else (outputs,)
        return [pool(output) for pool, output in zip(self._pools, found, strict=True)]
