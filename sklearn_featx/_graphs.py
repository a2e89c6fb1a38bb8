"""Networks and their torch.fx graphs: cut points, norms to fold, devices, state, mixed rows."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn

from ._parallel import generator_lock

# Modules of these keep nothing while they compute in inference mode.
_LIBRARIES = {"torch", "torchvision", "timm", __name__.partition(".")[0]}
# Two batches of one shape pass through the same operations, so that a row of its own has the same
# rounding in both, and a network that mixes rows differs far more.
_SHARE_OF_SPREAD = 1e-3
_SHARE_OF_SIZE = 1e-5


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
    """Find the positions in a graph that exactly one value crosses.

    Parameters
    ----------
    nodes : list of fx.Node
        The operations that depend on the source. Other values can be computed anywhere and do not
        count.
    source : fx.Node
        The input value.
    kept : collection of fx.Node, default=()
        Values that are needed after the last operation. Each crosses every position after the
        operation that computes it.

    Returns
    -------
    crossing : dict of int to fx.Node
        Maps position ``i``, after ``nodes[i]``, to the only value that crosses it.
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


def place(graph: fx.Graph, device: torch.device) -> bool:
    """Replace the devices in a graph, in place; return whether it has any."""
    return _replace(_with_devices(graph), device)


def follow_input(graph: fx.Graph) -> bool:
    """Replace the devices in a graph, in place, by the device of its input; see `place`."""
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
        # Device names are strings: only those of this argument are certain to name a device.
        if isinstance(kwargs.get("device"), str):
            kwargs = {**kwargs, "device": device}
        node.args, node.kwargs = args, kwargs
    return bool(nodes)


def default_device() -> torch.device:
    """Return the device of new tensors."""
    # In PyTorch 2.6, `get_default_device` fails once a script has set None.
    return torch.empty(0).device


@contextmanager
def plain_new_tensors() -> Iterator[None]:
    """Context manager or decorator: new tensors are ordinary tensors on the CPU.

    A script may set a GPU as the default device, or call this package in `torch.inference_mode`.
    Networks are built and traced on the CPU and then moved to their device. They are kept for the
    life of the process; parameters created in inference mode could never be trained.
    """
    with ExitStack() as stack:
        if default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        yield


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer computes what its class defines: it has no hooks and no replaced methods."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return not hooked and not any(map(callable, vars(layer).values()))


def norm_pairs(graph: fx.Graph, module: nn.Module) -> list[tuple[fx.Node, fx.Node]]:
    """Find each batch normalization that can be folded into the convolution before it.

    Parameters
    ----------
    graph : fx.Graph
        The graph of a traced network.
    module : nn.Module
        The network, with the modules that the graph calls.

    Returns
    -------
    pairs : list of (fx.Node, fx.Node)
        A convolution, and the normalization with running statistics that is the only reader of its
        result. The network calls each of them once.
    """
    parts = dict(module.named_modules(remove_duplicate=False))
    calls = graph.find_nodes(op="call_module")
    # Counted by identity, since one module may have several names.
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
    # Subclasses and parametrized layers may compute something else.
    kinds = type(convolution) in _CONVOLUTIONS and type(norm) in BATCH_NORMS
    return once and tracked and kinds and is_plain(convolution) and is_plain(norm)


class NodeByNode(fx.Interpreter):
    """Interpreter of a graph with one input.

    `fx.Interpreter.run` makes a progress bar, and that starts a thread which never ends, though the
    bar is not shown.
    """

    def results(self, x: Any) -> Iterator[tuple[fx.Node, Any]]:
        """Yield each node with its result, the output last."""
        self.args_iter = iter([x])
        for node in self.graph.nodes:
            result = self.env[node] = self.run_node(node)
            for unneeded in self.user_to_last_uses.get(node, []):
                del self.env[unneeded]
            yield node, result


def is_of_library(module: nn.Module) -> bool:
    """Whether a module's class is of torch, torchvision, timm or this package.

    Parameters
    ----------
    module : nn.Module
        The module.
    """
    return type(module).__module__.partition(".")[0] in _LIBRARIES


def is_reentrant(network: nn.Module) -> bool:
    """Whether several threads may compute with a network: modules of others may keep state.

    Parameters
    ----------
    network : nn.Module
        The network, in inference mode.
    """
    return all(is_of_library(part) for part in network.modules())


def needs_contiguous(error: RuntimeError) -> bool:
    """Whether a network failed because its feature maps were channels_last.

    `x.view(len(x), -1)` joins axes, which channels_last tensors hold in another order.

    Parameters
    ----------
    error : RuntimeError
        The network's error.
    """
    return "view size is not compatible" in str(error)


def mixes_rows(
    compute: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    shape: Sequence[int],
    *,
    branches: bool = False,
) -> bool:
    """Whether the results of a row depend on the other rows of its batch.

    Parameters
    ----------
    compute : callable
        From a batch of float32 values to its results, with a row for each row. It may change the
        batch, and draw from torch's global generator, whose state is restored.
    shape : sequence of int
        Shape of a row.
    branches : bool, default=False
        Whether a condition may depend on values. The row is then also computed beside rows of
        zeros and of ones, which meet other conditions.

    Returns
    -------
    mixes : bool
        False if two calls with the same batch differ: the reason is then another one.
    """
    generator = torch.Generator().manual_seed(0)
    row, inner, outer = torch.rand((3, *shape), generator=generator)
    # Not only the means but also the extremes of the two batches differ. Both have one shape, since
    # rounding may depend on it.
    one = torch.stack([0.25 + row / 2, 0.4 + inner / 5])
    pairs = [(one, torch.stack([one[0], outer]))]
    if branches:
        dark, bright = (torch.full_like(row, value) for value in (0.0, 1.0))
        pairs.append((torch.stack([one[0], *[dark] * 3]), torch.stack([one[0], *[bright] * 3])))
    with generator_lock:
        state = torch.get_rng_state()
        try:
            return any(_differ(compute, *pair) for pair in pairs)
        finally:
            torch.set_rng_state(state)


def _differ(
    compute: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    one: torch.Tensor,
    other: torch.Tensor,
) -> bool:
    """Whether two batches give their first row different results, but the same batch the same."""
    found = _seeded(compute, one)
    differs = not _same_first_rows(found, _seeded(compute, other))
    return differs and _same_first_rows(found, _seeded(compute, one))


def _seeded(
    compute: Callable[[torch.Tensor], Sequence[torch.Tensor]], batch: torch.Tensor
) -> Sequence[torch.Tensor]:
    torch.default_generator.manual_seed(0)
    return compute(batch.clone())


def _same_first_rows(results: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    return all(map(_is_same_first_row, results, others))


def _is_same_first_row(result: torch.Tensor, other: torch.Tensor) -> bool:
    if not result.is_floating_point() or not result[:1].numel():
        return bool(torch.equal(result[0], other[0]))
    size, spread = result[0].abs().max(), (result[0] - result[1]).abs().max()
    tolerance = max(_SHARE_OF_SIZE * float(size), _SHARE_OF_SPREAD * float(spread))
    return torch.allclose(result[0], other[0], rtol=0, atol=tolerance, equal_nan=True)
