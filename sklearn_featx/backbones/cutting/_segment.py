"""A piece of a network as a module of its own, with a graph for each mode."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx, nn

from ..._graphs import follow_input
from ..._parallel import ForkSafeLock

# One for all: a graph is turned into code once per process.
_writing = ForkSafeLock()


class Operations:
    """The graphs of a segment and the functions that run them, which its copies share.

    Threads that predict, and every fit, find the functions written; a function knows no network.

    Parameters
    ----------
    graphs : tuple of torch.fx.Graph
        That of the inference mode, and that of the training mode where it differs.
    """

    def __init__(self, graphs: tuple[fx.Graph, ...]) -> None:
        self.graphs = graphs
        self._functions: dict[fx.Graph, Callable[[nn.Module, torch.Tensor], torch.Tensor]] = {}

    def run(self, network: nn.Module, x: torch.Tensor, *, training: bool) -> torch.Tensor:
        """Run the operations of a mode with the parameters of a network."""
        graph = self.graphs[-1 if training else 0]
        if graph not in self._functions:
            self._write(network, graph)
        return self._functions[graph](network, x)

    def _write(self, network: nn.Module, graph: fx.Graph) -> None:
        """Write the function of a graph; it takes longer than cutting, and few stages need it."""
        with _writing:
            if graph not in self._functions:
                # A copy of the graph, since a graph holds the module that it was made part of.
                own = copy.deepcopy(graph)
                # Traced on the CPU, and perhaps run elsewhere.
                follow_input(own)
                written = fx.GraphModule(network, own)
                self._functions[graph] = type(written).forward

    def __deepcopy__(self, memo: dict[int, Any]) -> "Operations":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Operations, (self.graphs,)


class Segment(nn.Module):
    """The operations between two split points, sharing the network's parameters and buffers.

    A trace bakes in what depends on the mode (``F.dropout(training=self.training)``); therefore a
    segment holds a graph for inference and one for training, and `forward` follows the mode.

    Parameters
    ----------
    network : nn.Module
        The network that the graphs were traced from; parameters keep their names in it.
    eval_graph : torch.fx.Graph
        Operations of the inference mode.
    train_graph : torch.fx.Graph
        Operations of the training mode.

    Attributes
    ----------
    graphs : tuple of torch.fx.Graph
        That of the inference mode, and that of the training mode where it differs.
    """

    def __init__(self, network: nn.Module, eval_graph: fx.Graph, train_graph: fx.Graph) -> None:
        super().__init__()
        # Where the mode makes no difference, one graph serves both.
        same = _equal(eval_graph, train_graph)
        self._operations = Operations((eval_graph,) if same else (eval_graph, train_graph))
        for graph in self.graphs:
            for node in graph.nodes:
                if node.op in ("call_module", "get_attr"):
                    _share(network, self, str(node.target))
        self.training = network.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the operations of the current mode."""
        return self._operations.run(self, x, training=self.training)

    @property
    def graphs(self) -> tuple[fx.Graph, ...]:
        """That of the inference mode, and that of the training mode where it differs."""
        return self._operations.graphs

    def adopt(self, network: nn.Module, names: Iterable[str]) -> None:
        """Register parameters that no operation uses, so that they belong to some stage."""
        for name in names:
            _share(network, self, name)

    @property
    def eval_graph(self) -> fx.Graph:
        """Operations of the inference mode."""
        return self.graphs[0]


def _equal(one: fx.Graph, other: fx.Graph) -> bool:
    """Whether two graphs are the same operations on the same arguments, in the same order."""
    if len(one.nodes) != len(other.nodes):
        return False
    return all(
        (a.op, a.target, a.name, str(a.args), str(a.kwargs))
        == (b.op, b.target, b.name, str(b.args), str(b.kwargs))
        for a, b in zip(one.nodes, other.nodes, strict=True)
    )


def _share(source: nn.Module, target: nn.Module, path: str) -> None:
    """Register what stands at `path` in `source` at the same path in `target`."""
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
