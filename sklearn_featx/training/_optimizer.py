"""Learning rates: a base rate for each stage, and a factor for each step.

The rate of the head is `lr`; that of a stage at distance d from it (1 for the last stage) is
`lr * backbone_lr_ratio * layer_decay**(d - 1)`. With `layer_decay` below 1, stages near the input,
which are more general, learn more slowly (Howard & Ruder 2018, discriminative fine-tuning; Clark et
al. 2020). With the default of 1, all stages have the same rate.
"""

import math
import re
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from .._messages import shown
from ._module import RUNNING_NORMS, ParameterRecord, TailAndHead, parameter_table

OptimizerSpec: TypeAlias = Literal["adamw", "adam", "sgd"] | type[torch.optim.Optimizer]

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {}),
    "adam": (torch.optim.Adam, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}

_NORMS = (*RUNNING_NORMS, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
# Learned tokens, position embeddings and layer scales are no weight matrices, despite several axes.
_NOT_DECAYED = re.compile(r"token|pos_emb|position|layer_scale|bias")


def is_decayed(record: ParameterRecord) -> bool:
    """Whether weight decay applies to a parameter.

    Parameters
    ----------
    record : ParameterRecord
        The parameter, its name and its owner.

    Returns
    -------
    decayed : bool
        False for biases, normalization, every one-dimensional parameter, learned tokens and
        position embeddings.
    """
    if record.parameter.ndim <= 1 or isinstance(record.owner, _NORMS):
        return False
    return _NOT_DECAYED.search(record.name.rpartition(".")[2]) is None


def parameter_groups(
    module: TailAndHead,
    *,
    lr: float,
    backbone_lr_ratio: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups for an optimizer.

    Parameters
    ----------
    module : TailAndHead
        The network. Frozen parameters are in no group.
    lr : float
        Learning rate of the head.
    backbone_lr_ratio : float
        Learning rate of the last stage, as a multiple of `lr`.
    layer_decay : float
        Factor for each additional stage between a stage and the head.
    weight_decay : float
        Weight decay of weight matrices and kernels; other parameters have none.

    Returns
    -------
    groups : list of dict
        Keys "params", "lr" and "weight_decay"; the head's groups come first.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for record in parameter_table(module):
        if record.parameter.requires_grad:
            key = (record.distance, not is_decayed(record))
            groups.setdefault(key, []).append(record.parameter)
    return [
        {
            "params": groups[distance, plain],
            "lr": lr * _rate(distance, backbone_lr_ratio, layer_decay),
            "weight_decay": 0.0 if plain else weight_decay,
        }
        for distance, plain in sorted(groups)
    ]


def _rate(distance: int, backbone_lr_ratio: float, layer_decay: float) -> float:
    return 1.0 if distance == 0 else backbone_lr_ratio * layer_decay ** (distance - 1)


def resolve_optimizer(
    optimizer: OptimizerSpec,
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return the class of an optimizer and its arguments.

    Parameters
    ----------
    optimizer : {"adamw", "adam", "sgd"} or class
        "sgd" has a Nesterov momentum of 0.9; the others have torch's defaults.

    Returns
    -------
    optimizer_class : type
        Subclass of `torch.optim.Optimizer`.
    arguments : dict
        Arguments other than learning rate and weight decay.

    Raises
    ------
    ValueError
        If it is neither a known name nor a class of optimizers.
    """
    if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
        if issubclass(optimizer, torch.optim.LBFGS):
            raise ValueError(
                "optimizer=LBFGS has one learning rate for all parameters, and tail and head have "
                "their own. Use 'adamw', 'adam', 'sgd' or another class."
            )
        return optimizer, {}
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer must be one of {sorted(OPTIMIZERS)} or a subclass of "
            f"torch.optim.Optimizer, got {shown(optimizer)}"
        )
    return OPTIMIZERS[optimizer]


def schedule_factor(step: int, n_steps: int, *, warmup_fraction: float) -> float:
    """Return the factor of the learning rates in one step.

    The factor rises linearly over the first w = ceil(warmup_fraction * n_steps) steps,
    f = (step + 1) / (w + 1), and then falls along a half cosine,
    f = (1 + cos(pi * (step - w) / (n_steps - w))) / 2 (Loshchilov & Hutter 2017).

    Parameters
    ----------
    step : int
        Number of the step, from 0.
    n_steps : int
        Number of steps of the whole training.
    warmup_fraction : float
        Share of the steps for the warmup, in [0, 1].

    Returns
    -------
    factor : float
        In (0, 1]; 0 after the last step.
    """
    warmup = math.ceil(warmup_fraction * n_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if step >= n_steps:
        return 0.0
    return (1 + math.cos(math.pi * (step - warmup) / (n_steps - warmup))) / 2
