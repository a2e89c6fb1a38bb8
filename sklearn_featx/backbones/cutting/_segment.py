"""Segment: a part of a network as a module, with a graph for each mode."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx, nn

from ..._graphs import follow_input
from ..._parallel import ForkSafeLock

# The lock of all segments: a graph is compiled to code once per process.
_writing = ForkSafeLock()


class Operations:
    """The graphs of a segment and their compiled functions, which its copies share.

    Threads and later fits reuse the functions; a function does not depend on a network.

    Parameters
    ----------
    graphs : tuple of torch.fx.Graph
        The graph of the inference mode, and that of the training mode if it differs.
    """

    def __init__(self, graphs: tuple[fx.Graph, ...]) -> None:
        self.graphs = graphs
        self._functions: dict[fx.Graph, Callable[[nn.Module, torch.Tensor], torch.Tensor]] = {}

    def run(self, network: nn.Module, x: torch.Tensor, *, training: bool) -> torch.Tensor:
        """Compute the operations of a mode with the parameters of a network."""
        graph = self.graphs[-1 if training else 0]
        if graph not in self._functions:
            self._write(network, graph)
        return self._functions[graph](network, x)

    def _write(self, network: nn.Module, graph: fx.Graph) -> None:
        """Compile the function of a graph on its first use, which takes longer than cutting."""
        with _writing:
            if graph not in self._functions:
                # A copy of the graph, since a graph refers to the module that owns it.
                own = copy.deepcopy(graph)
                # The graph was traced on the CPU, but may run on another device.
                follow_input(own)
                written = fx.GraphModule(network, own)
                self._functions[graph] = type(written).forward

    def __deepcopy__(self, memo: dict[int, Any]) -> "Operations":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Operations, (self.graphs,)


class Segment(nn.Module):
    """The operations between two split points, sharing the network's parameters and buffers.

    A trace fixes the values that depend on the mode (``F.dropout(training=self.training)``).
    Therefore a segment has a graph for inference and one for training, and `forward` chooses by the
    mode.

    Parameters
    ----------
    network : nn.Module
        The traced network; parameters keep their names.
    eval_graph : torch.fx.Graph
        Operations of the inference mode.
    train_graph : torch.fx.Graph
        Operations of the training mode.

    Attributes
    ----------
    graphs : tuple of torch.fx.Graph
        The graph of the inference mode, and that of the training mode if it differs.
    """

    def __init__(self, network: nn.Module, eval_graph: fx.Graph, train_graph: fx.Graph) -> None:
        super().__init__()
        # If the graphs are equal, one is used for both modes.
        same = _equal(eval_graph, train_graph)
        self._operations = Operations((eval_graph,) if same else (eval_graph, train_graph))
        for graph in self.graphs:
            for node in graph.nodes:
                if node.op in ("call_module", "get_attr"):
                    _share(network, self, str(node.target))
        self.training = network.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the operations of the current mode."""
        return self._operations.run(self, x, training=self.training)

    @property
    def graphs(self) -> tuple[fx.Graph, ...]:
        """The graph of the inference mode, and that of the training mode if it differs."""
        return self._operations.graphs

    def adopt(self, network: nn.Module, names: Iterable[str]) -> None:
        """Register unused parameters, so that they belong to a stage."""
        for name in names:
            _share(network, self, name)

    @property
    def eval_graph(self) -> fx.Graph:
        """Operations of the inference mode."""
        return self.graphs[0]


def _equal(one: fx.Graph, other: fx.Graph) -> bool:
    """Whether two graphs have the same operations and arguments in the same order."""
    if len(one.nodes) != len(other.nodes):
        return False
    return all(
        (a.op, a.target, a.name, str(a.args), str(a.kwargs))
        == (b.op, b.target, b.name, str(b.args), str(b.kwargs))
        for a, b in zip(one.nodes, other.nodes, strict=True)
    )


def _share(source: nn.Module, target: nn.Module, path: str) -> None:
    """Register the module or tensor at a path of `source` at the same path of `target`."""
    *parents, name = path.split(".")
    for parent in parents:
        source = getattr(source, parent)
        child = getattr(target, parent, None)
        if not isinstance(child, nn.Module):
            child = nn.Module()
            target.add_module(parent, child)
        if child is source:
            return
        target = child
    value = getattr(source, name)
    if isinstance(value, nn.Parameter):
        target.register_parameter(name, value)
    elif isinstance(value, torch.Tensor):
        target.register_buffer(name, value, persistent=name in source.state_dict())
    else:
        target.add_module(name, value)
