"""The engine of OpenVINO: a frozen module, converted, on the cores of a CPU."""

import functools
import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from .._optional import import_optional
from .._typing import AnyArray, FloatArray
from ..exceptions import BackboneError
from ._rewrite import rewrite_for_inference
from ._rounding import round_convolutions
from ._threads import Workers, count_threads, share_threads
from ._whole import Whole

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# A row runs alone, which is as fast as more: a batch is what is handed to a worker at a time.
_ROWS = 4
# Two threads that make an engine must not start two cores.
_starting = threading.Lock()


class OpenVinoEngine:
    """Runs one frozen network, row by row; rows do not depend on their batch in any bit.

    Parameters
    ----------
    network : nn.Module
        Returns one tensor or a tuple of tensors; it is left as it is.
    pools : sequence of nn.Module
        What is done to each of its results, in float32.
    normalise : nn.Module, default=None
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
        normalise: nn.Module | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        openvino = import_optional("openvino", extra="openvino", purpose="engine='openvino'")
        with _starting:
            self._core = _core(openvino)
        self.n_rows_run = 0
        self._precision = _PRECISIONS[dtype]
        rewritten = rewrite_for_inference(network)
        # It converts weights by itself, and to nearest: those that have the type's values it keeps.
        if dtype is not torch.float32:
            round_convolutions(rewritten, dtype)
        self._whole = Whole(normalise, rewritten, pools, torch.float32).eval()
        self._lock = threading.Lock()
        # Rows that can run at a time.
        self._n_streams = 1
        # By the shape of a row, which is part of a converted network.
        self._converted: dict[tuple[int, ...], _Converted] = {}

    def batch_size(self, row_shape: Sequence[int] | None = None) -> int:  # noqa: ARG002
        """Rows that a worker takes at a time."""
        return _ROWS

    def workers(self, n_batches: int, n_jobs: int | None) -> Workers:
        """Divide threads among workers, as `TorchEngine.workers`."""
        n_threads = count_threads(n_jobs)
        with self._lock:
            if n_threads > self._n_streams:
                # Asked here, not where a network is converted: a worker may use one thread alone.
                self._n_streams = n_threads
                self._converted.clear()
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
        rows = [self._converted_for(batch).run(batch[i : i + 1]) for i in range(len(batch))]
        self.n_rows_run += len(batch)
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _converted_for(self, batch: AnyArray) -> "_Converted":
        shape = batch.shape[1:]
        found = self._converted.get(shape)
        if found is None:
            # One worker converts, the others wait for it.
            with self._lock:
                found = self._converted.get(shape)
                if found is None:
                    found = self._convert(torch.from_numpy(batch[:1]))
                    self._converted[shape] = found
        return found

    def _convert(self, example: torch.Tensor) -> "_Converted":
        try:
            with torch.no_grad():
                exported = torch.export.export(self._whole, (example,))
            model = _read(exported)
            settings = {
                "INFERENCE_PRECISION_HINT": self._precision,
                # A row for each thread, not the threads of a row: as many rows as workers.
                "INFERENCE_NUM_THREADS": self._n_streams,
                "NUM_STREAMS": self._n_streams,
            }
            return _Converted(self._core.compile_model(model, "CPU", settings))
        except Exception as error:
            # Export and conversion fail in many ways, on anything that they do not know.
            reason = str(error).strip().partition("\n")[0]
            raise BackboneError(
                f"engine='openvino' cannot take this network ({type(error).__name__}: {reason}). "
                "Use engine='torch'."
            ) from error


class _Converted:
    """A network for rows of one shape, and the requests that threads run it with."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: deque[Any] = deque()

    def run(self, row: AnyArray) -> list[FloatArray]:
        """Run one row; each thread that is here has a request of its own."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.infer({0: row})
        n_results = len(self._compiled.outputs)
        # The request's memory is written anew in the next run.
        results = [request.get_output_tensor(i).data.copy() for i in range(n_results)]
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


def _read(exported: Any) -> Any:
    """Read an exported program by OpenVINO's front end.

    `openvino.convert_model` does the same, and reports each use to its makers.
    """
    frontend = import_optional("openvino.frontend", extra="openvino", purpose="engine='openvino'")
    decoders = import_optional(
        "openvino.frontend.pytorch.fx_decoder", extra="openvino", purpose="engine='openvino'"
    )
    pytorch = frontend.FrontEndManager().load_by_framework("pytorch")
    with _root_logger_left_alone():
        decoder = decoders.TorchFXPythonDecoder.from_exported_program(exported)
    return pytorch.convert(pytorch.load(decoder))


@contextmanager
def _root_logger_left_alone() -> Iterator[None]:
    """Drop OpenVINO's notes on operations that this PyTorch lacks, of which a user knows nothing.

    They go to the root logger, which would get a handler that prints from then on.
    """
    root, silent = logging.getLogger(), logging.NullHandler()

    def is_of_others(record: logging.LogRecord) -> bool:
        return "openvino" not in record.pathname

    root.addHandler(silent)
    root.addFilter(is_of_others)
    try:
        yield
    finally:
        root.removeFilter(is_of_others)
        root.removeHandler(silent)
