"""A stage, what it costs, and stages run one after the other."""

import contextlib
import functools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from .._graphs import NodeByNode, plain_new_tensors

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One stage of a backbone.

    Parameters
    ----------
    name : str
        Module path in the network; several, joined by ``"+"``, where no cut separates them.
    module : nn.Module
        Its operations; shares the network's parameters.
    """

    name: str
    module: nn.Module

    @property
    def n_parameters(self) -> int:
        """Number of parameters, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.module.parameters())


class Cost(NamedTuple):
    """What a stage costs for one row.

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
    """Stages in order, up to the deepest wanted one; returns what the wanted ones return.

    Parameters
    ----------
    stages : sequence of Stage
        All stages.
    wanted : sequence of int
        Positions of those whose activations are returned.
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
            if i in self.wanted:
                found[i] = x.clone()
        return tuple(found[i] for i in self.wanted)


@plain_new_tensors()
def dry_run(module: nn.Module, shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """Run on tensors that have a shape and no values; on zeros where that is not possible."""
    with torch.no_grad():
        output = None
        if (fake_tensors := _fake_tensors()) is not None:
            # Some modules read values; what is wrong with a shape, the run on zeros says.
            with (
                contextlib.suppress(Exception),
                _quiet_fake_tensors(),
                fake_tensors(allow_non_fake_inputs=True),
            ):
                output = _run(module, torch.empty(shape, dtype=torch.float32))
        if output is None:
            output = _run(module, torch.zeros(shape, dtype=torch.float32))
    return output if isinstance(output, tuple) else (output,)


class LayerError(Exception):
    """A layer of a network failed; its cause is the layer's own error.

    Parameters
    ----------
    place : str
        Which layer, in words.
    """

    def __init__(self, place: str) -> None:
        # The interpreter of a graph adds lines to the message.
        self.place = place
        super().__init__(place)


def _run(module: nn.Module, x: Any) -> Any:
    """Run a module; of a traced part, `LayerError` names the layer that fails."""
    for part in module if type(module) is nn.Sequential else (module,):
        # A traced module that is called prints its own code when it fails.
        x = _Watched(part).last_result(x) if isinstance(part, fx.GraphModule) else part(x)
    return x


class _Watched(NodeByNode):
    """Runs a traced module node by node."""

    def last_result(self, x: Any) -> Any:
        """Return the result of the last node."""
        *_, (_, result) = self.results(x)
        return result

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; say which, if it fails."""
        try:
            return super().run_node(n)
        except LayerError:
            raise
        except Exception as error:
            raise LayerError(_place(n)) from error


def _place(node: fx.Node) -> str:
    """Name a module that fails, or, of another operation, the last module before it."""
    before = node
    while before.op not in ("call_module", "placeholder", "root"):
        before = before.prev
    if before.op != "call_module":
        return f"operation {node.name!r}"
    return f"layer {before.target!r}" if before is node else f"after layer {before.target!r}"


@contextlib.contextmanager
def _quiet_fake_tensors() -> Iterator[None]:
    """Keep PyTorch from logging the traceback of a failure, which is reported as an error."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addFilter(_refuse)
    try:
        yield
    finally:
        logger.removeFilter(_refuse)


def _refuse(_: logging.LogRecord) -> bool:
    return False


@functools.cache
def _fake_tensors() -> Any:
    """Return PyTorch's mode of tensors without values, if a self-test passes; it is not public."""
    try:
        from torch._subclasses.fake_tensor import FakeTensorMode

        _start_autograd()
        # No operation that a counter of floating-point operations around it would count.
        bias = torch.empty(4, 1)
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            works = torch.relu(torch.empty(2, 1, 3) + bias).shape == (2, 4, 3)
    except Exception as error:
        _log.debug("Shapes are found by running on zeros: %s: %s", type(error).__name__, error)
        return None
    return FakeTensorMode if works else None


def _start_autograd() -> None:
    """Let autograd count the devices before there are pretended ones.

    It starts a thread for each, and a process that has such threads cannot be forked for training.
    """
    if not torch.accelerator.is_available():
        with torch.inference_mode(False), torch.enable_grad():
            torch.autograd.backward(torch.ones(1, requires_grad=True).sum())
