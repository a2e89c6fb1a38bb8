"""A traced network in sections, each of which takes as many rows at a time as a cache has room for.

Where maps are large one row alone fills the cache; where they are small many rows share what each
operation costs and each weight that is read. Any one number of rows is wrong for one of them.
"""

import itertools
import math
import operator
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from .._crossings import crossings, dependents
from ._micro_batches import joined
from ._onednn import layer_of
from ._scripted import script_convolutions
from ._trials import FastestWay

# Bytes that an operation may read and write, beside its weights: the usual number, and others that
# are used where they are faster. Where a core has a cache of 1 MiB and two share 32 MiB, 4 MB are
# the best or near it; where caches are smaller or larger, a quarter or four times as much may be.
_BYTES_IN_CACHE = (4_000_000, 1_000_000, 16_000_000)
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
        How many rows it takes at a time.
    """

    module: fx.GraphModule
    results: list[fx.Node]
    n_rows: int

    def run(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run a batch of any size."""
        whole: tuple[torch.Tensor, ...]
        whole = joined([self.module(rows) for rows in torch.split(x, self.n_rows)])
        return whole


class Sectioned(nn.Module):
    """A traced network that is cut on its first batch, when the sizes of its maps are known.

    It is cut for several sizes of a cache; which is the fastest is measured.

    Parameters
    ----------
    network : fx.GraphModule
        Takes a batch; returns one tensor or a tuple of tensors.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__()
        self._network = network
        self._lock = threading.Lock()
        # By the shape of a row, and by that of a batch.
        self._cuts: dict[tuple[int, ...], list[list[Section]]] = {}
        self._fastest: dict[tuple[int, ...], FastestWay] = {}

    def forward(self, x: torch.Tensor) -> Any:
        """Run a batch."""
        return self._fastest_for(x)(x) if len(x) else self._network(x)

    def _fastest_for(self, x: torch.Tensor) -> FastestWay:
        row_shape, shape = tuple(x.shape[1:]), tuple(x.shape)
        with self._lock:
            if row_shape not in self._cuts:
                self._cuts[row_shape] = cut_in_sections(self._network, x[:1])
            if shape not in self._fastest:
                ways = [partial(self._run, sections) for sections in self._cuts[row_shape]]
                # One row leaves nothing to divide.
                self._fastest[shape] = FastestWay(*ways[: 1 if len(x) == 1 else None])
        return self._fastest[shape]

    def _run(self, sections: list[Section], x: torch.Tensor) -> Any:
        if not sections:
            return self._network(x)
        found = dict.fromkeys(self._network.graph.find_nodes(op="placeholder"), x)
        for section in sections:
            x, *results = section.run(x)
            found.update(zip(section.results, results, strict=True))
        return fx.node.map_arg(self._network.graph.output_node().args[0], found.__getitem__)


class _Group(NamedTuple):
    """Operations between two places that one value crosses: the value before, and that after."""

    nodes: list[fx.Node]
    enters: fx.Node
    leaves: fx.Node


def cut_in_sections(network: fx.GraphModule, row: torch.Tensor) -> list[list[Section]]:
    """Cut a network where a single value crosses, for each size that a cache may have.

    Parameters
    ----------
    network : fx.GraphModule
        Takes a batch.
    row : Tensor of shape (1, ...)
        A batch of one row.

    Returns
    -------
    cuts : list of list of Section
        Each different one. Sections are in order; there are none where rows are not the first axis
        of what is returned.
    """
    sizes = _Sizes(network)
    sizes.measure(row)
    results = network.graph.output_node().all_input_nodes
    placeholders = network.graph.find_nodes(op="placeholder")
    if len(placeholders) > 1 or not sizes.rows_first.issuperset(results):
        return [[]]
    groups = list(_groups(network.graph, sizes.rows_first))
    rows = [sizes.rows_in_cache(groups, n_bytes) for n_bytes in _BYTES_IN_CACHE]
    return [_cut(network, groups, n_rows) for n_rows in dict.fromkeys(rows)]


def _cut(network: fx.GraphModule, groups: list[_Group], rows: tuple[int, ...]) -> list[Section]:
    """Make one section of neighbours that take the same number of rows."""
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
    module = fx.GraphModule(network, graph)
    script_convolutions(module)
    return Section(module, results, n_rows)


class _Sizes(fx.Interpreter):
    """Runs a network and notes how many bytes each operation moves."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.rows_first: set[fx.Node] = set()
        self._n_bytes: dict[fx.Node, int] = {}

    def measure(self, row: torch.Tensor) -> None:
        """Run on a batch of one row."""
        # Not by `run`: its progress bar, though it shows none, starts a thread that never ends.
        self.args_iter = iter([row])
        for node in self.graph.nodes:
            result = self.env[node] = self.run_node(node)
            for unneeded in self.user_to_last_uses.get(node, []):
                del self.env[unneeded]
            if isinstance(result, torch.Tensor):
                self._n_bytes[node] = _n_bytes(result)
                if result.shape[:1] == (1,):
                    self.rows_first.add(node)

    def rows_in_cache(self, groups: list[_Group], n_bytes: int) -> tuple[int, ...]:
        """How many rows each group may take at a time, and none more than the next."""
        rows = [self._rows(group.nodes, n_bytes) for group in groups]
        # Of maps that grow again no use is made.
        return tuple(min(rows[i:]) for i in range(len(rows)))

    def _rows(self, nodes: list[fx.Node], n_bytes: int) -> int:
        """How many rows operations may take at a time: a power of two."""
        moved = max(self._moved(node) for node in nodes)
        # Heavy weights do not stay in the cache: the more rows, the seldomer they are read.
        room = n_bytes + max(self._weights(node) for node in nodes)
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
