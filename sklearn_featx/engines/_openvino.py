"""The OpenVINO engine: a converted network on a CPU."""

import functools
import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .._messages import cause, silenced
from .._optional import import_optional
from .._parallel import ForkSafeLock
from .._typing import AnyArray, FloatArray
from ..exceptions import BackboneError
from ._rewrite import rewrite_for_inference
from ._rounding import round_convolutions
from ._threads import Workers, count_threads, share_threads
from ._trunk import ComplexResultError, Whole

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# The number of rows that a worker gets together. Each row runs alone, which is as fast.
_ROWS = 4
# Two threads that create an engine must not create two cores.
_starting = ForkSafeLock()


class OpenVinoEngine:
    """Computes one frozen network row by row; no bit of a row depends on its batch.

    Parameters
    ----------
    network : nn.Module
        The network, which returns one tensor or a tuple of tensors. It is not changed.
    pools : sequence of nn.Module
        The pooling of each of its results, in float32.
    normalize : nn.Module, default=None
        The normalization of a batch before the network, in float32.
    dtype : torch.dtype, default=torch.float32
        Dtype of weights and activations.

    Raises
    ------
    MissingDependencyError
        If OpenVINO is not installed.
    BackboneError
        If the process was forked from one that has used OpenVINO.
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
            self._core, self._process = _core(self._openvino)
        self._refuse_forks()
        self._precision = _PRECISIONS[dtype]
        # OpenVINO chooses its own memory format; `x.view` of the network needs contiguous tensors.
        rewritten = rewrite_for_inference(network, channels_last=False)
        # OpenVINO rounds weights to nearest, which does not change weights that are already
        # rounded.
        if dtype is not torch.float32:
            round_convolutions(rewritten, dtype)
        whole = Whole(normalize, rewritten, pools, torch.float32, channels_last=False)
        self._whole = whole.eval()
        self._lock = ForkSafeLock()
        # The number of rows that run simultaneously.
        self._n_streams = 1
        # Compiled networks by the dtype and shape of a row.
        self._compiled: dict[tuple[str, tuple[int, ...]], _Compiled] = {}

    def batch_size(self, row_shape: Sequence[int] | None = None) -> int:  # noqa: ARG002
        """Return the number of rows that a worker gets together."""
        return _ROWS

    def workers(self, n_batches: int, n_jobs: int | None) -> Workers:
        """Divide threads among workers, as `TorchEngine.workers`."""
        n_threads = count_threads(n_jobs)
        with self._lock:
            if n_threads > self._n_streams:
                # Set here and not at the compilation, where a worker may only use one thread.
                self._n_streams = n_threads
                self._compiled.clear()
        return share_threads(n_threads, max(1, min(n_batches, n_threads)))

    def run(self, batch: AnyArray) -> list[FloatArray]:
        """Compute a batch.

        Parameters
        ----------
        batch : ndarray of shape (n, ...)
            The network's input.

        Returns
        -------
        results : list of ndarray of shape (n, ...), float32
            One array for each result of the network.

        Raises
        ------
        BackboneError
            If OpenVINO cannot convert the network, or the process was forked from one that has
            used OpenVINO.
        """
        self._refuse_forks()
        compiled = self._compiled_for(batch)
        requests = [compiled.start(batch[i : i + 1]) for i in range(len(batch))]
        rows = [compiled.finish(request) for request in requests]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _refuse_forks(self) -> None:
        """Raise in a forked child, where OpenVINO's threads do not exist: it would wait forever."""
        if self._process != os.getpid():
            raise BackboneError(
                "engine='openvino' does not compute in a process that is forked from one which has "
                "used it. Start the process by spawn or forkserver (joblib's loky does), or use "
                "engine='torch'."
            )

    def _compiled_for(self, batch: AnyArray) -> "_Compiled":
        # One worker compiles while the others wait.
        with self._lock:
            key = (batch.dtype.str, batch.shape[1:])
            if key not in self._compiled:
                self._compiled[key] = self._compile(torch.from_numpy(batch[:1]))
            return self._compiled[key]

    def _compile(self, example: torch.Tensor) -> "_Compiled":
        try:
            # PyTorch for CPUs alone comes without triton, and says so.
            logs = ("torch.fx.experimental.symbolic_shapes", "torch.utils.flop_counter")
            with torch.no_grad(), silenced(*logs):
                exported, places = _exported(self._whole, example)
            model = self._openvino.convert_model(exported)
            model.reshape(list(example.shape))
            settings = {
                "INFERENCE_PRECISION_HINT": self._precision,
                # Each thread computes its own row.
                "INFERENCE_NUM_THREADS": self._n_streams,
                "NUM_STREAMS": self._n_streams,
            }
            return _Compiled(self._core.compile_model(model, "CPU", settings), places)
        except ComplexResultError:
            raise
        except Exception as error:
            # Export and conversion raise errors of any type for unsupported networks.
            raise BackboneError(
                f"engine='openvino' cannot convert this network ({cause(error)}). Use "
                "engine='torch'."
            ) from error


def _exported(whole: nn.Module, example: torch.Tensor) -> tuple[Any, list[int]]:
    """Export a network without results that occur again, and say where each result is."""
    exported = torch.export.export(whole, (example,))
    names = exported.graph_signature.user_outputs
    distinct = list(dict.fromkeys(names))
    if len(distinct) < len(names):
        # OpenVINO converts no result that occurs twice, as a vector does under two poolings.
        some = _Some(whole, [names.index(name) for name in distinct])
        exported = torch.export.export(some, (example,))
    return exported, [distinct.index(name) for name in names]


class _Some(nn.Module):
    """Some of a network's results."""

    def __init__(self, network: nn.Module, numbers: list[int]) -> None:
        super().__init__()
        self.network, self.numbers = network, numbers

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        results = self.network(batch)
        return [results[number] for number in self.numbers]


class _Compiled:
    """A compiled network for rows of one shape, and its inference requests.

    Parameters
    ----------
    compiled : openvino.CompiledModel
        The network, without results that occur again.
    places : list of int
        For each result of the network, the one of `compiled` that it is.
    """

    def __init__(self, compiled: Any, places: list[int]) -> None:
        self._compiled, self._places = compiled, places
        self._idle: deque[Any] = deque()

    def start(self, row: AnyArray) -> Any:
        """Start the computation of a row; return the request for `finish`."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.start_async({0: row})
        return request

    def finish(self, request: Any) -> list[FloatArray]:
        """Wait for a request and return the network's results for its row."""
        request.wait()
        # Copies, since the next run of the request overwrites its memory.
        results = [np.array(result) for result in request.results.values()]
        self._idle.append(request)
        return [results[place] for place in self._places]


@functools.cache
def _core(openvino: Any) -> tuple[Any, int]:
    """Return the only core, which is never deleted, and the number of the process that made it.

    A core replaces the signal stack of the thread that first uses it, and restores the former stack
    at its end. With two cores, the restored stack may belong to a deleted core, and the next Ctrl-C
    crashes the process.
    """
    return openvino.Core(), os.getpid()


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    OpenVINO reports its import and each conversion to its developers if ``openvino_telemetry`` is
    installed. This function hides that package during the import, unless the user's program has
    already imported one of the two.
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
