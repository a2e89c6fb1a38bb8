"""Rewrite a frozen network for inference: the same numbers to float tolerance, faster."""

import copy

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Of torch, torchvision and timm: in inference mode they return what they get.
_IDLE = {"Identity", "Dropout", "Dropout2d", "AlphaDropout", "StochasticDepth", "DropPath"}
_LIBRARIES = {"torch", "torchvision", "timm", "sklearn_featx"}


def rewrite_for_inference(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a private copy with BatchNorm folded into convolutions and channels_last weights.

    Parameters
    ----------
    module : nn.Module
        A frozen module in inference mode; it is left as it is.
    dtype : torch.dtype, default=torch.float32
        What to compute in; BatchNorm that cannot be folded keeps its own.

    Returns
    -------
    rewritten : nn.Module
        Computes the same to float tolerance.
    """
    own = copy.deepcopy(module)
    for part in own.modules():
        if isinstance(part, fx.GraphModule):
            _drop_idle(part)
            _fold_batch_norms(part)
    if dtype is not torch.float32:
        _convert(own, dtype)
    for part in own.modules():
        # Not `own.to(memory_format=...)`: it fails on buffers of five dimensions.
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return own


def is_of_library(module: nn.Module) -> bool:
    """Whether a module is of torch, torchvision, timm or this package: without state of its own."""
    return type(module).__module__.partition(".")[0] in _LIBRARIES


def _drop_idle(module: fx.GraphModule) -> None:
    """Remove what does nothing in inference mode, and stands between layers that can be one."""
    for node in module.graph.find_nodes(op="call_module"):
        part = module.get_submodule(str(node.target))
        idle = type(part).__name__ in _IDLE and is_of_library(part) and not part.training
        # The network's input is the caller's: what is returned must not be it.
        if idle and node.args and node.all_input_nodes[0].op != "placeholder":
            node.replace_all_uses_with(node.all_input_nodes[0])
            module.graph.erase_node(node)


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Bring floating-point parameters and buffers to a type."""
    for part in module.modules():
        if not isinstance(part, _BATCH_NORMS):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if tensor.dtype is torch.float32:
                    tensor.data = tensor.data.to(dtype)


def _fold_batch_norms(module: fx.GraphModule) -> None:
    parts = dict(module.named_modules(remove_duplicate=False))
    uses = _count_uses(module.graph, parts)
    for node in list(module.graph.nodes):
        convolution = _foldable_convolution(node, parts, uses)
        if convolution is None:
            continue
        fused = fuse_conv_bn_eval(parts[str(convolution.target)], parts[str(node.target)])
        module.set_submodule(str(convolution.target), fused)
        node.replace_all_uses_with(convolution)
        module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()


def _count_uses(graph: fx.Graph, parts: dict[str, nn.Module]) -> dict[int, int]:
    """How often each module is called: one that is called twice cannot be folded once."""
    uses: dict[int, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            key = id(parts[str(node.target)])
            uses[key] = uses.get(key, 0) + 1
    return uses


def _foldable_convolution(
    node: fx.Node, parts: dict[str, nn.Module], uses: dict[int, int]
) -> fx.Node | None:
    """Return the convolution before a BatchNorm node, when nothing else reads its result."""
    if node.op != "call_module" or not isinstance(parts[str(node.target)], _BATCH_NORMS):
        return None
    before = node.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
        return None
    convolution, norm = parts[str(before.target)], parts[str(node.target)]
    once = uses[id(convolution)] == uses[id(norm)] == 1
    tracked = getattr(norm, "running_var", None) is not None
    return before if once and tracked and isinstance(convolution, _CONVOLUTIONS) else None
