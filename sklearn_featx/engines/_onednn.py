"""Operations of oneDNN in a traced network: activations and sums become part of the layer before.

PyTorch calls oneDNN for its own layers too, but brings the weights into oneDNN's order in every
pass, and runs an activation or a sum as another pass over memory. The operators used here are those
that PyTorch's compiler emits; where they are missing, the network stays as it is.
"""

import operator
import threading
from typing import Any, NamedTuple, cast

import torch
from torch import fx, nn
from torch.nn import functional

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_ADDITIONS = (operator.add, operator.iadd, torch.add)


class Activation(NamedTuple):
    """An activation in oneDNN's words.

    Parameters
    ----------
    name : str
        ``"none"``, ``"relu"``...
    scalars : tuple of float
        Its limits.
    algorithm : str
        Which form of it.
    """

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


# Workers that run the same network have their first batches at the same time.
_ordering = threading.Lock()

_NONE = Activation()
_RELU = Activation("relu")
_ACTIVATIONS: dict[Any, Activation] = {
    nn.ReLU: _RELU,
    nn.ReLU6: Activation("hardtanh", (0.0, 6.0)),
    nn.SiLU: Activation("swish"),
    nn.Hardswish: Activation("hardswish"),
    functional.relu: _RELU,
    torch.relu: _RELU,
    "relu": _RELU,
    "relu_": _RELU,
}


class FusedConvolution(nn.Module):
    """A convolution, then an optional sum with another map, then an activation.

    Parameters
    ----------
    layer : nn.Conv2d
        The convolution; its padding is given in numbers.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self._kernel_size = layer.kernel_size
        self._out_channels = layer.out_channels
        self._geometry: tuple[list[int], list[int], list[int]] = (
            [int(n) for n in layer.padding],
            list(layer.stride),
            list(layer.dilation),
        )
        self._groups = layer.groups
        self._weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
        # By the number of threads, which decides on the order as well.
        self._ordered: dict[int, torch.Tensor] = {}
        self._bias = None if layer.bias is None else layer.bias.detach()
        self.activation = _NONE

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Compute ``activation(convolution(x) + other)``; `other` may be overwritten with it."""
        weight = self._ordered.get(torch.get_num_threads())
        if weight is None:
            weight = self._order_weight(x)
        name, scalars, algorithm = self.activation
        layer = (weight, self._bias, *self._geometry, self._groups)
        result: torch.Tensor
        if other is None:
            result = _ops()._convolution_pointwise(x, *layer, name, scalars, algorithm)
        elif other.shape == self._output_shape(x):
            unary = None if self.activation is _NONE else name
            result = _ops()._convolution_pointwise_.binary(
                other, x, *layer, "add", 1.0, unary, [], None
            )
        else:
            result = _ops()._convolution_pointwise(x, *layer, "none", [], "").add(other)
            result = result if self.activation is _NONE else result.relu_()
        return result

    def _order_weight(self, x: torch.Tensor) -> torch.Tensor:
        """Bring the weights into the order that oneDNN prefers for maps of this size.

        Without the size it guesses, and where it guesses wrong every pass pays: in 16-bit types
        more than for the convolution itself. The number of rows makes no difference.
        """
        n_threads = torch.get_num_threads()
        with _ordering:
            if n_threads not in self._ordered:
                size = [1, *x.shape[1:]]
                self._ordered[n_threads] = _ops()._reorder_convolution_weight(
                    self._weight, *self._geometry, self._groups, size
                )
        return self._ordered[n_threads]

    def _output_shape(self, x: torch.Tensor) -> tuple[int, ...]:
        padding, stride, dilation = self._geometry
        size = [
            (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel - 1) - 1) // stride[i] + 1
            for i, kernel in enumerate(self._kernel_size)
        ]
        return (x.shape[0], self._out_channels, *size)


class FusedLinear(nn.Module):
    """A linear layer with its weights in oneDNN's order.

    Parameters
    ----------
    layer : nn.Linear
        The layer.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._weight = _ops()._reorder_linear_weight(layer.weight.detach())
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the layer."""
        result: torch.Tensor = _ops()._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return result


