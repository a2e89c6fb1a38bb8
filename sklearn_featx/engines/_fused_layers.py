"""Fused oneDNN layers of a traced network: padding, nonlinearity and sum as part of a layer.

PyTorch's plain layers call oneDNN too, but convert the weights to oneDNN's format in every pass,
and compute a nonlinearity or a sum in another pass over memory. The operators in this file are
those that PyTorch's compiler emits. They are not public: a self-test compares them with the plain
layers once per process, and if it fails no network is changed.
"""

import functools
import logging
import operator
from collections.abc import Callable, Iterator, Set
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import fx, nn
from torch.nn import functional

from .._graphs import is_of_library, is_plain
from .._parallel import ForkSafeLock

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
# Functions and methods that give NaN for some finite numbers. Modules of PyTorch guard theirs.
_PARTIAL_IN_TWO = {"div", "truediv", "divide", "remainder", "fmod", "mod", "pow"}
_PARTIAL_IN_ONE = {"reciprocal", "sqrt", "rsqrt", "log", "log2", "log10", "log1p", "logit"}
_PARTIAL_IN_ONE |= {"asin", "acos", "atanh", "std", "var", "std_mean", "var_mean"}
# With infinite values, which masks bring.
_PARTIAL_IN_ONE |= {"softmax", "log_softmax", "masked_fill", "where", "exp", "expm1"}
# Products with larger numbers are soon infinite.
_HUGE = 1e30
_ADDITIONS = (operator.add, operator.iadd, torch.add)


class Nonlinearity(NamedTuple):
    """A nonlinearity in the terms of oneDNN.

    Parameters
    ----------
    name : str
        ``"none"``, ``"relu"``...
    scalars : tuple of float
        Its limits.
    algorithm : str
        Its variant.
    """

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


# Numbers of zeros ((top, bottom), (left, right)).
_Margins = tuple[tuple[int, int], tuple[int, int]]
_NO_MARGINS: _Margins = ((0, 0), (0, 0))


@runtime_checkable
class ZeroPadding(Protocol):
    """A module that only pads feature maps with zeros."""

    def zero_margins(self, x: torch.Tensor) -> _Margins:
        """Return the numbers of zeros ((top, bottom), (left, right))."""


_log = logging.getLogger(__name__)

_OPERATORS = (
    "_convolution_pointwise",
    "_convolution_pointwise_",
    "_linear_pointwise",
    "_reorder_convolution_weight",
    "_reorder_linear_weight",
)

# Workers of the same network have their first batches simultaneously.
_ordering = ForkSafeLock()

_NONE = Nonlinearity()
_RELU = Nonlinearity("relu")
_RELU6 = Nonlinearity("hardtanh", (0.0, 6.0))
_SILU = Nonlinearity("swish")
_HARDSWISH = Nonlinearity("hardswish")
_NONLINEARITIES: dict[Any, Nonlinearity] = {
    nn.ReLU: _RELU,
    nn.ReLU6: _RELU6,
    nn.SiLU: _SILU,
    nn.Hardswish: _HARDSWISH,
    functional.relu: _RELU,
    torch.relu: _RELU,
    "relu": _RELU,
    "relu_": _RELU,
}
_PLAIN_NONLINEARITIES: dict[Nonlinearity, Callable[[torch.Tensor], torch.Tensor]] = {
    _NONE: torch.clone,
    _RELU: torch.relu,
    _RELU6: functional.relu6,
    _SILU: functional.silu,
    _HARDSWISH: functional.hardswish,
}


