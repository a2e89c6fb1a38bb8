"""Sections of a traced network: each computes as many rows together as fit into the CPU cache.

If feature maps are large, one row fills the cache. If they are small, many rows share the cost of
each call and of reading the weights. A single number of rows would be too large for the first
layers or too small for the last ones.
"""

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from .._graphs import NodeByNode, crossings, dependents
from .._parallel import ForkSafeLock
from ._fused_layers import layer_of

# Bytes that an operation may read and write, without its weights: near the optimum for a core with
# 1 MiB of its own cache and 32 MiB shared with another core.
_BYTES_IN_CACHE = 7_000_000
# The maximum number of rows in one pass.
MOST_ROWS = 256


class Section(NamedTuple):
    """A section of a network.

    Parameters
    ----------
    module : fx.GraphModule
        Takes the value that crosses into the section; returns the value that leaves it, followed by
        the network's results that the section computes.
    results : list of fx.Node
        The nodes of these results.
    n_rows : int
        Number of rows that it computes together.
    """

    module: fx.GraphModule
    results: list[fx.Node]
    n_rows: int

    def run(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """Compute a batch of any size."""
        parts: list[tuple[torch.Tensor, ...]]
        parts = [self.module(rows) for rows in torch.split(x, self.n_rows)]
        return parts[0] if len(parts) == 1 else [torch.cat(p) for p in zip(*parts, strict=True)]


class Sectioned(nn.Module):
    """A traced network that is cut into sections on its first batch, by the sizes of its maps.

    Parameters
    ----------
    network : fx.GraphModule
        The network, which takes a batch and returns one tensor or a tuple of tensors.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__()
        self._network = network
        self._lock = ForkSafeLock()
        # Sections by the shape of a row.
        self._cuts: dict[tuple[int, ...], list[Section]] = {}

    def forward(self, x: torch.Tensor) -> Any:
        """Compute a batch."""
        sections = self._sections_for(x) if len(x) else []
        if not sections:
            return self._network(x)
        found = dict.fromkeys(self._network.graph.find_nodes(op="placeholder"), x)
        for section in sections:
            x, *results = section.run(x)
            found.update(zip(section.results, results, strict=True))
        return fx.node.map_arg(self._network.graph.output_node().args[0], found.__getitem__)

    def _sections_for(self, x: torch.Tensor) -> list[Section]:
        row_shape = tuple(x.shape[1:])
        # One worker cuts the network while the others wait.
        with self._lock:
            if row_shape not in self._cuts:
                self._cuts[row_shape] = cut_in_sections(self._network, x[:1])
        return self._cuts[row_shape]


class _Group(NamedTuple):
    """The operations between two positions that a single value crosses, and these two values."""

    nodes: list[fx.Node]
    enters: fx.Node
    leaves: fx.Node


def cut_in_sections(network: fx.GraphModule, row: torch.Tensor) -> list[Section]:
    """Cut a network at positions that a single value crosses, measured with one row.

    Returns no sections if rows are not the first axis of the network's results.
    """
    sizes = _Sizes(network)
    sizes.measure(row)
    results = network.graph.output_node().all_input_nodes
    placeholders = network.graph.find_nodes(op="placeholder")
    if len(placeholders) > 1 or not sizes.rows_first.issuperset(results):
        return []
    groups = list(_groups(network.graph, sizes.rows_first))
    rows = sizes.rows_in_cache(groups)
    # Neighboring groups with the same number of rows form one section.
    sections = []
    for n_rows, same in itertools.groupby(zip(rows, groups, strict=True), operator.itemgetter(0)):
        part = [group for _, group in same]
        nodes = list(itertools.chain.from_iterable(group.nodes for group in part))
        sections.append(_section(network, _Group(nodes, part[0].enters, part[-1].leaves), n_rows))
    return sections


def _groups(graph: fx.Graph, rows_first: set[fx.Node]) -> Iterator[_Group]:
    """Divide the operations at each position that one value, with rows as first axis, crosses."""
    (enters,) = graph.find_nodes(op="placeholder")
    nodes = dependents(graph, enters)
    start = 0
    # The network's results may cross as well: they are kept until the end.
    for i, value in crossings(nodes, enters).items():
        if value in rows_first:
            yield _Group(nodes[start : i + 1], enters, value)
            enters, start = value, i + 1
    if rest := nodes[start:]:
        # The value that leaves the last group has no reader, but is concatenated like the others.
        yield _Group(rest, enters, next((n for n in reversed(rest) if n in rows_first), enters))


def _section(network: fx.GraphModule, group: _Group, n_rows: int) -> Section:
    graph = fx.Graph()
    copies = {group.enters: graph.placeholder("x")}

    def copied(node: fx.Node) -> fx.Node:
        # Values that do not depend on rows are computed in each section that needs them.
        if node not in copies:
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in group.nodes:
        copied(node)
    result_nodes = network.graph.output_node().all_input_nodes
    results = [node for node in group.nodes if node in result_nodes]
    graph.output(tuple(copies[node] for node in (group.leaves, *results)))
    return Section(fx.GraphModule(network, graph), results, n_rows)


class _Sizes(NodeByNode):
    """Runs a network and records the number of bytes that each operation reads and writes."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.rows_first: set[fx.Node] = set()
        self._n_bytes: dict[fx.Node, int] = {}

    def measure(self, row: torch.Tensor) -> None:
        """Run a batch of one row."""
        for node, result in self.results(row):
            if isinstance(result, torch.Tensor):
                self._n_bytes[node] = _n_bytes(result)
                if result.shape[:1] == (1,):
                    self.rows_first.add(node)

    def rows_in_cache(self, groups: list[_Group]) -> list[int]:
        """Return the number of rows of each group, never more than that of the next."""
        rows = [self._rows(group.nodes) for group in groups]
        # Row counts never decrease along the network: batches are joined, not split again.
        return [min(rows[i:]) for i in range(len(rows))]

    def _rows(self, nodes: list[fx.Node]) -> int:
        """Return the number of rows for some operations, a power of two."""
        moved = max(self._moved(node) for node in nodes)
        # Large weights do not stay in the cache: with more rows, they are read less often.
        room = _BYTES_IN_CACHE + max(self._weights(node) for node in nodes)
        return int(2 ** math.floor(math.log2(min(max(1, room / max(1, moved)), MOST_ROWS))))

    def _moved(self, node: fx.Node) -> int:
        return sum(self._n_bytes.get(n, 0) for n in (node, *node.all_input_nodes))

    def _weights(self, node: fx.Node) -> int:
        layer = layer_of(node)
        if layer is not None:
            return _n_bytes(layer.weight)
        if node.op != "call_module":
            return 0
        module = self.module.get_submodule(str(node.target))
        return sum(_n_bytes(tensor) for tensor in (*module.parameters(), *module.buffers()))


def _n_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
