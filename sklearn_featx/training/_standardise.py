"""Where a head starts: the scale of its inputs, and the function of a linear probe."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from .._typing import AnyArray
from ._scaling import Scaling


class LinearModel(NamedTuple):
    """A linear function of embeddings as they are.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, n_features)
        Coefficients.
    bias : ndarray of shape (n_outputs,)
        Intercepts.
    """

    weight: AnyArray
    bias: AnyArray


class Standardise(nn.Module):
    """Embeddings with a mean of zero and a spread of one over the training rows.

    Embeddings of different networks differ in scale by orders of magnitude; behind this module,
    one learning rate of the head means the same for all of them. What is measured is a `Scaling`.
    Until `measure` is called it does nothing.

    Parameters
    ----------
    n_features : int
        Width of the embeddings.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardise embeddings, (n, n_features)."""
        return (x - self.mean) / self.scale

    def measure(
        self, embeddings: AnyArray, weights: AnyArray | None, widths: Sequence[int] | None = None
    ) -> None:
        """Set mean and spread to those of training embeddings.

        Parameters
        ----------
        embeddings : ndarray of shape (n_rows, n_features)
            The training rows.
        weights : ndarray of shape (n_rows,) or None
            Their weights.
        widths : sequence of int, default=None
            As in `Scaling.of`.
        """
        scaling = Scaling.of(embeddings, weights, widths)
        self.mean.copy_(torch.as_tensor(scaling.mean))
        self.scale.copy_(torch.as_tensor(scaling.spread))


def start_head(
    head: nn.Module,
    embeddings: AnyArray,
    weights: AnyArray | None,
    model: LinearModel | None = None,
    widths: Sequence[int] | None = None,
) -> None:
    """Set the scale of a named head, and let a linear one start at a linear model.

    Parameters
    ----------
    head : torch.nn.Module
        `Standardise` and layers, from `make_head`. Changed in place.
    embeddings : ndarray of shape (n_rows, n_features)
        Training embeddings.
    weights : ndarray of shape (n_rows,) or None
        Weights of the rows.
    model : LinearModel, default=None
        The function that a linear head is to compute; None leaves the layers as they are.
    widths : sequence of int, default=None
        Numbers of columns of the layers that the head reads, as in `Scaling.of`.
    """
    assert isinstance(head, nn.Sequential)
    standardise, layer = head[0], head[1]
    assert isinstance(standardise, Standardise)
    assert isinstance(layer, nn.Linear)
    standardise.measure(embeddings, weights, widths)
    if model is None:
        return
    mean, scale = (b.double().cpu().numpy() for b in (standardise.mean, standardise.scale))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(model.weight * scale))
        layer.bias.copy_(torch.from_numpy(model.bias + model.weight @ mean))
