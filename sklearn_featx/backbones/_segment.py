"""A piece of a network as a module of its own, with a graph for each mode."""

from collections.abc import Iterable

import torch
from torch import fx, nn


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
        self.graphs = (eval_graph,) if same else (eval_graph, train_graph)
        for graph in self.graphs:
            for node in graph.nodes:
                if node.op in ("call_module", "get_attr"):
                    _share(network, self, str(node.target))
        # In a dictionary, so that these are not registered: the state dict names each tensor once.
        self._runners: dict[fx.Graph, fx.GraphModule] = {}
        self.training = network.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the operations of the current mode."""
        graph = self.graphs[-1] if self.training else self.eval_graph
        # Made when it is first needed: it takes longer than cutting, and most stages never run
        # on their own.
        if graph not in self._runners:
            self._runners[graph] = fx.GraphModule(self, graph)
        output: torch.Tensor = self._runners[graph](x)
        return output

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
