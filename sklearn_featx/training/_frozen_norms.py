"""Faster convolutions in training: folded batch normalization with frozen statistics.

Batch normalization with frozen statistics is a scale and a shift. The scale is multiplied into the
kernel of the previous convolution and the shift into its bias; gradients of all of them flow
through the product. The steps are equal to float tolerance, and two passes over every feature map
are saved, forward and backward. Names, parameters and buffers do not change, only the ``forward``
of the modules.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import fx, nn

from .._graphs import norm_pairs


def fold_norms(stages: Iterable[nn.Module]) -> None:
    """Fold batch normalization into the previous convolution, in all traced stages.

    Parameters
    ----------
    stages : iterable of nn.Module
        Stages with frozen running statistics, changed in place.
    """
    for stage in stages:
        # Untraced modules have no graphs and are not changed.
        graphs: Iterable[fx.Graph] = getattr(stage, "graphs", ())
        pairs = [{_targets(pair) for pair in norm_pairs(graph, stage)} for graph in graphs]
        # Only pairs of both modes: one mode may have an operation between the two.
        for names in set.intersection(*pairs) if pairs else ():
            _fold(*map(stage.get_submodule, names))


def _targets(pair: tuple[fx.Node, fx.Node]) -> tuple[str, str]:
    return str(pair[0].target), str(pair[1].target)


def _fold(convolution: nn.Module, norm: nn.Module) -> None:
    # Subclasses may do more than their base.
    if type(convolution) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d:
        return
    if convolution.padding_mode == "zeros":
        convolution.forward = partial(_convolve_and_scale, convolution, norm)  # type: ignore[method-assign]
        norm.forward = _as_is  # type: ignore[method-assign, assignment]


def _convolve_and_scale(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor
) -> torch.Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = scale * shift if norm.bias is None else scale * shift + norm.bias
    weight = convolution.weight * scale[:, None, None, None]
    return nn.functional.conv2d(
        x,
        weight,
        bias,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
    )


def _as_is(x: torch.Tensor) -> torch.Tensor:
    return x


def keep_strided_groups_in_float32(stages: Iterable[nn.Module]) -> None:
    """Exclude strided grouped convolutions from mixed precision on a CPU.

    Their gradient in bfloat16 has no fast kernel there, and takes far longer than in float32.

    Parameters
    ----------
    stages : iterable of nn.Module
        Stages, changed in place.
    """
    for stage in stages:
        for part in stage.modules():
            if isinstance(part, nn.Conv2d) and part.groups > 1 and max(part.stride) > 1:
                part.forward = partial(_in_float32, part.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    if x.device.type != "cpu":
        return forward(x)
    with torch.autocast("cpu", enabled=False):
        return forward(x.float())
