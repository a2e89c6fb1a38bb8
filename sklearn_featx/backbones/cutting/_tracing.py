"""Tracing of a network's forward with torch.fx, in one mode.

The graph has the same sequence of operations as the network's forward. The network is not changed.
"""

import contextlib
import inspect
import math
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from ..._messages import cause, short
from ..._parallel import ForkSafeLock
from ...exceptions import BackboneError
from .._attributes import attributes_kept, buffers_kept
from .._refusals import no_tensor
from ._mutation import first_change, use_changed_values, works_in_place

# A forward may raise any error for proxies instead of tensors: control flow on values, `len`,
# conversions, missing attributes.
_TRACE_FAILURES = (Exception,)


# Folders of the code that traces; other frames of a traceback are of the network.
_TRACERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))


class UntraceableError(Exception):
    """The network's own `forward` cannot be traced by torch.fx."""


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
        Qualified names of untraceable module classes, which are one operation each.
    """

    graph: fx.Graph
    names: dict[fx.Node, str]
    opaque: tuple[str, ...]

    @property
    def placeholder(self) -> fx.Node:
        """The node of the network's input."""
        node: fx.Node = next(iter(self.graph.find_nodes(op="placeholder")))
        return node

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

    A module whose forward cannot be traced becomes one operation, like every other module of the
    same class.

    Parameters
    ----------
    network : nn.Module
        A network with one input and one output tensor; other arguments keep their defaults.
    train : bool, default=False
        Whether to trace the training mode instead of the inference mode.
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
        If the network's own forward cannot be traced.
    BackboneError
        If the network does not have one input and one output tensor.
    """
    _check_inputs(network)
    _check_called_plainly(network)
    with _mode(network, train=train):
        wrapped = _wrapped_modules()
        try:
            traced = _traced(network, leaf_modules, autowrap_functions)
        except UntraceableError:
            if _wrapped_modules() == wrapped:
                raise
        else:
            if _wrapped_modules() == wrapped:
                return traced
        # The forward itself has imported torchvision. The trace must be the same in processes that
        # had imported it before.
        return _traced(network, leaf_modules, autowrap_functions)


def check_followed(network: nn.Module, found: Trace) -> None:
    """Check that no opaque module has most of the parameters: few cuts would be possible.

    Parameters
    ----------
    network : nn.Module
        The network.
    found : Trace
        Its trace.

    Raises
    ------
    UntraceableError
        If there is one.
    """
    total = sum(parameter.numel() for parameter in network.parameters())
    for node in found.graph.find_nodes(op="call_module"):
        module = network.get_submodule(str(node.target))
        if type(module).__qualname__ in found.opaque:
            held = sum(parameter.numel() for parameter in module.parameters())
            if 2 * held > total:
                raise UntraceableError(f"most of it is in one {type(module).__qualname__}")


def _traced(
    network: nn.Module,
    leaf_modules: Sequence[type[nn.Module]],
    autowrap_functions: Sequence[Any],
) -> Trace:
    opaque: list[type[nn.Module]] = []
    while True:
        tracer = _Tracer((*leaf_modules, *opaque), autowrap_functions)
        try:
            with attributes_kept(network), buffers_kept(network) as changed:
                graph = tracer.trace(network, concrete_args=_defaults(network))
            if changed:
                raise UntraceableError("it changes a buffer in place")
        except UntraceableError:
            raise
        except _TRACE_FAILURES as error:
            if tracer.failed is None:
                raise UntraceableError(_reason(error)) from error
            opaque.append(type(tracer.failed))
            continue
        mutation = use_changed_values(graph, network)
        mutation = mutation or _discarded_mutation(graph, network)
        mutation = mutation or _mutation_of_state(graph, network)
        if mutation is not None:
            opaque.append(type(_owner(network, tracer.names[mutation])))
            continue
        _clean(graph)
        _check_signature(graph)
        names = {node: tracer.names.get(node, node.name) for node in graph.nodes}
        return Trace(graph, names, tuple(cls.__qualname__ for cls in opaque))


def _wrapped_modules() -> tuple[Any, ...]:
    """Return the modules whose functions are one operation each."""
    if "torchvision" not in sys.modules:
        # No network can use what nothing has imported, and the import takes a second.
        return (math,)
    # The statement waits for another thread that is importing it.
    import torchvision.ops

    return (math, torchvision.ops)


def _reason(error: Exception) -> str:
    """Describe what a forward does that torch.fx cannot follow, and where."""
    by_value = isinstance(error, fx.proxy.TraceError)
    if by_value or any(word in str(error) for word in ("Proxy", "symbolic tracing")):
        what = "a condition, loop or number depends on its input"
    else:
        what = cause(error)
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(_TRACERS)]
    if not outside:
        return what
    return f"{what}, line {outside[-1].lineno} of {short(Path(outside[-1].filename).name)}"


def _owner(network: nn.Module, name: str) -> nn.Module:
    path = name.rpartition(".")[0]
    if not path:
        raise UntraceableError(f"{name!r} changes its input in place")
    return network.get_submodule(path)


def _check_inputs(network: nn.Module) -> None:
    parameters = inspect.signature(network.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind in plain]
    if len(required) > 1:
        raise BackboneError(
            f"backbone: the network takes {len(required)} inputs {required}, and a backbone takes "
            "one tensor. Wrap it in a module that takes one."
        )


def _check_called_plainly(network: nn.Module) -> None:
    """Reject a replaced forward and hooks: torch.fx traces the class's forward without hooks."""
    if "forward" in vars(network):
        raise UntraceableError("its forward was replaced")
    if network._forward_hooks or network._forward_pre_hooks:
        raise UntraceableError("it has hooks")


