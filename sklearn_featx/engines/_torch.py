"""The PyTorch engine: computes a frozen network on batches of pixels or plain numbers."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import fx, nn

from .._graphs import is_reentrant, needs_contiguous, place, plain_new_tensors
from .._parallel import ForkSafeLock
from .._typing import AnyArray, FloatArray
from ._compile import Compiled
from ._device import (
    alone_where_needed,
    copies_while_computing,
    finish_copies,
    is_out_of_memory,
    release_memory,
    to_device,
    use_worker_stream,
)
from ._float32 import full_float32
from ._pass_size import PassSize
from ._rewrite import rewrite_for_inference
from ._sections import MOST_ROWS
from ._threads import Workers, count_threads, share_threads
from ._trunk import Whole, optimize

# Number of rows of 224 x 224 pixels in one pass. A network in sections divides its rows itself. A
# whole network on a CPU gets as many bytes as four rows in float32, so that its maps stay in the
# cache. The numbers are fixed, because the last bits of a row may depend on the number of rows in
# its pass, and another process must compute the same row.
_USUAL_POSITIONS = 224 * 224
_ROWS_IN_SECTIONS = 16
_BYTES_OF_WHOLE_ROWS = 4 * 4
_ROWS_ELSEWHERE = 128
# The GIL serializes the start of operations: more workers would wait for each other.
_MOST_WORKERS = 16


class TorchEngine:
    """Computes one frozen network.

    Parameters
    ----------
    network : nn.Module
        The network, which returns one tensor or a tuple of tensors. A copy of it is rewritten.
    pools : sequence of nn.Module
        The pooling of each of its results on the device, in float32.
    normalize : nn.Module, default=None
        The normalization of a batch before the network, in float32.
    device : torch.device
        The device.
    dtype : torch.dtype, default=torch.float32
        Dtype of weights and activations.
    compiled : bool, default=False
        Whether to compile the network on its first batch.
    """

    def __init__(
        self,
        network: nn.Module,
        pools: Sequence[nn.Module],
        *,
        normalize: nn.Module | None = None,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._network = network
        self._pools = tuple(pools)
        self._normalize = normalize
        self._is_compiled = compiled
        self._whole = self._built(channels_last=True)
        # The whole network for a network that needs contiguous feature maps.
        self._contiguous: nn.Module | None = None
        self._reentrant = is_reentrant(network)
        self._alone = ForkSafeLock()
        in_sections = isinstance(network, fx.GraphModule) and not compiled
        self._usual_rows = _usual_rows(device, dtype, in_sections=in_sections)
        self._pass_size = PassSize()
        self._first_pass = ForkSafeLock()
        # Shapes of batches that have been computed.
        self._known: set[tuple[int, ...]] = set()
        finish_copies(device)

    @plain_new_tensors()
    def _built(self, *, channels_last: bool) -> nn.Module:
        """Return the module that computes a batch, rewritten and optimized."""
        rewritten = rewrite_for_inference(self._network, self.dtype, channels_last=channels_last)
        if self.device.type != "cpu":
            _place_graphs(rewritten, self.device)
        parts = (self._normalize, rewritten, self._pools, self.dtype)
        whole = Whole(*parts, channels_last=channels_last).to(self.device)
        if self._is_compiled:
            return Compiled(whole, self.device)
        return optimize(whole, self.device)

    @property
    def computes_where_it_reads(self) -> bool:
        """Whether the thread that reads a batch should also compute it."""
        return self.device.type == "cpu" and self._reentrant

    def batch_size(self, row_shape: Sequence[int] | None = None) -> int:
        """Return the default number of rows in one pass.

        Parameters
        ----------
        row_shape : sequence of int, default=None
            Shape of one row of the network's input, channels first. None: unknown.
        """
        positions = _USUAL_POSITIONS if row_shape is None else max(1, math.prod(row_shape[1:]))
        rows = max(1, min(MOST_ROWS, self._usual_rows * _USUAL_POSITIONS // positions))
        # With a power of two, claimed rows form the same passes as in a run without a store.
        return int(2 ** math.floor(math.log2(rows)))

    def workers(self, n_batches: int, n_jobs: int | None) -> Workers:
        """Divide threads among workers, each of which may call `run`.

        Parameters
        ----------
        n_batches : int
            Number of batches.
        n_jobs : int or None
            As in the estimators.
        """
        n_threads = count_threads(n_jobs)
        if self.device.type != "cpu":
            # The pixels of one batch are copied while the device computes another.
            overlap = copies_while_computing(self.device) and self._reentrant
            start = partial(use_worker_stream, self.device)
            return Workers(2 if overlap else 1, n_threads, start)
        n_workers = min(n_batches, n_threads, _MOST_WORKERS) if self._reentrant else 1
        return share_threads(n_threads, max(1, n_workers))

    def run(self, batch: AnyArray) -> list[FloatArray]:
        """Compute a batch; if it does not fit into the device's memory, its halves.

        Parameters
        ----------
        batch : ndarray of shape (n, ...)
            The network's input.

        Returns
        -------
        results : list of ndarray of shape (n, ...), float32
            One array for each result of the network.
        """
        parts: list[list[FloatArray]] = []
        start = 0
        while start < len(batch) or not parts:
            rows = batch[start : start + self._pass_size.limit(len(batch) - start)]
            results = self._pass_if_it_fits(rows)
            if results is None:
                # Outside of the exception handler, whose traceback keeps the tensors alive.
                release_memory(self.device)
                self._pass_size.does_not_fit(len(rows))
                continue
            self._pass_size.fits(len(rows))
            parts.append(results)
            start += len(rows)
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(p) for p in zip(*parts, strict=True)]

    def _pass_if_it_fits(self, batch: AnyArray) -> list[FloatArray] | None:
        """Compute some rows; return None if memory is exhausted, raise if it is for one row."""
        try:
            return self._pass(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(batch) <= 1:
                raise
        return None

    def _pass(self, batch: AnyArray) -> list[FloatArray]:
        if not self._reentrant:
            # Threads of the user share the engine too.
            with self._alone:
                return self._computed(batch)
        if self.device.type == "cpu" or batch.shape in self._known:
            return self._computed(batch)
        # Layers may store tensors of their first pass, such as tables of positions; the stream of
        # another worker would not wait for them.
        with self._first_pass:
            results = self._computed(batch)
            self._known.add(batch.shape)
        return results

    def _computed(self, batch: AnyArray) -> list[FloatArray]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(alone_where_needed(self.device))
            if self.dtype is torch.float32:
                stack.enter_context(full_float32(self.device))
            results = self._results(to_device(batch, self.device))
            return [result.cpu().numpy() for result in results]

    def _results(self, batch: torch.Tensor) -> Sequence[torch.Tensor]:
        if self._contiguous is None:
            try:
                results: Sequence[torch.Tensor] = self._whole(batch)
            except RuntimeError as error:
                if not needs_contiguous(error):
                    raise
            else:
                return results
            # Always slower, so only after an error, which does not depend on the values.
            with self._first_pass:
                if self._contiguous is None:
                    self._contiguous = self._built(channels_last=False)
        return cast("Sequence[torch.Tensor]", self._contiguous(batch))


def _place_graphs(network: nn.Module, device: torch.device) -> None:
    """Replace the devices that tracing has recorded by the device of the engine."""
    for part in network.modules():
        if isinstance(part, fx.GraphModule) and place(part.graph, device):
            part.recompile()


def _usual_rows(device: torch.device, dtype: torch.dtype, *, in_sections: bool) -> int:
    """Return the number of rows of 224 x 224 pixels in one pass."""
    if device.type != "cpu":
        return _ROWS_ELSEWHERE
    return _ROWS_IN_SECTIONS if in_sections else _BYTES_OF_WHOLE_ROWS // dtype.itemsize
