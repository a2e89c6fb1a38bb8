"""Rounding of weights to a 16-bit dtype that preserves the sum of each filter."""

import torch
from torch import nn

# In larger filters, the rounding errors of the weights average out.
_FEW_WEIGHTS = 64


def round_convolutions(module: nn.Module, dtype: torch.dtype) -> None:
    """Round the float32 weights of every convolution, in place, to values of a 16-bit dtype."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = round_weights(part.weight.data, dtype).to(part.weight.dtype)


def round_weights(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round weights; in a small filter, each weight receives the error of the previous ones.

    The input of a convolution mostly has one sign and similar values at neighboring positions, so
    the error of a filter's sum shifts the output in the same direction for every image: rounding to
    nearest biases the features [1]_. Depthwise filters have 9 or 25 weights. If each error is added
    to the next smaller weight (as error diffusion does between pixels [2]_), the error of the sum
    is only the rounding error of the smallest weight. Inference has no additional cost.

    Parameters
    ----------
    weight : torch.Tensor of shape (n_filters, ...)
        Weights of a convolution, in float32.
    dtype : torch.dtype
        The dtype to round to.

    Returns
    -------
    rounded : torch.Tensor
        The rounded weights, of dtype `dtype` and the same shape.

    References
    ----------
    .. [1] M. Nagel, M. van Baalen, T. Blankevoort and M. Welling, "Data-Free Quantization Through
       Weight Equalization and Bias Correction", ICCV 2019.
    .. [2] R. W. Floyd and L. Steinberg, "An Adaptive Algorithm for Spatial Greyscale", Proceedings
       of the Society for Information Display 17, 1976.

    Examples
    --------
    >>> import torch
    >>> from sklearn_featx.engines._rounding import round_weights
    >>> weight = torch.full((1, 1, 3, 3), 0.1)
    >>> round(float(weight.to(torch.bfloat16).float().sum()), 4)
    0.9009
    >>> round(float(round_weights(weight, torch.bfloat16).float().sum()), 4)
    0.8999
    """
    filters = weight.flatten(1)
    if filters.shape[1] > _FEW_WEIGHTS:
        return weight.to(dtype)
    order = filters.abs().argsort(dim=1, descending=True, stable=True)
    rounded = torch.empty_like(filters, dtype=dtype)
    error = torch.zeros(len(filters), 1, dtype=torch.float64)
    for column in torch.split(order, 1, dim=1):
        wanted = filters.gather(1, column).double() + error
        found = wanted.to(dtype)
        error = wanted - found.double()
        rounded.scatter_(1, column, found)
    return rounded.view_as(weight)