class _Ordered(NamedTuple):
    """A convolution's weights in oneDNN's format, and its other arguments."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    padding: list[int]
    stride: list[int]
    dilation: list[int]
    groups: int


class FusedConvolution:
    """Optional padding, a convolution, an optional sum with another map, then a nonlinearity.

    It is not a module: the overhead of `nn.Module` per call shows in a small network's time.

    Parameters
    ----------
    layer : nn.Conv2d
        The convolution, with numeric padding.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        self._out_channels = layer.out_channels
        self._padding = [int(n) for n in layer.padding]
        self._stride, self._dilation = list(layer.stride), list(layer.dilation)
        self._groups = layer.groups
        self.weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
        # By the number of threads, which also determines the format, and the padding.
        self._ordered: dict[tuple[int, _Margins], _Ordered] = {}
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._convolve = _ops()._convolution_pointwise.default
        self._convolve_onto = _ops()._convolution_pointwise_.binary
        self.pad: ZeroPadding | None = None
        self.nonlinearity = _NONE

    @property
    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        tensors = [self.weight] if self._bias is None else [self.weight, self._bias]
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    @property
    def may_be_padded(self) -> bool:
        """Whether `pad` may be set and improves the speed.

        The operator pads both ends of an axis equally. For unequal padding, zero weights are added
        to the kernel. In a depthwise convolution this is faster than a padded copy of the map.
        """
        return self.weight.shape[1] == 1 and self._padding == [0, 0] and self._dilation == [1, 1]

    def run(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Compute ``nonlinearity(convolution(x) + other)``; the result may overwrite `other`."""
        ordered = self._ordered_for(x)
        result: torch.Tensor
        if other is None:
            result = self._convolve(x, *ordered, *self.nonlinearity)
        elif other.shape == self._output_shape(x):
            unary = None if self.nonlinearity is _NONE else self.nonlinearity.name
            result = self._convolve_onto(other, x, *ordered, "add", 1.0, unary, (), None)
        else:
            # One of the two maps is broadcast.
            result = self._convolve(x, *ordered, *_NONE).add(other)
            result = result if self.nonlinearity is _NONE else result.relu_()
        return result

    def _output_shape(self, x: torch.Tensor) -> tuple[int, ...]:
        margins = self._margins(x)
        lengths = [self._output_length(axis, x.shape[2 + axis], margins[axis]) for axis in (0, 1)]
        return (x.shape[0], self._out_channels, *lengths)

    def _margins(self, x: torch.Tensor) -> _Margins:
        return _NO_MARGINS if self.pad is None else self.pad.zero_margins(x)

    def _ordered_for(self, x: torch.Tensor) -> _Ordered:
        key = (torch.get_num_threads(), self._margins(x))
        return self._ordered.get(key) or self._order(x, key)

    def _order(self, x: torch.Tensor, key: tuple[int, _Margins]) -> _Ordered:
        """Convert the weights to the format that oneDNN prefers for maps of this size.

        Without the size, oneDNN may guess a wrong format and convert the weights in every pass,
        which takes longer than the convolution itself in 16-bit dtypes. The number of rows does not
        matter.
        """
        with _ordering:
            if key not in self._ordered:
                (top, bottom), (left, right) = key[1]
                weight = functional.pad(self.weight, (right - left, 0, bottom - top, 0))
                weight = weight.contiguous(memory_format=torch.channels_last)
                padding = [self._padding[0] + bottom, self._padding[1] + right]
                rest = (padding, self._stride, self._dilation, self._groups)
                weight = _ops()._reorder_convolution_weight(weight, *rest, [1, *x.shape[1:]])
                self._ordered[key] = _Ordered(weight, self._bias, *rest)
        return self._ordered[key]

    def _output_length(self, axis: int, length: int, margins: tuple[int, int]) -> int:
        reach = self._dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
        padded = length + sum(margins) + 2 * self._padding[axis]
        return (padded - reach) // self._stride[axis] + 1


class FusedLinear:
    """A linear layer with its weights in oneDNN's format.

    Parameters
    ----------
    weight : Tensor of shape (n_outputs, n_inputs)
        The layer's weight.
    bias : Tensor of shape (n_outputs,) or None
        Its bias.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = _ops()._reorder_linear_weight(weight.detach())
        self._bias = None if bias is None else bias.detach()
        self._multiply = _ops()._linear_pointwise.default

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the layer."""
        result: torch.Tensor = self._multiply(x, self.weight, self._bias, *_NONE)
        return result


FusedLayer = FusedConvolution | FusedLinear


def layer_of(node: fx.Node) -> FusedLayer | None:
    """Return the fused layer that a node calls, or None."""
    layer = getattr(node.target, "__self__", None)
    return layer if isinstance(layer, FusedLayer) else None


def fuse_layers(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Replace the layers of every traced part of a module, in place, if the self-test passes."""
    if passes_self_test(dtype):
        for part in list(module.modules()):
            if isinstance(part, fx.GraphModule):
                _fuse(part, dtype)


@functools.cache
def _ops() -> Any:
    """Return the namespace of the operators; raise AttributeError if there is none."""
    for name in ("mkldnn", "onednn"):
        namespace = getattr(torch.ops, name)
        if all(hasattr(namespace, operator_name) for operator_name in _OPERATORS):
            return namespace
    raise AttributeError(f"PyTorch {torch.__version__} has no {', '.join(_OPERATORS)}")


@functools.cache
def passes_self_test(dtype: torch.dtype) -> bool:
    """Whether oneDNN's operators and the plain layers give the same results in a dtype.

    A line in the debug log names an operator that is missing, raises or differs.
    """
    try:
        with torch.inference_mode():
            reason = next(_differences(dtype), None)
    except Exception as error:
        # Private operators may change in any way.
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        _log.debug("Layers are not fused in %s: %s", dtype, reason)
    return reason is None


def _differences(dtype: torch.dtype) -> Iterator[str]:
    """Yield a description of each tiny layer whose result differs from the plain layer's."""
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=random, device="cpu").sub(0.5).to(dtype)

    x = drawn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    for groups in (1, 8):
        # Initialization on another device would draw from PyTorch's global generator.
        layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups, device="meta")
        layer.weight = nn.Parameter(drawn(8, 8 // groups, 3, 3))
        layer.bias = nn.Parameter(drawn(8))
        for nonlinearity, plain in _PLAIN_NONLINEARITIES.items():
            convolution = FusedConvolution(layer)
            convolution.nonlinearity = nonlinearity
            if not _is_near(convolution.run(x), plain(layer(x))):
                yield f"convolution in {groups} groups, nonlinearity {nonlinearity.name}"
            if nonlinearity in (_NONE, _RELU):
                other = torch.ones_like(x)
                if not _is_near(convolution.run(x, other), plain(layer(x) + 1)):
                    yield f"sum after a convolution, nonlinearity {nonlinearity.name}"
    weight, bias = drawn(5, 6), drawn(5)
    if not _is_near(FusedLinear(weight, bias).run(x), functional.linear(x, weight, bias)):
        yield "linear layer"


def _is_near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    same_kind = found.dtype is expected.dtype and found.shape == expected.shape
    tolerance = 1e-5 if expected.dtype is torch.float32 else 2e-2
    return same_kind and torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


def _fuse(module: fx.GraphModule, dtype: torch.dtype) -> None:
    fused = _replace_layers(module, dtype)
    doubtful = _possible_nans(module)
    for node in fused:
        _fuse_pad(module, node, fused[node])
    order = {node: i for i, node in enumerate(module.graph.nodes)}
    # In order of execution: a sum may overwrite the fused sum of the previous block.
    for node in list(order):
        if node in fused:
            _fuse_nonlinearity(module, node, fused[node], doubtful)
        elif node.op == "call_function" and node.target in _ADDITIONS and not node.kwargs:
            convolution = _fuse_sum(node, fused, order)
            if convolution is not None:
                _fuse_nonlinearity(module, convolution, fused[convolution], doubtful)
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()


def _replace_layers(module: fx.GraphModule, dtype: torch.dtype) -> dict[fx.Node, FusedConvolution]:
    """Replace layers of a dtype that are called once; return the convolutions by their node."""
    calls: dict[int, list[fx.Node]] = {}
    for node in module.graph.find_nodes(op="call_module"):
        calls.setdefault(id(module.get_submodule(str(node.target))), []).append(node)
    fused = {}
    for nodes in calls.values():
        layer = module.get_submodule(str(nodes[0].target))
        if len(nodes) > 1 or nodes[0].kwargs or not is_plain(layer):
            continue
        # A network may compute a part in float64.
        if getattr(getattr(layer, "weight", None), "dtype", None) is not dtype:
            continue
        # Subclasses may compute something else.
        if type(layer) is nn.Linear:
            _replace(module, nodes[0], FusedLinear(layer.weight, layer.bias))
        elif type(layer) is nn.Conv2d and _is_usual(layer):
            convolution = FusedConvolution(layer)
            fused[_replace(module, nodes[0], convolution)] = convolution
    return fused


def _replace(module: fx.GraphModule, node: fx.Node, layer: FusedLayer) -> fx.Node:
    """Replace the call of a module by a fused layer; return the new node."""
    with module.graph.inserting_before(node):
        run = module.graph.call_function(layer.run, node.args)
    node.replace_all_uses_with(run)
    module.graph.erase_node(node)
    return run


def _is_usual(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _fuse_pad(module: fx.GraphModule, node: fx.Node, convolution: FusedConvolution) -> None:
    """Merge padding into a convolution if the padded map has no other reader."""
    (before,) = node.all_input_nodes
    if before.op == "call_module" and len(before.users) == 1 and convolution.may_be_padded:
        pad = module.get_submodule(str(before.target))
        if isinstance(pad, ZeroPadding) and is_plain(pad):
            convolution.pad = pad
            before.replace_all_uses_with(before.all_input_nodes[0])
            module.graph.erase_node(before)


def _fuse_sum(
    addition: fx.Node, fused: dict[fx.Node, FusedConvolution], order: dict[fx.Node, int]
) -> fx.Node | None:
    """Merge an addition into a convolution, which adds its result to the other map in place."""
    operands: list[Any] = list(addition.args)
    for convolution, other in (operands, operands[::-1]):
        if (
            convolution in fused
            and len(convolution.users) == len(convolution.args) == 1
            and fused[convolution].nonlinearity is _NONE
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
    """Whether only the sum after `at` still needs a value's memory when `at` runs."""
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
    if root is None:
        return False
    pool = root.get_submodule(str(value.target))
    return type(pool) in _POOLS and is_plain(pool)


def _possible_nans(module: fx.GraphModule) -> set[fx.Node]:
    """Return the values that may be NaN though the input is finite.

    oneDNN's rectifiers turn NaN into 0, and a row that has no features would look like one that
    has.
    """
    found: set[fx.Node] = set()
    for node in module.graph.nodes:
        if not found.isdisjoint(node.all_input_nodes) or _may_give_nan(module, node):
            found.add(node)
    return found


def _may_give_nan(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return not is_of_library(module.get_submodule(str(node.target)))
    layer = layer_of(node)
    if isinstance(layer, FusedConvolution):
        return not layer.is_finite
    name = getattr(node.target, "__name__", str(node.target)).strip("_")
    # A division by a number in the network's code gives no NaN, nor does a square.
    second = node.args[1] if len(node.args) > 1 else None
    by_number = isinstance(second, int | float) and second >= 1 and second == int(second)
    huge = any(isinstance(n, float) and not abs(n) < _HUGE for n in node.args)
    return huge or name in _PARTIAL_IN_ONE or (name in _PARTIAL_IN_TWO and not by_number)


def _fuse_nonlinearity(
    module: fx.GraphModule,
    node: fx.Node,
    convolution: FusedConvolution,
    doubtful: Set[fx.Node],
) -> None:
    if len(node.users) != 1 or not doubtful.isdisjoint([node, *node.all_input_nodes]):
        return
    (user,) = node.users
    found = _nonlinearity(module, user)
    # After a sum, nonlinearities with limits are not available.
    if found is None or (len(node.args) > 1 and found is not _RELU):
        return
    convolution.nonlinearity = found
    user.replace_all_uses_with(node)
    module.graph.erase_node(user)


def _nonlinearity(module: fx.GraphModule, node: fx.Node) -> Nonlinearity | None:
    key: Any = node.target
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        key = type(layer) if is_plain(layer) else None
    return _NONLINEARITIES.get(key)
