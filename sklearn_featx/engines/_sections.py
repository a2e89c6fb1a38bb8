"""Sections of a traced network: each takes as many rows at once as fit into a cache.

Where feature maps are large, one row fills the cache. Where they are small, many rows share the
cost of each call and of each weight that is read. One number of rows for the whole network is too
large for one end or too small for the other.
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

# Bytes that an operation may read and write, its weights not counted: near the best for a core with
# a cache of 1 MiB that shares 32 MiB with another.
_BYTES_IN_CACHE = 4_000_000
# In one pass, however small they are.
MOST_ROWS = 256


class Section(NamedTuple):
    """A part of a network.

    Parameters
    ----------
    module : fx.GraphModule
        Takes the one value that crosses into it; returns the one that leaves it, and then those of
        the network's results that are made in it.
    results : list of fx.Node
        Which results.
    n_rows : int
        How many rows it takes at once.
    """

    module: fx.GraphModule
    results: list[fx.Node]
    n_rows: int

    def run(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """Run a batch of any size."""
        parts: list[tuple[torch.Tensor, ...]]
        parts = [self.module(rows) for rows in torch.split(x, self.n_rows)]
        return parts[0] if len(parts) == 1 else [torch.cat(p) for p in zip(*parts, strict=True)]


class Sectioned(nn.Module):
    """A traced network, cut on its first batch, when the sizes of its maps are known.

    Parameters
    ----------
    network : fx.GraphModule
        Takes a batch; returns one tensor or a tuple of tensors.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__()
        self._network = network
        self._lock = ForkSafeLock()
        # By the shape of a row.
        self._cuts: dict[tuple[int, ...], list[Section]] = {}

    def forward(self, x: torch.Tensor) -> Any:
        """Run a batch."""
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
        # One worker cuts, the others wait for it.
        with self._lock:
            if row_shape not in self._cuts:
                self._cuts[row_shape] = cut_in_sections(self._network, x[:1])
        return self._cuts[row_shape]


class _Group(NamedTuple):
    """Operations between two places that one value crosses: the value before, and that after."""

    nodes: list[fx.Node]
    enters: fx.Node
    leaves: fx.Node


def cut_in_sections(network: fx.GraphModule, row: torch.Tensor) -> list[Section]:
    """Cut a network where a single value crosses, with a batch of one row.

    No section is returned where rows are not the first axis of what the network returns.
    """
    sizes = _Sizes(network)
    sizes.measure(row)
    results = network.graph.output_node().all_input_nodes
    placeholders = network.graph.find_nodes(op="placeholder")
    if len(placeholders) > 1 or not sizes.rows_first.issuperset(results):
        return []
    groups = list(_groups(network.graph, sizes.rows_first))
    rows = sizes.rows_in_cache(groups)
    # Neighbors that take the same number of rows are one section.
    sections = []
    for n_rows, same in itertools.groupby(zip(rows, groups, strict=True), operator.itemgetter(0)):
        part = [group for _, group in same]
        nodes = list(itertools.chain.from_iterable(group.nodes for group in part))
        sections.append(_section(network, _Group(nodes, part[0].enters, part[-1].leaves), n_rows))
    return sections


def _groups(graph: fx.Graph, rows_first: set[fx.Node]) -> Iterator[_Group]:
    """Divide the operations that depend on the rows, where one value with rows first crosses."""
    (enters,) = graph.find_nodes(op="placeholder")
    nodes = dependents(graph, enters)
    start = 0
    # Results wait for the end; they cross beside the value that the rest is computed from.
    for i, value in crossings(nodes, enters).items():
        if value in rows_first:
            yield _Group(nodes[start : i + 1], enters, value)
            enters, start = value, i + 1
    if rest := nodes[start:]:
        # Nobody takes what leaves the last one, but it is joined like the others.
        yield _Group(rest, enters, next((n for n in reversed(rest) if n in rows_first), enters))


def _section(network: fx.GraphModule, group: _Group, n_rows: int) -> Section:
    graph = fx.Graph()
    copies = {group.enters: graph.placeholder("x")}

    def copied(node: fx.Node) -> fx.Node:
        # What does not depend on rows is computed where it is needed.
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
    """Runs a network and notes how many bytes each operation moves."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.rows_first: set[fx.Node] = set()
        self._n_bytes: dict[fx.Node, int] = {}

    def measure(self, row: torch.Tensor) -> None:
        """Run on a batch of one row."""
        for node, result in self.results(row):
            if isinstance(result, torch.Tensor):
                self._n_bytes[node] = _n_bytes(result)
                if result.shape[:1] == (1,):
                    self.rows_first.add(node)

    def rows_in_cache(self, groups: list[_Group]) -> list[int]:
        """How many rows each group may take at once, and none more than the next."""
        rows = [self._rows(group.nodes) for group in groups]
        # Row counts never decrease along the network: batches are joined, not split again.
        return [min(rows[i:]) for i in range(len(rows))]

    def _rows(self, nodes: list[fx.Node]) -> int:
        """How many rows operations may take at once: a power of two."""
        moved = max(self._moved(node) for node in nodes)
        # Heavy weights do not stay in the cache: with more rows, they are read less often.
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
