"""The engine of OpenVINO: a frozen module, converted, on the cores of a CPU."""

import functools
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .._optional import import_optional
from .._parallel import ForkSafeLock
from .._typing import AnyArray, FloatArray
from ..exceptions import BackboneError
from ._rewrite import rewrite_for_inference
from ._rounding import round_convolutions
from ._threads import Workers, count_threads, share_threads
from ._trunk import Whole

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# A row runs alone, which is as fast as more: a batch is what one worker gets at once.
_ROWS = 4
# Two threads that make an engine must not start two cores.
_starting = ForkSafeLock()


class OpenVinoEngine:
    """Runs one frozen network, row by row; rows do not depend on their batch in any bit.

    Parameters
    ----------
    network : nn.Module
        Returns one tensor or a tuple of tensors; it is left as it is.
    pools : sequence of nn.Module
        What is done to each of its results, in float32.
    normalize : nn.Module, default=None
        What is done to a batch before the network, in float32.
    dtype : torch.dtype, default=torch.float32
        Type of weights and activations.

    Raises
    ------
    MissingDependencyError
        If OpenVINO is not installed.
    """

    computes_where_it_reads = True

    def __init__(
        self,
        network: nn.Module,
        pools: Sequence[nn.Module],
        *,
        normalize: nn.Module | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        with _starting:
            self._openvino = _import_openvino()
            self._core = _core(self._openvino)
        self._precision = _PRECISIONS[dtype]
        rewritten = rewrite_for_inference(network)
        # OpenVINO rounds weights to nearest; those that have the type's values already it keeps.
        if dtype is not torch.float32:
            round_convolutions(rewritten, dtype)
        self._whole = Whole(normalize, rewritten, pools, torch.float32).eval()
        self._lock = ForkSafeLock()
        # Rows that can run at the same time.
        self._n_streams = 1
        # By type and shape of a row, which are part of a compiled network.
        self._compiled: dict[tuple[str, tuple[int, ...]], _Compiled] = {}

    def batch_size(self, row_shape: Sequence[int] | None = None) -> int:  # noqa: ARG002
        """Rows that one worker gets at once."""
        return _ROWS

    def workers(self, n_batches: int, n_jobs: int | None) -> Workers:
        """Divide threads among workers, as `TorchEngine.workers`."""
        n_threads = count_threads(n_jobs)
        with self._lock:
            if n_threads > self._n_streams:
                # Asked here, not where a network is compiled: a worker may use one thread alone.
                self._n_streams = n_threads
                self._compiled.clear()
        return share_threads(n_threads, max(1, min(n_batches, n_threads)))

    def run(self, batch: AnyArray) -> list[FloatArray]:
        """Run a batch.

        Parameters
        ----------
        batch : ndarray of shape (n, ...)
            What the network takes.

        Returns
        -------
        results : list of ndarray of shape (n, ...), float32
            One array for each result of the network.

        Raises
        ------
        BackboneError
            If OpenVINO cannot take the network.
        """
        compiled = self._compiled_for(batch)
        requests = [compiled.start(batch[i : i + 1]) for i in range(len(batch))]
        rows = [compiled.finish(request) for request in requests]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _compiled_for(self, batch: AnyArray) -> "_Compiled":
        # One worker compiles, the others wait for it.
        with self._lock:
            key = (batch.dtype.str, batch.shape[1:])
            if key not in self._compiled:
                self._compiled[key] = self._compile(torch.from_numpy(batch[:1]))
            return self._compiled[key]

    def _compile(self, example: torch.Tensor) -> "_Compiled":
        try:
            with torch.no_grad():
                exported = torch.export.export(self._whole, (example,))
            model = self._openvino.convert_model(exported)
            model.reshape(list(example.shape))
            settings = {
                "INFERENCE_PRECISION_HINT": self._precision,
                # A row for each thread, not the threads of a row: as many rows as workers.
                "INFERENCE_NUM_THREADS": self._n_streams,
                "NUM_STREAMS": self._n_streams,
            }
            return _Compiled(self._core.compile_model(model, "CPU", settings))
        except Exception as error:
            # Export and conversion fail in many ways, on anything that they do not know.
            reason = str(error).strip().partition("\n")[0]
            raise BackboneError(
                f"engine='openvino' cannot take this network ({type(error).__name__}: {reason}). "
                "Use engine='torch'."
            ) from error


class _Compiled:
    """A network for rows of one shape, and the requests that run it."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: deque[Any] = deque()

    def start(self, row: AnyArray) -> Any:
        """Start to run a row; return the request, which is the caller's until it is finished."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.start_async({0: row})
        return request

    def finish(self, request: Any) -> list[FloatArray]:
        """Wait for a request, and return what the network returns for its row."""
        request.wait()
        # Copies: the request's memory is written to in its next run.
        results = [np.array(result) for result in request.results.values()]
        self._idle.append(request)
        return results


@functools.cache
def _core(openvino: Any) -> Any:
    """Return the one core of this process, which is never given up.

    A core has the thread that first uses it take signals on memory of the core's own, and when it
    ends gives back what the thread had before. Of two, that can be the memory of one that has
    ended, and the next Ctrl-C ends the process.
    """
    return openvino.Core()


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    It reports its import and each conversion to its makers, unless ``openvino_telemetry`` is not
    installed. Here that package is hidden during the import, if the user's program has not imported
    one of the two itself.
    """
    telemetry = "openvino_telemetry"
    hidden = "openvino" not in sys.modules and telemetry not in sys.modules
    if hidden:
        sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        return import_optional("openvino", extra="openvino", purpose="engine='openvino'")
    finally:
        if hidden:
            del sys.modules[telemetry]
