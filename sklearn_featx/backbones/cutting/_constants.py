"""Constants of a trace: values that a forward computes without its input.

A trace keeps the values of its own call. A forward that draws them, or reads the time, has other
values in each call.
"""

import operator
from typing import Any

import torch
from torch import fx, nn

from ._tracing import Trace


def differing_constant(network: nn.Module, first: Trace, second: Trace) -> str | None:
    """Return the name of the first operation whose constants differ between two traces.

    Parameters
    ----------
    network : nn.Module
        The network, which holds the tensors of both traces.
    first, second : Trace
        Two traces in one mode.

    Returns
    -------
    name : str or None
        None if all constants are equal.
    """
    nodes, others = list(first.graph.nodes), list(second.graph.nodes)
    if len(nodes) != len(others):
        return str(nodes[-1].name)
    known = dict(zip(others, nodes, strict=True))
    for node, other in zip(nodes, others, strict=True):
        if node.op == "get_attr":
            held = (operator.attrgetter(str(n.target))(network) for n in (node, other))
            if not _equal(*held):
                return str(first.names[next(iter(node.users), node)])
        elif not _equal(_arguments(node, {}), _arguments(other, known)):
            return str(first.names[node])
    return None


def _arguments(node: fx.Node, known: dict[fx.Node, fx.Node]) -> list[Any]:
    """Return the arguments of a node in order, nodes of the other trace as those of the first."""
    found: list[Any] = []
    fx.node.map_aggregate((node.args, node.kwargs), found.append)
    return [known.get(a, a) if isinstance(a, fx.Node) else a for a in found]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.shape == other.shape and one.dtype is other.dtype
        return same and (one.is_meta or torch.equal(one.nan_to_num(), other.nan_to_num()))
    if not isinstance(one, int | float | complex | str):
        # Types, devices and nodes of the graph are no values.
        return True
    # NaN is not equal to itself.
    return bool(one == other or (one != one and other != other))
