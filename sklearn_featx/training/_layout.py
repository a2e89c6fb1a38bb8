"""Memory format of feature maps in training: channels_last, which convolutions compute faster."""

import inspect
from collections.abc import Sequence
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
    # A segment of a network has one graph for each mode.
    graphs = (part.graph,) if isinstance(part, fx.GraphModule) else getattr(part, "graphs", ())
    if graphs:
        calls = [
            call for graph in graphs for call in graph.find_nodes(op="call_method", target="view")
        ]
        return any(len(call.args) <= _ARGUMENTS_OF_MATRIX for call in calls)
    if is_of_library(part):
        return False
    code = getattr(inspect.unwrap(type(part).forward), "__code__", None)
    return code is not None and "view" in code.co_names


def in_format_of(stages: Sequence[nn.Module], normalize: nn.Module) -> nn.Module:
    """Return a normalization whose result has the memory format that the stages compute with.

    Parameters
    ----------
    stages : sequence of nn.Module
        All stages after it.
    normalize : nn.Module
        Gives channels_last maps.
    """
    is_kept = all(map(prefers_channels_last, stages))
    return normalize if is_kept else nn.Sequential(normalize, _Contiguous())


class _Contiguous(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # A copy: maps of one channel are contiguous with the strides of channels_last, too.
        return x.clone(memory_format=torch.contiguous_format)


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
