"""Rewriting of a frozen network for faster inference, with equal results to float tolerance."""

import copy
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .._graphs import BATCH_NORMS, is_of_library, is_plain, norm_pairs
from ._rounding import round_convolutions

# Layers of torch, torchvision and timm that return their input in inference mode.
_IDLE = {"Identity", "Dropout", "Dropout2d", "AlphaDropout", "StochasticDepth", "DropPath"}


def rewrite_for_inference(
    module: nn.Module, dtype: torch.dtype = torch.float32, *, channels_last: bool = True
) -> nn.Module:
    """Return a private copy with BatchNorm folded into convolutions and channels_last weights.

    Parameters
    ----------
    module : nn.Module
        A frozen module in inference mode. It is not changed.
    dtype : torch.dtype, default=torch.float32
        The dtype to compute in; BatchNorm that cannot be folded keeps its own dtype.
    channels_last : bool, default=True
        Whether weights get the channels_last memory format, which their results then have too.

    Returns
    -------
    rewritten : nn.Module
        A module with equal results to float tolerance.
    """
    own = copy.deepcopy(module)
    for part in own.modules():
        if isinstance(part, fx.GraphModule):
            _drop_idle(part)
            _fold_batch_norms(part)
    if dtype is not torch.float32:
        round_convolutions(own, dtype)
        _convert(own, dtype)
    for part in own.modules():
        # `own.to(memory_format=...)` fails on buffers with five dimensions.
        if channels_last and isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return own


def _drop_idle(module: fx.GraphModule) -> None:
    """Remove layers without effect in inference mode, which separate layers to be fused."""
    for node in module.graph.find_nodes(op="call_module"):
        part = module.get_submodule(str(node.target))
        idle = type(part).__name__ in _IDLE and is_of_library(part) and not part.training
        idle = idle and is_plain(part)
        # A network must not return its own input, which belongs to the caller.
        if idle and node.args and node.all_input_nodes[0].op != "placeholder":
            node.replace_all_uses_with(node.all_input_nodes[0])
            module.graph.erase_node(node)


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert float32 parameters and buffers to a dtype, except those of BatchNorm."""
    for part in module.modules():
        if not isinstance(part, BATCH_NORMS):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if tensor.dtype is torch.float32:
                    tensor.data = tensor.data.to(dtype)


def _fold_batch_norms(module: fx.GraphModule) -> None:
    for convolution, norm in norm_pairs(module.graph, module):
        parts: list[Any] = [module.get_submodule(str(n.target)) for n in (convolution, norm)]
        module.set_submodule(str(convolution.target), fuse_conv_bn_eval(*parts))
        norm.replace_all_uses_with(convolution)
        module.graph.erase_node(norm)
    module.graph.lint()
    module.recompile()
