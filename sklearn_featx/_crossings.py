"""Where a graph may be cut: places in the order of execution that exactly one value crosses."""

from collections.abc import Collection

from torch import fx


def dependents(graph: fx.Graph, source: fx.Node) -> list[fx.Node]:
    """Find the operations that depend on a value, in order of execution.

    Parameters
    ----------
    graph : fx.Graph
        The operations.
    source : fx.Node
        The value.

    Returns
    -------
    nodes : list of fx.Node
        Without the source, and without the graph's output.
    """
    found = {source}
    nodes = []
    for node in graph.nodes:
        if node.op != "output" and not found.isdisjoint(node.all_input_nodes):
            found.add(node)
            nodes.append(node)
    return nodes


def crossings(
    nodes: list[fx.Node], source: fx.Node, kept: Collection[fx.Node] = ()
) -> dict[int, fx.Node]:
    """Find the places that exactly one value crosses.

    Parameters
    ----------
    nodes : list of fx.Node
        What depends on the source. Other values do not count: they can be computed anywhere.
    source : fx.Node
        What comes in.
    kept : collection of fx.Node, default=()
        Values that are needed after the last operation, and cross every place from where they are
        made.

    Returns
    -------
    crossing : dict of int to fx.Node
        Position ``i``, after ``nodes[i]``, to the value that alone crosses there.
    """
    last_use = dict.fromkeys(kept, len(nodes))
    for i, node in enumerate(nodes):
        for used in node.all_input_nodes:
            last_use[used] = max(i, last_use.get(used, 0))
    crossing: dict[int, fx.Node] = {}
    alive = {source}
    for i, node in enumerate(nodes):
        alive.add(node)
        alive = {value for value in alive if last_use.get(value, -1) > i}
        if len(alive) == 1:
            (crossing[i],) = alive
    return crossing
