"""Chain: the operations of a trace with their split points, and the segments between them.

A *split point* is a position in the order of execution that exactly one computed value crosses: all
later operations depend on the image through this value only. Constants (parameters, and values
computed only from parameters) do not count; each segment computes its own.
"""

import itertools
import operator
from collections.abc import Sequence

from torch import fx, nn

from ..._graphs import crossings, dependents
from ._mutation import changes
from ._segment import Segment
from ._tracing import Trace, ancestors


class Chain:
    """The operations of a trace that depend on the image, in order, with their split points.

    Parameters
    ----------
    network : nn.Module
        The traced network.
    trace : Trace
        Its trace.

    Attributes
    ----------
    nodes : list of torch.fx.Node
        The operations that depend on the image, in order of execution.
    crossing : dict of int to torch.fx.Node
        Split points: maps position ``i`` (after ``nodes[i]``) to the only value that crosses it.
    """

    def __init__(self, network: nn.Module, trace: Trace) -> None:
        self.network = network
        self.trace = trace
        self.nodes = dependents(trace.graph, trace.placeholder)
        self._index = {node: i for i, node in enumerate(self.nodes)}
        self._owned = self._parameter_owners()
        found = crossings(self.nodes, trace.placeholder, kept=(trace.result,))
        self.crossing = {i: value for i, value in found.items() if not _is_sequence(value)}

    def position(self, node: fx.Node) -> int:
        """Return the position of a node in the chain."""
        return self._index[node]

    def named_positions(self) -> dict[str, int]:
        """Return the position of each node, and of the last node of each module path, by name."""
        positions: dict[str, int] = {}
        for i, node in enumerate(self.nodes):
            name = self.trace.names[node]
            positions[name] = i
            parts = name.split(".")
            for depth in range(1, len(parts)):
                positions[".".join(parts[:depth])] = i
        return positions

    def parameters_at(self, position: int) -> set[str]:
        """Return the names of the parameters that the operation at a position reads."""
        return self._owned[position]

    def segment(self, start: int, stop: int) -> fx.Graph:
        """Return the graph of the operations after position `start` up to and including `stop`.

        Both are split points; ``start=-1`` is the network's input.
        """
        return self._extract(self._value(start), [self._value(stop)])[0]

    def _value(self, position: int) -> fx.Node:
        """Return the value at a position; -1 is the network's input."""
        return self.trace.placeholder if position < 0 else self.nodes[position]

    def tapped(self, positions: Sequence[int]) -> fx.Graph:
        """Return the graph from the network's input to a tuple of the values at several positions.

        Operations that no position needs are omitted. All values but the deepest are copied, since
        a later operation may change them, or the tensor they are a view of, in place.
        """
        wanted = [self._value(position) for position in positions]
        graph, copies = self._extract(self.trace.placeholder, wanted)
        output = graph.output_node()
        deepest = self._value(max(positions))
        results = [
            copies[node] if node is deepest else _copied(graph, copies[node]) for node in wanted
        ]
        output.args = (tuple(results),)
        return graph

    def _extract(
        self, source: fx.Node, wanted: Sequence[fx.Node]
    ) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
        needed = ancestors(wanted, stop_at=source)
        graph = fx.Graph()
        copies = {source: graph.placeholder("x")}
        for node in self.trace.graph.nodes:
            if node in needed:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        values = tuple(copies[node] for node in wanted)
        graph.output(values[0] if len(values) == 1 else values)
        if changes(copies[source], self.network):
            # The input belongs to the caller: it is a cached row or the output of another stage.
            given = copies[source]
            users = list(given.users)
            copy = _copied(graph, given)
            for user in users:
                user.replace_input_with(given, copy)
        return graph, copies

    def _parameter_owners(self) -> list[set[str]]:
        canonical = {id(tensor): name for name, tensor in self.network.named_parameters()}
        modules = dict(self.network.named_modules(remove_duplicate=False))

        def direct(node: fx.Node) -> set[str]:
            if node.op == "call_module":
                tensors = list(modules[str(node.target)].parameters())
            elif node.op == "get_attr":
                tensors = [operator.attrgetter(str(node.target))(self.network)]
            else:
                tensors = []
            return {canonical[id(tensor)] for tensor in tensors if id(tensor) in canonical}

        constants: dict[fx.Node, set[str]] = {}
        owned: list[set[str]] = []
        for node in self.trace.graph.nodes:
            names = direct(node).union(*(constants.get(n, set()) for n in node.all_input_nodes))
            if node in self._index:
                owned.append(names)
            else:
                constants[node] = names
        return owned


def _copied(graph: fx.Graph, value: fx.Node) -> fx.Node:
    """Insert a copy of a value directly after it."""
    with graph.inserting_after(value):
        return graph.call_method("clone", (value,))


def _is_sequence(value: fx.Node) -> bool:
    """Whether a value is unpacked like a tuple; only tensors can be rows on disk."""
    return bool(value.users) and all(
        user.target is operator.getitem and isinstance(user.args[1], int) for user in value.users
    )


def cut(eval_chain: Chain, train_chain: Chain, stops: Sequence[tuple[int, int]]) -> list[Segment]:
    """Cut a network into segments.

    Parameters
    ----------
    eval_chain, train_chain : Chain
        Chains of the inference and of the training mode.
    stops : sequence of (int, int)
        End of each segment: its position in the inference chain and in the training chain.

    Returns
    -------
    segments : list of Segment
        One segment for each stop, in order.
    """
    starts = [(-1, -1), *stops[:-1]]
    return [
        Segment(
            eval_chain.network,
            eval_chain.segment(eval_start, eval_stop),
            train_chain.segment(train_start, train_stop),
        )
        for (eval_start, train_start), (eval_stop, train_stop) in zip(starts, stops, strict=True)
    ]


def adopt_unused(network: nn.Module, segments: Sequence[Segment]) -> None:
    """Assign each unused parameter to the segment with the most similar parameter paths.

    Many networks contain mask tokens or layers of other tasks. Every parameter belongs to a stage,
    even if no operation uses it.
    """
    owned = {id(tensor) for segment in segments for tensor in segment.parameters()}
    names = [{name for name, _ in segment.named_parameters()} for segment in segments]
    for name, parameter in network.named_parameters():
        if id(parameter) not in owned:
            kinship = [
                max((_shared_path(name, own) for own in group), default=0) for group in names
            ]
            segments[kinship.index(max(kinship))].adopt(network, [name])


def _shared_path(first: str, second: str) -> int:
    """Return the number of leading path components that two names share."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
