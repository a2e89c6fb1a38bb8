"""Trace a network with torch.fx, find where its chain can be cut, and cut it.

A *split point* is a place in the order of execution that exactly one computed value crosses: what
comes after depends on the image through that value alone. Constants (parameters, and what is
computed from parameters only) do not count; each segment computes its own.

Promises: segments share the network's parameters and buffers; running all segments in order is the
same sequence of operations as running the network; the network itself is left as it was.
"""

import contextlib
import inspect
import math
import operator
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.ops
from torch import fx, nn

from ._segment import Segment

# What a forward may raise when it is run on proxies instead of tensors: control flow on values,
# `len`, conversions, attribute access on what is not there. The real run is not affected.
_TRACE_FAILURES = (Exception,)


class UntraceableError(Exception):
    """The network's own `forward` cannot be followed by torch.fx."""


@dataclass(frozen=True)
class Trace:
    """One traced mode of a network.

    Parameters
    ----------
    graph : torch.fx.Graph
        One placeholder (the image batch), operations in order of execution, one output.
    names : dict of torch.fx.Node to str
        Module path and operation of each node: ``"layer1.0.conv1"``, ``"layer1.0.add"``.
    opaque : tuple of str
        Qualified names of the module classes that could not be traced and run as one operation.
    """

    graph: fx.Graph
    names: dict[fx.Node, str]
    opaque: tuple[str, ...]

    @property
    def placeholder(self) -> fx.Node:
        """The node of the network's input."""
        return next(iter(self.graph.find_nodes(op="placeholder")))

    @property
    def result(self) -> fx.Node:
        """The node whose value the network returns."""
        node = self.graph.output_node().args[0]
        assert isinstance(node, fx.Node)
        return node


def trace(
    network: nn.Module,
    *,
    train: bool = False,
    leaf_modules: Sequence[type[nn.Module]] = (),
    autowrap_functions: Sequence[Any] = (),
) -> Trace:
    """Trace a network in one mode.

    Modules whose forward cannot be followed become one operation each; so does every other
    module of the same class.

    Parameters
    ----------
    network : nn.Module
        A network with one tensor in and one tensor out; further arguments keep their defaults.
    train : bool, default=False
        Trace the training mode (dropout on) instead of the inference mode.
    leaf_modules : sequence of type, default=()
        Module classes to keep as one operation.
    autowrap_functions : sequence of callable, default=()
        Functions to keep as one operation.

    Returns
    -------
    trace : Trace
        The graph without assertions and dead code.

    Raises
    ------
    UntraceableError
        If the network's own forward cannot be followed, or does not return one tensor.
    """
    opaque: list[type[nn.Module]] = []
    with _mode(network, train=train):
        while True:
            tracer = _Tracer((*leaf_modules, *opaque), autowrap_functions)
            try:
                graph = tracer.trace(network, concrete_args=_defaults(network))
            except _TRACE_FAILURES as error:
                if tracer.failed is None:
                    raise UntraceableError(f"{type(error).__name__}: {error}") from error
                opaque.append(type(tracer.failed))
                continue
            mutation = _discarded_mutation(graph)
            if mutation is not None:
                opaque.append(type(_owner(network, tracer.names[mutation])))
                continue
            _clean(graph)
            _check_signature(graph)
            names = {node: tracer.names.get(node, node.name) for node in graph.nodes}
            return Trace(graph, names, tuple(cls.__qualname__ for cls in opaque))


def _owner(network: nn.Module, name: str) -> nn.Module:
    path = name.rpartition(".")[0]
    if not path:
        raise UntraceableError(f"{name!r} changes its input in place")
    return network.get_submodule(path)


def _check_signature(graph: fx.Graph) -> None:
    if not isinstance(graph.output_node().args[0], fx.Node):
        raise UntraceableError("the network returns more than one tensor")
    if len(graph.find_nodes(op="placeholder")) != 1:
        raise UntraceableError("the network does not take exactly one input")


