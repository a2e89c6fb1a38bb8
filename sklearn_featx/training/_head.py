"""Heads: construction, and the start of their training."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from .._graphs import mixes_rows, plain_new_tensors
from .._messages import cause, shown
from .._typing import AnyArray
from ._probe import LinearModel
from ._random import seeded
from ._scaling import Scaling

Head: TypeAlias = Literal["linear", "mlp"] | nn.Module | Callable[[int, int], nn.Module]

MAX_HIDDEN = 512
DROPOUT = 0.1
# Small, so that the first predictions are nearly uniform and the first gradients in the backbone
# are small. The value is that of the reference code of He et al. 2022 (MAE).
INITIAL_STD = 0.01


@plain_new_tensors()
def make_head(head: Head, n_inputs: int, n_outputs: int, *, seed: int) -> nn.Module:
    """Build a head.

    Parameters
    ----------
    head : {"linear", "mlp"}, torch.nn.Module or callable
        "linear": `Standardize` and one `torch.nn.Linear`, with weights of standard deviation 0.01
        and bias 0. "mlp": `Standardize`, one hidden layer of `n_inputs` units, at most 512, GELU,
        dropout of 0.1, and a linear layer as above. A module is copied, so the original is never
        trained. A callable gets `n_inputs` and `n_outputs` and returns a module.
    n_inputs : int
        Number of columns of the embedding.
    n_outputs : int
        Number of classes or of regression targets.
    seed : int
        Seed of the initial weights. Torch's global generator does not change.

    Returns
    -------
    module : torch.nn.Module
        Maps (n_rows, n_inputs) to (n_rows, n_outputs).

    Raises
    ------
    TypeError
        If `head` has another type, or the callable returns no module.
    ValueError
        If `head` is an unknown name, or the module does not accept or return these widths, or
        mixes rows.
    """
    with seeded(seed):
        if isinstance(head, str):
            return _named_head(head, n_inputs, n_outputs)
        module = _own_head(head, n_inputs, n_outputs)
        _check_width(module, n_inputs, n_outputs)
    return module


def _named_head(name: str, n_inputs: int, n_outputs: int) -> nn.Module:
    if name == "linear":
        return nn.Sequential(Standardize(n_inputs), _linear(n_inputs, n_outputs))
    if name == "mlp":
        hidden = min(n_inputs, MAX_HIDDEN)
        return nn.Sequential(
            Standardize(n_inputs),
            nn.Linear(n_inputs, hidden),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            _linear(hidden, n_outputs),
        )
    raise ValueError(f"head={shown(name)} is unknown. Known names: 'linear', 'mlp'")


def _linear(n_inputs: int, n_outputs: int) -> nn.Linear:
    layer = nn.Linear(n_inputs, n_outputs)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    nn.init.zeros_(layer.bias)
    return layer


def _own_head(
    head: nn.Module | Callable[[int, int], nn.Module], n_inputs: int, n_outputs: int
) -> nn.Module:
    if isinstance(head, nn.Module):
        return deepcopy(head).cpu()
    if not callable(head):
        raise TypeError(
            "head must be 'linear', 'mlp', a torch.nn.Module or a callable "
            f"(n_inputs, n_outputs) -> torch.nn.Module, got {type(head).__name__}"
        )
    try:
        module = head(n_inputs, n_outputs)
    except Exception as error:
        # The user's code runs here, which may raise anything.
        raise ValueError(
            f"head={shown(head)} raised {cause(error)}. It is called as head(n_inputs, n_outputs) "
            "and returns a torch.nn.Module."
        ) from error
    if not isinstance(module, nn.Module):
        raise TypeError(f"head: the callable returned {type(module).__name__}, no torch.nn.Module")
    # A callable may return the same module in each call.
    return deepcopy(module).cpu()


def _check_width(module: nn.Module, n_inputs: int, n_outputs: int) -> None:
    training = module.training
    module.eval()  # running statistics must not change
    output, mixes = _tried(module, n_inputs, n_outputs)
    expected = f"(n_rows, {n_outputs}), one column for each class or target"
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"head must return a tensor of shape {expected}, but it returned "
            f"{type(output).__name__}"
        )
    if not output.dtype.is_floating_point:
        raise ValueError(
            f"head must return real floating-point numbers, but it returned {output.dtype}"
        )
    if output.shape != (2, n_outputs):
        raise ValueError(
            f"head must return shape {expected}, but for 2 rows it returned {tuple(output.shape)}"
        )
    if mixes:
        raise ValueError(
            "head: its outputs for a row depend on the other rows of the batch. Its forward must "
            "compute each row alone: x.mean(1, keepdim=True) instead of x.mean() or x.mean(0)."
        )
    module.train(training)


def _tried(module: nn.Module, n_inputs: int, n_outputs: int) -> tuple[Any, bool]:
    """Return a head's outputs for two rows of zeros, and whether it mixes rows."""
    try:
        with torch.no_grad():
            output = module(torch.zeros(2, n_inputs))
            right = isinstance(output, torch.Tensor) and output.shape == (2, n_outputs)
            return output, right and mixes_rows(lambda rows: (module(rows),), (n_inputs,))
    except Exception as error:
        # The user's code runs here, which may raise anything.
        raise ValueError(
            f"head does not accept the embedding of shape (n_rows, {n_inputs}), whose width is "
            f"that of backbone and head_layers: {cause(error)}"
        ) from error


class Standardize(nn.Module):
    """Standardization of embeddings by the `Scaling` of the training rows.

    The embeddings of networks differ in scale by orders of magnitude. After this module, a learning
    rate of the head has the same effect for all of them. Before `measure`, embeddings do not
    change.

    Parameters
    ----------
    n_features : int
        Number of columns of the embeddings.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardize embeddings, (n, n_features)."""
        return (x - self.mean) / self.scale

    def measure(
        self, embeddings: AnyArray, weights: AnyArray | None, widths: Sequence[int] | None = None
    ) -> None:
        """Set mean and spread from training embeddings.

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
    """Set the scale of a named head, and the weights of a linear head.

    Parameters
    ----------
    head : torch.nn.Module
        `Standardize` and layers, from `make_head`. Changed in place.
    embeddings : ndarray of shape (n_rows, n_features)
        Training embeddings.
    weights : ndarray of shape (n_rows,) or None
        Weights of the rows.
    model : LinearModel, default=None
        The function of the linear head. None: the weights of the head do not change.
    widths : sequence of int, default=None
        As in `Scaling.of`, for the layers that the head reads.
    """
    assert isinstance(head, nn.Sequential)
    standardize, layer = head[0], head[1]
    assert isinstance(standardize, Standardize)
    assert isinstance(layer, nn.Linear)
    standardize.measure(embeddings, weights, widths)
    if model is None:
        return
    if widths is not None and len(widths) > 1:
        # Adam's steps are of one size, whatever the gradient: over a few thousand columns of
        # variance 1 they carry the head away from the optimum that it starts at.
        standardize.scale *= (sum(widths) / len(widths)) ** 0.5
    mean, scale = (b.double().cpu().numpy() for b in (standardize.mean, standardize.scale))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(model.weight * scale))
        layer.bias.copy_(torch.from_numpy(model.bias + model.weight @ mean))
