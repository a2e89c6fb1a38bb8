"""Weights in a 16-bit type: rounded one after the other, so that a filter's sum stays."""

import torch
from torch import nn

# With more, the roundings of a filter's weights even out by themselves.
_FEW_WEIGHTS = 64


def round_convolutions(module: nn.Module, dtype: torch.dtype) -> None:
    """Round the float32 weights of every convolution, in place, to values of a 16-bit type."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = round_weights(part.weight.data, dtype).to(part.weight.dtype)


def round_weights(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round weights; each weight of a small filter takes over what those before it left.

    What enters a convolution is mostly of one sign and alike at neighboring places, so a layer's
    output moves by the error of a filter's sum, in the same direction for every image: rounding to
    nearest biases the features [1]_. Depthwise filters have 9 or 25 weights; passing the error on
    to the next smaller weight (as error diffusion does between pixels [2]_) leaves the sum wrong by
    the rounding of the smallest weight alone. It costs nothing when the network runs.

    Parameters
    ----------
    weight : torch.Tensor of shape (n_filters, ...)
        Weights of a convolution, in float32.
    dtype : torch.dtype
        The type to round to.

    Returns
    -------
    rounded : torch.Tensor
        Of type `dtype` and the same shape.

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
    left = torch.zeros(len(filters), 1, dtype=torch.float64)
    for column in torch.split(order, 1, dim=1):
        wanted = filters.gather(1, column).double() + left
        found = wanted.to(dtype)
        left = wanted - found.double()
        rounded.scatter_(1, column, found)
    return rounded.view_as(weight)
