"""Which batch normalisation of a traced network follows which convolution, and nothing else."""

from collections import Counter

from torch import fx, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer computes what its class says: no hooks, no methods of its own."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return not hooked and not any(map(callable, vars(layer).values()))


def norm_pairs(graph: fx.Graph, module: nn.Module) -> list[tuple[fx.Node, fx.Node]]:
    """Find each batch normalisation that can be one with the convolution before it.

    Parameters
    ----------
    graph : fx.Graph
        What a traced network does.
    module : nn.Module
        The network, which holds the modules that the graph calls.

    Returns
    -------
    pairs : list of (fx.Node, fx.Node)
        A convolution and the normalisation, with running statistics, that alone reads its result;
        each is called once in the network.
    """
    parts = dict(module.named_modules(remove_duplicate=False))
    calls = graph.find_nodes(op="call_module")
    # By identity: one module may have several names.
    uses = Counter(id(parts[str(node.target)]) for node in calls)
    return [
        (node.args[0], node)
        for node in calls
        if isinstance(parts[str(node.target)], BATCH_NORMS)
        and isinstance(node.args[0], fx.Node)
        and _is_pair(node.args[0], node, parts, uses)
    ]


def _is_pair(
    before: fx.Node, node: fx.Node, parts: dict[str, nn.Module], uses: Counter[int]
) -> bool:
    if before.op != "call_module" or len(before.users) != 1:
        return False
    convolution, norm = parts[str(before.target)], parts[str(node.target)]
    once = uses[id(convolution)] == uses[id(norm)] == 1
    tracked = getattr(norm, "running_var", None) is not None
    # Classes derived from these may compute something else, as may parametrized layers.
    kinds = type(convolution) in _CONVOLUTIONS and type(norm) in BATCH_NORMS
    return once and tracked and kinds and is_plain(convolution) and is_plain(norm)
