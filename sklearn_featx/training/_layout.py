"""Memory format of feature maps in training: channels_last, which convolutions compute faster."""

import inspect
from typing import Any

import torch
from torch import fx, nn

from .._graphs import is_of_library

# `x.view(n, d)`: the tensor and two sizes.
_ARGUMENTS_OF_MATRIX = 3


def prefers_channels_last(module: nn.Module) -> bool:
    """Whether a module may compute with channels_last feature maps.

    `x.view(len(x), -1)` joins axes, which channels_last tensors hold in another order. The code of
    networks that cannot be traced is only searched for the name.

    Parameters
    ----------
    module : nn.Module
        The module.
    """
    return not any(map(_may_join_axes, module.modules()))


def _may_join_axes(part: nn.Module) -> bool:
    if isinstance(part, fx.GraphModule):
        calls = part.graph.find_nodes(op="call_method", target="view")
        return any(len(call.args) <= _ARGUMENTS_OF_MATRIX for call in calls)
    if is_of_library(part):
        return False
    code = getattr(inspect.unwrap(type(part).forward), "__code__", None)
    return code is not None and "view" in code.co_names


def use_channels_last(module: nn.Module) -> None:
    """Give convolution kernels the channels_last memory format, in place.

    Parameters
    ----------
    module : nn.Module
        The module.
    """
    for part in module.modules():
        # `module.to(memory_format=...)` fails on buffers with five dimensions.
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)


def in_channels_last(rows: Any) -> Any:
    """Return feature maps in the channels_last memory format, other rows unchanged.

    Parameters
    ----------
    rows : Tensor or object
        A batch of rows.
    """
    if isinstance(rows, torch.Tensor) and rows.ndim == 4:
        return rows.contiguous(memory_format=torch.channels_last)
    return rows
