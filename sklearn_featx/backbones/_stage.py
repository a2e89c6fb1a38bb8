"""Stages: their modules, costs and output shapes."""

import contextlib
import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from .._graphs import NodeByNode, mixes_rows, plain_new_tensors
from .._messages import silenced
from .._parallel import generator_lock
from ._attributes import attributes_kept, buffers_kept
from ._refusals import no_tensor

_log = logging.getLogger(__name__)

# Number of parameters times numbers in the input: about half a second on one thread.
_QUICK = 1e13


@dataclass(frozen=True)
class Stage:
    """One stage of a backbone.

    Parameters
    ----------
    name : str
        Module path in the network, or several joined by ``"+"`` if no cut separates them.
    module : nn.Module
        The operations of the stage, with the network's parameters.
    layer : str
        Name of its end: the layer whose activations are those of the stage.
    """

    name: str
    module: nn.Module
    layer: str

    @property
    def n_parameters(self) -> int:
        """Number of parameters; shared ones count once."""
        return sum(parameter.numel() for parameter in self.module.parameters())


class Cost(NamedTuple):
    """The cost of a stage for one row.

    Parameters
    ----------
    output_shape : tuple of int
        Shape of its activations.
    flops : int
        Floating-point operations of its products and convolutions, as PyTorch counts them.
    """

    output_shape: tuple[int, ...]
    flops: int

    @property
    def n_values(self) -> int:
        """Number of values in its activations."""
        return math.prod(self.output_shape)


class StageTaps(nn.Module):
    """The stages up to the deepest wanted one; returns the activations of the wanted ones.

    Parameters
    ----------
    stages : sequence of Stage
        All stages.
    wanted : sequence of int
        Positions of the stages whose activations are returned.
    """

    def __init__(self, stages: Sequence[Stage], wanted: Sequence[int]) -> None:
        super().__init__()
        self.parts = nn.Sequential(*(stage.module for stage in stages[: max(wanted) + 1]))
        self.wanted = tuple(wanted)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a copy of the activations of each wanted stage."""
        found = {}
        for i, part in enumerate(self.parts):
            x = part(x)
            if not isinstance(x, torch.Tensor):
                raise no_tensor(x)
            if i in self.wanted:
                found[i] = x.clone()
        return tuple(found[i] for i in self.wanted)


@plain_new_tensors()
def dry_run(module: nn.Module, shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """Run a module on zeros, or, where that may take long, on tensors without values.

    Tensors without values take the same time for an input of any size, and import PyTorch's
    compiler, which takes a second in every process. The module's state stays as it is.

    Parameters
    ----------
    module : nn.Module
        The module.
    shape : tuple of int
        Shape of its input.

    Returns
    -------
    outputs : tuple of torch.Tensor
        Tensors of the shapes and the types of the module's outputs.
    """
    with torch.no_grad(), attributes_kept(module):
        output = None
        if not _is_quick(module, shape) and (fake_tensors := _fake_tensors()) is not None:
            # Some modules read values. The run on zeros reports a wrong shape.
            with (
                contextlib.suppress(Exception),
                silenced("torch._subclasses.fake_tensor"),
                fake_tensors(allow_non_fake_inputs=True),
            ):
                output = _run(module, torch.empty(shape, dtype=torch.float32))
        if output is None:
            with generator_lock, buffers_kept(module), torch.random.fork_rng(devices=[]):
                output = _run(module, torch.zeros(shape, dtype=torch.float32))
    return output if isinstance(output, tuple) else (output,)


def _is_quick(module: nn.Module, shape: tuple[int, ...]) -> bool:
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    return n_parameters * math.prod(shape) <= _QUICK


@plain_new_tensors()
def mixes_images(module: nn.Module, shape: Sequence[int], *, branches: bool = False) -> bool:
    """Whether a module's results for an image depend on the other images of the batch.

    Parameters
    ----------
    module : nn.Module
        The module.
    shape : sequence of int
        Shape of one image.
    branches : bool, default=False
        Whether a condition in the module may depend on values.
    """

    def compute(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = _run(module, batch)
        return output if isinstance(output, tuple) else (output,)

    try:
        with torch.no_grad(), attributes_kept(module), buffers_kept(module):
            return mixes_rows(compute, shape, branches=branches)
    except Exception:
        # The network's own code runs on noise, and may raise anything.
        return False


class LayerError(Exception):
    """A layer of a network failed; the cause is the layer's own error.

    Parameters
    ----------
    place : str
        Description of the layer.
    """

    def __init__(self, place: str) -> None:
        # The place is stored, because the interpreter of a graph adds lines to the message.
        self.place = place
        super().__init__(place)


def _run(module: nn.Module, x: Any) -> Any:
    """Run a module; in a traced part, `LayerError` names the failing layer."""
    for part in module if type(module) is nn.Sequential else (module,):
        # A call of a traced module would print its code after a failure.
        x = _Watched(part).last_result(x) if isinstance(part, fx.GraphModule) else part(x)
    return x


class _Watched(NodeByNode):
    """Runs a traced module node by node."""

    def last_result(self, x: Any) -> Any:
        """Return the result of the last node."""
        *_, (_, result) = self.results(x)
        return result

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; raise `LayerError` if it fails."""
        try:
            return super().run_node(n)
        except LayerError:
            raise
        except Exception as error:
            # The network's own operations run here, which may raise anything.
            raise LayerError(_place(n)) from error


def _place(node: fx.Node) -> str:
    """Return the failing module, or the last module before a failing operation."""
    before = node
    while before.op not in ("call_module", "placeholder", "root"):
        before = before.prev
    if before.op != "call_module":
        return f"operation {node.name!r}"
    return f"layer {before.target!r}" if before is node else f"after layer {before.target!r}"


@functools.cache
def _fake_tensors() -> Any:
    """Return PyTorch's private mode of tensors without values, or None if a self-test fails."""
    try:
        from torch._subclasses.fake_tensor import FakeTensorMode

        _start_autograd()
        # An addition, which a FLOP counter around this code does not count.
        bias = torch.empty(4, 1)
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            works = torch.relu(torch.empty(2, 1, 3) + bias).shape == (2, 4, 3)
    except Exception as error:
        # A private mode of PyTorch, which may change in any way.
        _log.debug("Shapes are found by running on zeros: %s: %s", type(error).__name__, error)
        return None
    return FakeTensorMode if works else None


def _start_autograd() -> None:
    """Initialize autograd before fake tensors on other devices exist.

    Autograd starts a thread for each device that it finds at its first use, and a process with such
    threads cannot train after a fork.
    """
    if not torch.accelerator.is_available():
        with torch.inference_mode(False), torch.enable_grad():
            torch.autograd.backward(torch.ones(1, requires_grad=True).sum())