def fused_for(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace the layers of every traced part of a module, where its device is a CPU.

    Parameters
    ----------
    module : nn.Module
        A frozen module, the caller's own copy; it is changed.
    device : torch.device
        Where it is.

    Returns
    -------
    fused : nn.Module
        The same module.
    """
    if device.type == "cpu" and _available():
        for part in list(module.modules()):
            if isinstance(part, fx.GraphModule):
                _fuse(part)
    return module


def _ops() -> Any:
    """Operators of the compiler's back end."""
    return torch.ops.mkldnn


def _available() -> bool:
    """Whether this PyTorch has oneDNN, and the operators under the names of today."""
    names = ("_reorder_convolution_weight", "_reorder_linear_weight", "_convolution_pointwise")
    more = ("_convolution_pointwise_", "_linear_pointwise")
    return all(hasattr(_ops(), name) for name in (*names, *more))


def _fuse(module: fx.GraphModule) -> None:
    fused = _replace_layers(module)
    order = {node: i for i, node in enumerate(module.graph.nodes)}
    # In order of execution: what a sum overwrites may be the fused sum of the block before.
    for node in list(order):
        if node in fused:
            _fuse_activation(module, node, fused[node])
        elif node.op == "call_function" and node.target in _ADDITIONS and not node.kwargs:
            convolution = _fuse_sum(node, fused, order)
            if convolution is not None:
                _fuse_activation(module, convolution, fused[convolution])
    module.graph.lint()
    module.recompile()


def _replace_layers(module: fx.GraphModule) -> dict[fx.Node, FusedConvolution]:
    """Replace layers that are called once; return the convolutions by the node that calls them."""
    calls: dict[int, list[fx.Node]] = {}
    for node in module.graph.find_nodes(op="call_module"):
        calls.setdefault(id(module.get_submodule(str(node.target))), []).append(node)
    fused = {}
    for nodes in calls.values():
        target = str(nodes[0].target)
        layer = module.get_submodule(target)
        if len(nodes) > 1:
            continue
        # Classes derived from these may compute something else.
        if type(layer) is nn.Linear:
            module.set_submodule(target, FusedLinear(layer))
        elif type(layer) is nn.Conv2d and _is_plain(layer):
            fused[nodes[0]] = FusedConvolution(layer)
            module.set_submodule(target, fused[nodes[0]])
    return fused


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _fuse_sum(
    addition: fx.Node, fused: dict[fx.Node, FusedConvolution], order: dict[fx.Node, int]
) -> fx.Node | None:
    """Let a convolution add its result to the map that it would be added to."""
    operands: list[Any] = list(addition.args)
    for convolution, other in (operands, operands[::-1]):
        if (
            convolution in fused
            and len(convolution.users) == len(convolution.args) == 1
            and fused[convolution].activation is _NONE
            and _may_overwrite(other, convolution, fused, order)
        ):
            convolution.args = (*convolution.args, other)
            addition.replace_all_uses_with(convolution)
            addition.graph.erase_node(addition)
            return cast("fx.Node", convolution)
    return None


def _may_overwrite(
    value: Any, at: fx.Node, fused: dict[fx.Node, FusedConvolution], order: dict[fx.Node, int]
) -> bool:
    """Whether nobody but the sum after `at` needs a value's memory any more when `at` runs."""
    if not _has_memory_of_its_own(value, fused) or order[value] >= order[at]:
        return False
    earlier = [user for user in value.users if user not in at.users]
    return len(earlier) == len(value.users) - 1 and all(
        order[user] < order[at] and (user in fused or user.target == "clone") for user in earlier
    )


def _has_memory_of_its_own(value: Any, fused: dict[fx.Node, FusedConvolution]) -> bool:
    if value in fused:
        return True
    is_call = isinstance(value, fx.Node) and value.op == "call_module"
    root = value.graph.owning_module if is_call else None
    return root is not None and type(root.get_submodule(str(value.target))) in _POOLS


def _fuse_activation(module: fx.GraphModule, node: fx.Node, convolution: FusedConvolution) -> None:
    if len(node.users) != 1:
        return
    (user,) = node.users
    found = _activation(module, user)
    # After a sum, those with limits are not available.
    if found is None or (len(node.args) > 1 and found is not _RELU):
        return
    convolution.activation = found
    user.replace_all_uses_with(node)
    module.graph.erase_node(user)


def _activation(module: fx.GraphModule, node: fx.Node) -> Activation | None:
    key: Any = node.target
    if node.op == "call_module":
        key = type(module.get_submodule(str(node.target)))
    return _ACTIVATIONS.get(key)