def _check_signature(graph: fx.Graph) -> None:
    result = graph.output_node().args[0]
    if not isinstance(result, fx.Node):
        raise no_tensor(result)
    inputs = [node.name for node in graph.find_nodes(op="placeholder")]
    if len(inputs) != 1:
        raise BackboneError(
            f"backbone: the network computes its result from {len(inputs)} inputs {inputs}, and a "
            "backbone computes it from one tensor."
        )


class _Tracer(fx.Tracer):
    """A tracer that names every node by its module path and stores the module that failed."""

    def __init__(
        self, leaf_modules: Sequence[type[nn.Module]], autowrap_functions: Sequence[Any]
    ) -> None:
        # Some releases of torch annotate a tuple of exactly one module.
        modules: Any = _wrapped_modules()
        super().__init__(autowrap_modules=modules, autowrap_functions=tuple(autowrap_functions))
        self.names: dict[fx.Node, str] = {}
        self.failed: nn.Module | None = None
        self._leaf_modules = tuple(leaf_modules)
        self._path = ""
        self._uses: dict[str, int] = {}
        self._tensors: dict[int, tuple[str, torch.Tensor]] = {}

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
            # The exception passes through the innermost module first.
            self.failed = self.failed or m
            raise
        finally:
            self._path = outer

    def create_arg(self, a: Any) -> Any:
        name = self._path_of_tensor(a)
        return super().create_arg(a) if name is None else self.create_node("get_attr", name, (), {})

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        name = self._path_of_tensor(attr_val) if isinstance(attr_val, nn.Parameter) else None
        if name is None:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def _path_of_tensor(self, value: Any) -> str | None:
        """Return the path of a parameter or buffer; torch.fx would search the network each time."""
        if not isinstance(value, torch.Tensor):
            return None
        if not self._tensors:
            named = (*self.root.named_parameters(), *self.root.named_buffers())
            self._tensors = {id(tensor): (name, tensor) for name, tensor in named}
        name, _ = self._tensors.get(id(value), (None, value))
        return name

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


# Modules of torchvision.ops with random or compiled behavior inside; its composite blocks
# (Conv2dNormActivation, MLP) are traced.
_TORCHVISION_LEAVES = {"StochasticDepth", "DropBlock2d", "DropBlock3d", "FrozenBatchNorm2d"}

# fx patches nn.Module during a trace, and the mode changes, so traces of a process are serialized.
_TRACE_LOCK = ForkSafeLock()


@contextlib.contextmanager
def _mode(network: nn.Module, *, train: bool) -> Iterator[None]:
    with _TRACE_LOCK:
        modes = [(module, module.training) for module in network.modules()]
        network.train(train)
        try:
            # As in the mode's later passes: a forward may ask whether gradients are computed.
            with torch.set_grad_enabled(train):
                yield
        finally:
            for module, training in modes:
                module.training = training


def _defaults(network: nn.Module) -> dict[str, Any] | None:
    """Return the defaults of forward's optional arguments, so that none becomes an input."""
    parameters = list(inspect.signature(network.forward).parameters.values())
    optional = {
        parameter.name: parameter.default
        for parameter in parameters[1:]
        if parameter.default is not inspect.Parameter.empty
    }
    return optional or None


def _clean(graph: fx.Graph) -> None:
    """Remove nodes that the result does not need: assertions, shape reads, unused arguments."""
    needed = ancestors([graph.output_node()], stop_at=None)
    for node in reversed(graph.nodes):
        if node not in needed:
            graph.erase_node(node)


def _discarded_mutation(graph: fx.Graph, network: nn.Module) -> fx.Node | None:
    """Return an in-place operation whose result is not used, or None."""
    needed = ancestors([graph.output_node()], stop_at=None)
    for node in graph.nodes:
        called = node.op in ("call_module", "call_function", "call_method")
        if called and node not in needed and works_in_place(node, network):
            found: fx.Node = node
            return found
    return None


def _mutation_of_state(graph: fx.Graph, network: nn.Module) -> fx.Node | None:
    """Return an operation that writes into a tensor of the network or a constant, or None.

    The trace has computed a part of it, and threads would share the tensor.
    """
    changes = (first_change(node, network) for node in graph.find_nodes(op="get_attr"))
    return next((node for node in changes if node is not None), None)


def ancestors(wanted: Sequence[fx.Node], *, stop_at: fx.Node | None) -> set[fx.Node]:
    """Return nodes and everything they are computed from, up to but without `stop_at`."""
    found: set[fx.Node] = set()
    stack = [node for node in wanted if node is not stop_at]
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        stack.extend(used for used in node.all_input_nodes if used is not stop_at)
    return found
