"""Neighbouring convolutions as one call, in which PyTorch's interpreter runs one after the other.

Called from Python, each takes some of its time, and Python's lock, for which the threads wait that
read images or compute beside it. The operators are the same, and so is every bit.
"""

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import fx

from ._onednn import FusedConvolution, Operation

Way: TypeAlias = Callable[..., list[torch.Tensor]]


class Step(NamedTuple):
    """A convolution of a chain.

    Parameters
    ----------
    layer : FusedConvolution
        The convolution.
    takes : tuple of int
        What it is called with, by number: the chain's inputs come first, then the steps' results.
    """

    layer: FusedConvolution
    takes: tuple[int, ...]


class Chain:
    """Convolutions that follow each other.

    Parameters
    ----------
    steps : sequence of Step
        In order.
    results : sequence of int
        Which values are returned, by number.
    """

    def __init__(self, steps: Sequence[Step], results: Sequence[int]) -> None:
        self._steps = steps
        self._results = results
        # By the number of threads and the shapes of the inputs, which tell what is called.
        self._ways: dict[tuple[Any, ...], Way] = {}

    def run(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Compute the steps; an input may be overwritten where the layer alone would do so."""
        key = (torch.get_num_threads(), *(x.shape for x in inputs))
        way = self._ways.get(key)
        return self._run_first(key, inputs) if way is None else way(*inputs)

    def _run_first(
        self, key: tuple[Any, ...], inputs: tuple[torch.Tensor, ...]
    ) -> list[torch.Tensor]:
        """Run step by step, which brings weights in order, and write a script for the next time."""
        script = _Script(len(inputs))
        results = self._run_steps(*inputs, note=script.add)
        self._ways[key] = script.function(self._results) if script.is_whole else self._run_steps
        return results

    def _run_steps(
        self,
        *inputs: torch.Tensor,
        note: Callable[[Operation | None, dict[int, int]], None] | None = None,
    ) -> list[torch.Tensor]:
        values = list(inputs)
        for layer, takes in self._steps:
            operands = [values[i] for i in takes]
            if note is not None:
                note(layer.operation(*operands), dict(zip(map(id, operands), takes, strict=True)))
            values.append(layer.run(*operands))
        return [values[i] for i in self._results]


def chain_convolutions(module: fx.GraphModule) -> None:
    """Make one call of convolutions that follow each other, where this PyTorch can.

    Parameters
    ----------
    module : fx.GraphModule
        With layers of oneDNN, the caller's own; it is changed.
    """
    if not _available():
        return
    for are_convolutions, nodes in itertools.groupby(list(module.graph.nodes), _is_convolution):
        run = list(nodes)
        if are_convolutions and len(run) > 1:
            _replace(module.graph, run)
    module.recompile()


def _available() -> bool:
    return all(hasattr(torch._C, name) for name in ("parse_ir", "_create_function_from_graph"))


def _is_convolution(node: fx.Node) -> bool:
    return isinstance(_owner(node), FusedConvolution)


def _owner(node: fx.Node) -> Any:
    """Whose method a node calls."""
    return getattr(node.target, "__self__", None)


def _replace(graph: fx.Graph, nodes: list[fx.Node]) -> None:
    taken = itertools.chain.from_iterable(node.all_input_nodes for node in nodes)
    inputs = [node for node in dict.fromkeys(taken) if node not in nodes]
    numbers = {node: i for i, node in enumerate([*inputs, *nodes])}
    results = [node for node in nodes if any(user not in nodes for user in node.users)]
    arguments = (cast("tuple[fx.Node, ...]", node.args) for node in nodes)
    takes = [tuple(numbers[argument] for argument in some) for some in arguments]
    steps = [Step(_owner(node), some) for node, some in zip(nodes, takes, strict=True)]
    chain = Chain(steps, [numbers[node] for node in results])
    with graph.inserting_after(nodes[-1]):
        run = graph.call_function(chain.run, tuple(inputs))
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
    n_inputs : int
        Tensors that each call brings.
    """

    def __init__(self, n_inputs: int) -> None:
        self.is_whole = True
        self._n_inputs = n_inputs
        self._names = [f"%v{i}" for i in range(n_inputs)]
        self._weights: list[torch.Tensor] = []
        self._lines: list[str] = []

    def add(self, operation: Operation | None, numbers: dict[int, int]) -> None:
        """Add an operation, whose result is the next value.

        Parameters
        ----------
        operation : Operation or None
            None: what is not a single operator, and cannot be written.
        numbers : dict of int to int
            Of those of its arguments that are values: the identity of the tensor, and the number.
        """
        if operation is None:
            self.is_whole = False
            return
        arguments = [
            self._names[numbers[id(argument)]] if id(argument) in numbers else self._named(argument)
            for argument in operation.arguments
        ]
        name = f"%v{len(self._names)}"
        operator_name = operation.operator._schema.name
        self._lines.append(f"{name} : Tensor = {operator_name}({', '.join(arguments)})")
        self._names.append(name)

    def function(self, results: Iterable[int]) -> Way:
        """Return a function of the inputs that returns a list of values, by number."""
        weights = [f"%w{i}" for i in range(len(self._weights))]
        inputs = [*weights, *self._names[: self._n_inputs]]
        heading = ", ".join(f"{name} : Tensor" for name in inputs)
        returned = ", ".join(self._names[i] for i in results)
        self._lines.append(f"%results : Tensor[] = prim::ListConstruct({returned})")
        body = "\n".join(f"  {line}" for line in self._lines)
        graph = torch._C.parse_ir(f"graph({heading}):\n{body}\n  return (%results)\n")
        return partial(torch._C._create_function_from_graph("chain", graph), *self._weights)

    def _named(self, value: Any) -> str:
        """Name a weight or a constant."""
        if isinstance(value, torch.Tensor):
            self._weights.append(value)
            return f"%w{len(self._weights) - 1}"
        if isinstance(value, tuple):
            numbers = ", ".join([self._named(number) for number in value])
            return self._assign("Scalar?[]", f"prim::ListConstruct({numbers})")
        if value is None:
            return self._assign("NoneType", "prim::Constant()")
        kind = "int[]" if isinstance(value, list) else type(value).__name__
        written = f'"{value}"' if isinstance(value, str) else str(value)
        return self._assign(kind, f"prim::Constant[value={written}]()")

    def _assign(self, kind: str, expression: str) -> str:
        name = f"%c{len(self._lines)}"
        self._lines.append(f"{name} : {kind} = {expression}")
        return name