class _Tracer(fx.Tracer):
    """A tracer that names every node by its module path and remembers where tracing failed."""

    def __init__(
        self, leaf_modules: Sequence[type[nn.Module]], autowrap_functions: Sequence[Any]
    ) -> None:
        super().__init__(
            autowrap_modules=(math, torchvision.ops),
            autowrap_functions=tuple(autowrap_functions),
        )
        self.names: dict[fx.Node, str] = {}
        self.failed: nn.Module | None = None
        self._leaf_modules = tuple(leaf_modules)
        self._path = ""
        self._uses: dict[str, int] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ops = type(m).__module__.startswith("torchvision.ops")
        if ops and type(m).__name__ in _TORCHVISION_LEAVES:
            return True
        return isinstance(m, self._leaf_modules) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outer, self._path = self._path, self.path_of_module(m)
        try:
            if self.is_leaf_module(m, self._path):
                return self.create_proxy("call_module", self._path, args, kwargs)
            return forward(*args, **kwargs)
        except _TRACE_FAILURES:
            # The innermost module is the first that the exception passes through.
            self.failed = self.failed or m
            raise
        finally:
            self._path = outer

    def create_proxy(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy: fx.Proxy = super().create_proxy(kind, target, *args, **kwargs)
        name = self._path
        if kind != "call_module":
            stem, _, number = proxy.node.name.rpartition("_")
            operation = stem if stem and number.isdigit() else proxy.node.name
            name = f"{name}.{operation}" if name else operation
        count = self._uses.get(name, 0)
        self._uses[name] = count + 1
        self.names[proxy.node] = f"{name}_{count}" if count else name
        return proxy


# Modules of torchvision.ops with random or compiled behaviour inside; its composite blocks
# (Conv2dNormActivation, MLP) are to be traced through.
_TORCHVISION_LEAVES = {"StochasticDepth", "DropBlock2d", "DropBlock3d", "FrozenBatchNorm2d"}

# fx patches nn.Module while it traces, and modes are flipped: one trace at a time per process.
_TRACE_LOCK = threading.RLock()


@contextlib.contextmanager
def _mode(network: nn.Module, *, train: bool) -> Iterator[None]:
    with _TRACE_LOCK:
        modes = [(module, module.training) for module in network.modules()]
        network.train(train)
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def _defaults(network: nn.Module) -> dict[str, Any] | None:
    """Defaults of the optional arguments of forward: pinned, so that none stays alive as an input."""
    parameters = list(inspect.signature(network.forward).parameters.values())
    optional = {
        parameter.name: parameter.default
        for parameter in parameters[1:]
        if parameter.default is not inspect.Parameter.empty
    }
    return optional or None


def _clean(graph: fx.Graph) -> None:
    """Drop what the result does not depend on: assertions, shape reads, unused arguments."""
    needed = _ancestors([graph.output_node()], stop_at=None)
    for node in reversed(graph.nodes):
        if node not in needed:
            graph.erase_node(node)


def _discarded_mutation(graph: fx.Graph) -> fx.Node | None:
    """Return an operation that works by changing its input in place, its result unused, if any."""
    for node in graph.nodes:
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        if not node.users and str(name).endswith("_") and not str(name).endswith("__"):
            return node
    return None


class Chain:
    """The operations of a trace that depend on the image, in order, with their split points.

    Parameters
    ----------
    network : nn.Module
        What was traced.
    trace : Trace
        Its trace.

    Attributes
    ----------
    nodes : list of torch.fx.Node
        The operations that depend on the image, in order of execution.
    crossing : dict of int to torch.fx.Node
        Split points: position ``i`` (after ``nodes[i]``) to the one value that crosses there.
    """

    def __init__(self, network: nn.Module, trace: Trace) -> None:
        self.network = network
        self.trace = trace
        dependent = {trace.placeholder}
        self.nodes: list[fx.Node] = []
        for node in trace.graph.nodes:
            if node.op == "output" or dependent.isdisjoint(node.all_input_nodes):
                continue
            dependent.add(node)
            self.nodes.append(node)
        self._index = {node: i for i, node in enumerate(self.nodes)}
        self._owned = self._parameter_owners()
        self.crossing = self._find_crossings()

    def position(self, node: fx.Node) -> int:
        """Place of a node in the chain."""
        return self._index[node]

    def named_positions(self) -> dict[str, int]:
        """Position of each node name, and of each module path: that of the last node inside it."""
        positions: dict[str, int] = {}
        for i, node in enumerate(self.nodes):
            name = self.trace.names[node]
            positions[name] = i
            parts = name.split(".")
            for depth in range(1, len(parts)):
                positions[".".join(parts[:depth])] = i
        return positions

    def parameters_at(self, position: int) -> set[str]:
        """Names of the parameters that the operation at a position reads."""
        return self._owned[position]

    def segment(self, start: int, stop: int) -> fx.Graph:
        """Graph of the operations after position `start` up to and with position `stop`.

        Both are split points; ``start=-1`` is the network's input.
        """
        source = self.trace.placeholder if start < 0 else self.crossing[start]
        return self._extract(source, [self.crossing[stop]])[0]

    def tapped(self, positions: Sequence[int]) -> fx.Graph:
        """Graph from the network's input to the values at several positions, returned as a tuple.

        What no position needs is left out. A value that a later operation may change in place is
        copied first.
        """
        wanted = [self.nodes[position] for position in positions]
        graph, copies = self._extract(self.trace.placeholder, wanted)
        output = graph.output_node()
        results = []
        for node in wanted:
            value = copies[node]
            if len(value.users) > 1 or any(user is not output for user in value.users):
                with graph.inserting_after(value):
                    value = graph.call_method("clone", (value,))
            results.append(value)
        output.args = (tuple(results),)
        return graph

    def _extract(
        self, source: fx.Node, wanted: Sequence[fx.Node]
    ) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
        needed = _ancestors(wanted, stop_at=source)
        graph = fx.Graph()
        copies = {source: graph.placeholder("x")}
        for node in self.trace.graph.nodes:
            if node in needed:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        values = tuple(copies[node] for node in wanted)
        graph.output(values[0] if len(values) == 1 else values)
        return graph, copies

    def _parameter_owners(self) -> list[set[str]]:
        canonical = {id(tensor): name for name, tensor in self.network.named_parameters()}
        modules = dict(self.network.named_modules(remove_duplicate=False))

        def direct(node: fx.Node) -> set[str]:
            if node.op == "call_module":
                tensors = list(modules[str(node.target)].parameters())
            elif node.op == "get_attr":
                tensors = [_attribute(self.network, str(node.target))]
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

    def _find_crossings(self) -> dict[int, fx.Node]:
        last_use: dict[fx.Node, int] = {self.trace.result: len(self.nodes)}
        for i, node in enumerate(self.nodes):
            for used in node.all_input_nodes:
                if used in self._index or used is self.trace.placeholder:
                    last_use[used] = max(i, last_use.get(used, 0))
        crossing: dict[int, fx.Node] = {}
        alive = {self.trace.placeholder}
        for i, node in enumerate(self.nodes):
            alive.add(node)
            alive = {value for value in alive if last_use.get(value, -1) > i}
            if len(alive) == 1:
                (value,) = alive
                if not _is_sequence(value):
                    crossing[i] = value
        return crossing


def _ancestors(wanted: Sequence[fx.Node], *, stop_at: fx.Node | None) -> set[fx.Node]:
    found: set[fx.Node] = set()
    stack = [node for node in wanted if node is not stop_at]
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        stack.extend(used for used in node.all_input_nodes if used is not stop_at)
    return found


def _is_sequence(value: fx.Node) -> bool:
    """Whether a value is taken apart like a tuple: rows on disk are tensors."""
    return bool(value.users) and all(
        user.target is operator.getitem and isinstance(user.args[1], int) for user in value.users
    )


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def cut(
    eval_chain: Chain, train_chain: Chain, stops: Sequence[tuple[int, int]]
) -> list[Segment]:
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
        As many as stops, in order.
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
