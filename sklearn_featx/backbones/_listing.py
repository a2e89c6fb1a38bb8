"""The public lists of a backbone's stages and depths."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import nn

from .._messages import Table, shown
from .._typing import Granularity, Weights
from ._registry import get_backbone


class StageInfo(NamedTuple):
    """One row of `backbone_stages`.

    Parameters
    ----------
    name : str
        Module path, or several joined by ``"+"`` if no cut separates them.
    layer : str
        Name of the end of the stage: the value of `layer` that extracts its activations. It
        differs from `name` where a nonlinearity or a pooling follows the module.
    n_parameters : int
        Number of parameters of the stage.
    output_shape : tuple of int
        Shape of its activations for one image.
    flops_before : float
        Share, from 0 to 1, of the network's floating-point operations in the stages before it. A
        frozen trunk that ends here saves this share in every epoch.
    activation_kib : float
        Size of its activations for one image in float32, in KiB.
    unfreeze_depth : int
        The smallest depth that trains the stage.
    n_trained : int
        Number of parameters that this depth trains, without the head.

    Examples
    --------
    >>> from sklearn_featx import backbone_stages
    >>> last = backbone_stages()[-1]
    >>> last.name, last.output_shape, last.unfreeze_depth
    ('conv_head', (1280,), 1)
    """

    name: str
    layer: str
    n_parameters: int
    output_shape: tuple[int, ...]
    flops_before: float
    activation_kib: float
    unfreeze_depth: int
    n_trained: int


class StageTable(Table[StageInfo]):
    """The stages of a backbone, from input to output; what `backbone_stages` returns."""

    columns = {  # noqa: RUF012 # constant
        "stage": lambda stage: stage.name,
        "layer": lambda stage: stage.layer,
        "parameters": lambda stage: f"{stage.n_parameters:,}",
        "output shape": lambda stage: " x ".join(map(str, stage.output_shape)),
        "% FLOPs before": lambda stage: f"{100 * stage.flops_before:.1f}",
        "KiB per image": lambda stage: f"{stage.activation_kib:,.1f}",
        "depth": lambda stage: str(stage.unfreeze_depth),
        "parameters trained": lambda stage: f"{stage.n_trained:,}",
    }


def backbone_stages(
    backbone: str | nn.Module | Callable[[], nn.Module] = "efficientnet_lite0",
    *,
    weights: Weights = None,
    granularity: Granularity = "stage",
    input_shape: Sequence[int] | None = None,
) -> StageTable:
    """List the stages of a backbone, from input to output.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="efficientnet_lite0"
        As in the estimators.
    weights : str, path or None, default=None
        As in the estimators. Stages do not depend on weights, so none are loaded by default.
    granularity : {"stage", "block"} or list of str, default="stage"
        The size of a stage.
    input_shape : sequence of int, default=None
        Shape of the network's input for one image, (channels, height, width). None: the shape
        that the network was trained on, or (3, 224, 224).

    Returns
    -------
    stages : list of StageInfo
        One record for each stage. It prints as a table, and is one in notebooks.

    Raises
    ------
    BackboneError
        If the backbone does not exist or does not accept this input shape.

    Examples
    --------
    >>> from sklearn_featx import backbone_stages
    >>> for stage in backbone_stages("resnet18")[-2:]:
    ...     print(stage.name, stage.output_shape, stage.unfreeze_depth, stage.n_trained)
    layer3 (256, 14, 14) 2 10493440
    layer4 (512,) 1 8393728
    """
    given = None if input_shape is None else _checked(input_shape)
    image_size = None if given is None or len(given) != 3 else given[1:]
    built = get_backbone(backbone, weights, granularity, image_size=image_size, warn=False)
    size = built.preprocess.output_size or (224, 224)
    shape = (built.preprocess.channels, *size) if given is None else given
    costs = built.costs(shape)
    total = sum(cost.flops for cost in costs) or 1
    counts = [stage.n_parameters for stage in built.stages]
    n_stages = len(counts)
    return StageTable(
        StageInfo(
            name=stage.name,
            layer=stage.layer,
            n_parameters=counts[k],
            output_shape=cost.output_shape,
            flops_before=sum(c.flops for c in costs[:k]) / total,
            activation_kib=cost.n_values * 4 / 1024,
            unfreeze_depth=n_stages - k,
            n_trained=sum(counts[k:]),
        )
        for k, (stage, cost) in enumerate(zip(built.stages, costs, strict=True))
    )


def unfreeze_depths(
    backbone: str | nn.Module | Callable[[], nn.Module] = "efficientnet_lite0",
    *,
    granularity: Granularity = "stage",
    max_depth: int | None = None,
) -> list[int | Literal["all"]]:
    """List the depths of a backbone, for a parameter grid.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="efficientnet_lite0"
        As in the estimators.
    granularity : {"stage", "block"} or list of str, default="stage"
        The size of a stage.
    max_depth : int, default=None
        The largest depth. None: up to ``"all"``.

    Returns
    -------
    depths : list of int and "all"
        The depths; 0 is the linear probe.

    Raises
    ------
    BackboneError
        If the backbone does not exist.
    ValueError
        If `max_depth` is negative or no whole number.

    Examples
    --------
    >>> from sklearn_featx import unfreeze_depths
    >>> unfreeze_depths("resnet18")
    [0, 1, 2, 3, 4, 'all']
    """
    n_stages = len(get_backbone(backbone, None, granularity, warn=False).stages)
    if not (max_depth is None or (isinstance(max_depth, int | np.integer) and max_depth >= 0)):
        raise ValueError(f"max_depth={shown(max_depth)}: expected a number of stages, or None.")
    depths: list[Any] = [*range(n_stages), "all"]
    return depths if max_depth is None else depths[: max_depth + 1]


def _checked(input_shape: Any) -> tuple[int, ...]:
    lengths = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if not lengths or not all(isinstance(n, int | np.integer) and n >= 1 for n in lengths):
        raise ValueError(
            f"input_shape={shown(input_shape)}: expected whole numbers of at least 1, as in "
            "(channels, height, width)."
        )
    return tuple(int(n) for n in lengths)
