"""Devices in a traced graph: a trace writes in those of the network, which may move afterwards."""

from typing import Any

import torch
from torch import fx


def place(graph: fx.Graph, device: torch.device) -> bool:
    """Replace the devices in a graph, in place; return whether there are any."""
    return _replace(_with_devices(graph), device)


def follow_input(graph: fx.Graph) -> bool:
    """Let the operations of a graph, in place, use the device of its input; see `place`."""
    nodes = _with_devices(graph)
    if not nodes:
        return False
    (x, *_) = graph.find_nodes(op="placeholder")
    with graph.inserting_after(x):
        return _replace(nodes, graph.call_function(getattr, (x, "device")))


def _with_devices(graph: fx.Graph) -> list[fx.Node]:
    found: list[fx.Node] = []
    for node in graph.nodes:
        inside: list[Any] = []
        fx.node.map_aggregate((node.args, node.kwargs), inside.append)
        if "device" in node.kwargs or any(isinstance(value, torch.device) for value in inside):
            found.append(node)
    return found


def _replace(nodes: list[fx.Node], device: Any) -> bool:
    for node in nodes:
        args, kwargs = fx.node.map_aggregate(
            (node.args, node.kwargs), lambda v: device if isinstance(v, torch.device) else v
        )
        # Names of devices are text like any other, but for this argument.
        if isinstance(kwargs.get("device"), str):
            kwargs = {**kwargs, "device": device}
        node.args, node.kwargs = args, kwargs
    return bool(nodes)
