"""The engine of PyTorch: runs a frozen module on batches of pixels or plain tensors."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import fx, nn

from .._typing import AnyArray, FloatArray
from ._compile import compile_for
from ._device import finish_copies, is_out_of_memory, release_memory, to_device, use_own_stream
from ._rewrite import is_of_library, rewrite_for_inference
from ._sections import MOST_ROWS
from ._threads import Workers, count_threads, share_threads
from ._whole import Whole, optimize

# Positions of an image of 224 x 224 pixels, and rows of that size in one pass. A network in
# sections divides its rows itself. One that runs as a whole on a CPU gets few, so that its maps
# stay in the cache: as many as fit into the bytes of four rows in float32.
# Fixed: the last bits of a row may depend on the number of rows in its pass, and a row that another
# process computes again is to be the same.
_USUAL_POSITIONS = 224 * 224
_ROWS_IN_SECTIONS = 16
_BYTES_OF_WHOLE_ROWS = 4 * 4
_ROWS_ELSEWHERE = 128
# Python starts every operation, for one thread at a time: more workers would wait for each other.
_MOST_WORKERS = 16


class TorchEngine:
    """Runs one frozen network.

    Parameters
    ----------
    network : nn.Module
        Returns one tensor or a tuple of tensors; it is copied, and the copy is rewritten.
    pools : sequence of nn.Module
        What is done to each of its results before they leave the device, in float32.
    normalise : nn.Module, default=None
        What is done to a batch before the network, in float32.
    device : torch.device
        Where to compute.
    dtype : torch.dtype, default=torch.float32
        Type of weights and activations.
    compiled : bool, default=False
        Whether to compile the network on its first batch.
    """

    def __init__(
        self,
        network: nn.Module,
        pools: Sequence[nn.Module],
        *,
        normalise: nn.Module | None = None,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        self.device = device
        self.dtype = dtype
        rewritten = rewrite_for_inference(network, dtype)
        # Modules of others may keep notes on themselves, which two threads would mix up.
        self._reentrant = all(is_of_library(part) for part in rewritten.modules())
        whole = Whole(normalise, rewritten, pools, dtype).to(device)
        self._whole: nn.Module = compile_for(whole, device) if compiled else optimize(whole, device)
        in_sections = isinstance(rewritten, fx.GraphModule) and not compiled
        self._usual_rows = _usual_rows(device, dtype, in_sections=in_sections)
        self._most_rows: int | None = None
        finish_copies(device)

    @property
    def computes_where_it_reads(self) -> bool:
        """Whether the thread that reads a batch is the best one to compute it."""
        return self.device.type == "cpu" and self._reentrant

    def batch_size(self, row_shape: Sequence[int] | None = None) -> int:
        """Rows in one pass when the user leaves the choice to the engine.

        Parameters
        ----------
        row_shape : sequence of int, default=None
            Shape of what enters the network for one row, channels first; None: not known.
        """
        positions = _USUAL_POSITIONS if row_shape is None else max(1, math.prod(row_shape[1:]))
        rows = max(1, min(MOST_ROWS, self._usual_rows * _USUAL_POSITIONS // positions))
        # A power of two: the rows of a claim are then cut as those of a run without a store.
        return int(2 ** math.floor(math.log2(rows)))

    def workers(self, n_batches: int, n_jobs: int | None) -> Workers:
        """Divide threads among workers, each of which may call `run`.

        Parameters
        ----------
        n_batches : int
            How many batches there are to run.
        n_jobs : int or None
            As in the estimators.
        """
        n_threads = count_threads(n_jobs)
        if self.device.type != "cpu":
            # The pixels of one batch cross to the device while another is computed there.
            return Workers(2, n_threads, partial(use_own_stream, self.device))
        n_workers = min(n_batches, n_threads, _MOST_WORKERS) if self._reentrant else 1
        return share_threads(n_threads, max(1, n_workers))

    def run(self, batch: AnyArray) -> list[FloatArray]:
        """Run a batch; where the device's memory does not hold it, its halves.

        Parameters
        ----------
        batch : ndarray of shape (n, ...)
            What the network takes.

        Returns
        -------
        results : list of ndarray of shape (n, ...), float32
            One array for each result of the network.
        """
        step = min(len(batch), self._most_rows or len(batch))
        try:
            parts = [self._pass(batch[i : i + step]) for i in range(0, len(batch), step)]
        except RuntimeError as error:
            if not is_out_of_memory(error) or step == 1:
                raise
        else:
            return (
                parts[0]
                if len(parts) == 1
                else [np.concatenate(p) for p in zip(*parts, strict=True)]
            )
        # Outside of the handler: the error's traceback keeps the tensors of the failed pass alive.
        release_memory(self.device)
        self._most_rows = step // 2
        return self.run(batch)

    def _pass(self, batch: AnyArray) -> list[FloatArray]:
        with torch.inference_mode():
            results = self._whole(to_device(batch, self.device))
            return [result.cpu().numpy() for result in results]


def _usual_rows(device: torch.device, dtype: torch.dtype, *, in_sections: bool) -> int:
    """Rows of 224 x 224 in one pass."""
    if device.type != "cpu":
        return _ROWS_ELSEWHERE
    return _ROWS_IN_SECTIONS if in_sections else _BYTES_OF_WHOLE_ROWS // dtype.itemsize
