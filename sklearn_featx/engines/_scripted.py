"""Neighbouring convolutions as one call, in which PyTorch's interpreter runs one after the other.

Called from Python, each takes some of its time, and Python's lock, for which the threads wait that
read images or compute beside it. The operators are the same, and so is every bit.
"""

import itertools
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import fx, nn

from ._onednn import FusedConvolution, Operation, layer_of


class ScriptedConvolutions:
    """Convolutions that follow each other.

    Parameters
    ----------
    steps : fx.GraphModule
        Calls them one by one, and nothing else; returns a list.
    """

    def __init__(self, steps: fx.GraphModule) -> None:
        self._steps = steps
        self._results = cast("list[fx.Node]", steps.graph.output_node().args[0])
        # By the number of threads and the shapes of the inputs, which tell what is called.
        self._functions: dict[tuple[Any, ...], Callable[..., list[torch.Tensor]]] = {}

    def run(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Compute the steps; an input may be overwritten where a layer alone would do so."""
        key = (torch.get_num_threads(), *(x.shape for x in inputs))
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = self._function(inputs)
        return function(*inputs)

    def _function(self, inputs: tuple[torch.Tensor, ...]) -> Callable[..., list[torch.Tensor]]:
        """Return a script for inputs of these shapes, or the steps if it cannot be written.

        From shapes alone: to run the steps for it would keep all of their maps.
        """
        graph = self._steps.graph
        placeholders = graph.find_nodes(op="placeholder")
        shaped = dict(zip(placeholders, (_without_data(x.shape) for x in inputs), strict=True))
        script = _Script([node.name for node in placeholders])
        for node in graph.nodes:
            layer = layer_of(node)
            if isinstance(layer, FusedConvolution):
                taken = cast("tuple[fx.Node, ...]", node.args)
                operands = [shaped[argument] for argument in taken]
                operation = layer.operation(*operands)
                if operation is None:
                    return self._steps.forward
                names = {id(shaped[argument]): argument.name for argument in taken}
                script.add(node.name, operation, names)
                shaped[node] = _without_data(layer.output_shape(operands[0]))
        return script.function([node.name for node in self._results])


def script_convolutions(module: fx.GraphModule) -> None:
    """Make one call of convolutions that follow each other, where this PyTorch can.

    Parameters
    ----------
    module : fx.GraphModule
        With layers of oneDNN, the caller's own; it is changed.
    """
    if not _available():
        return
    for are_convolutions, nodes in itertools.groupby(list(module.graph.nodes), _is_convolution):
        neighbours = list(nodes)
        if are_convolutions and len(neighbours) > 1:
            _replace(module.graph, neighbours)
    module.recompile()


def _available() -> bool:
    return all(hasattr(torch._C, name) for name in ("parse_ir", "_create_function_from_graph"))


def _is_convolution(node: fx.Node) -> bool:
    return isinstance(layer_of(node), FusedConvolution)


def _without_data(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _replace(graph: fx.Graph, nodes: list[fx.Node]) -> None:
    """Have nodes run as one; those after them take what it returns."""
    taken = itertools.chain.from_iterable(node.all_input_nodes for node in nodes)
    inputs = [node for node in dict.fromkeys(taken) if node not in nodes]
    results = [node for node in nodes if any(user not in nodes for user in node.users)]
    steps = fx.Graph()
    copies = {node: steps.placeholder(node.name) for node in inputs}
    for node in nodes:
        copies[node] = steps.node_copy(node, copies.__getitem__)
    steps.output([copies[node] for node in results])
    scripted = ScriptedConvolutions(fx.GraphModule(nn.Module(), steps))
    with graph.inserting_after(nodes[-1]):
        run = graph.call_function(scripted.run, tuple(inputs))
    with graph.inserting_after(run):
        items = [graph.call_function(operator.getitem, (run, i)) for i in range(len(results))]
    for node, item in zip(results, items, strict=True):
        node.replace_all_uses_with(item, delete_user_cb=lambda user: user not in nodes)
    for node in reversed(nodes):
        graph.erase_node(node)


class _Script:
    """Operations as a graph of PyTorch's interpreter.

    Written by hand, since PyTorch's tracer takes neither weights in oneDNN's order nor lists of
    limits.

    Parameters
    ----------
    inputs : list of str
        Names of the tensors that each call brings.
    """

    def __init__(self, inputs: list[str]) -> None:
        self._inputs = inputs
        self._weights: list[torch.Tensor] = []
        self._lines: list[str] = []

    def add(self, name: str, operation: Operation, names: dict[int, str]) -> None:
        """Add an operation.

        Parameters
        ----------
        name : str
            Of its result.
        operation : Operation
            The operation.
        names : dict of int to str
            Of those of its arguments that a call brings or makes, by the tensor's identity.
        """
        arguments = [
            f"%{names[id(argument)]}" if id(argument) in names else self._constant(argument)
            for argument in operation.arguments
        ]
        operator_name = operation.operator._schema.name
        self._assign(name, "Tensor", f"{operator_name}({', '.join(arguments)})")

    def function(self, results: list[str]) -> Callable[..., list[torch.Tensor]]:
        """Return a function of the inputs that returns a list of results, by name."""
        listed = ", ".join(f"%{name}" for name in results)
        self._assign("featx_results", "Tensor[]", f"prim::ListConstruct({listed})")
        weights = [f"featx_weight_{i}" for i in range(len(self._weights))]
        heading = ", ".join(f"%{name} : Tensor" for name in (*weights, *self._inputs))
        body = "\n".join(self._lines)
        graph = torch._C.parse_ir(f"graph({heading}):\n{body}\n  return (%featx_results)\n")
        return partial(torch._C._create_function_from_graph("script", graph), *self._weights)

    def _constant(self, value: Any) -> str:
        """Write a weight or a constant."""
        if isinstance(value, torch.Tensor):
            self._weights.append(value)
            return f"%featx_weight_{len(self._weights) - 1}"
        if isinstance(value, tuple):
            numbers = ", ".join([self._constant(number) for number in value])
            kind, expression = "Scalar?[]", f"prim::ListConstruct({numbers})"
        elif value is None:
            kind, expression = "NoneType", "prim::Constant()"
        else:
            kind = "int[]" if isinstance(value, list) else type(value).__name__
            written = f'"{value}"' if isinstance(value, str) else str(value)
            expression = f"prim::Constant[value={written}]()"
        return self._assign(f"featx_constant_{len(self._lines)}", kind, expression)

    def _assign(self, name: str, kind: str, expression: str) -> str:
        self._lines.append(f"  %{name} : {kind} = {expression}")
        return f"%{name}"
