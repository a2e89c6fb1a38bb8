"""The feature map behind a row: the last activations that still have positions.

A row is pooled from a feature map, by a rule of ours or inside the network. There, the map is
searched for backwards from the row: the deepest value that alone decides the row, has positions,
and whose positions change the row. (The class token after the last block is a row that the other
tokens no longer change: the map lies before that block.)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import torch
from torch import nn

from .._typing import AnyArray, FloatArray, Pooling
from ._pooling import Pool
from ._stage import dry_run

if TYPE_CHECKING:
    from ._backbone import Backbone

Rule: TypeAlias = Literal["avg", "max", "avgmax", "gem", "grid", "flatten", "network"]

# Rows and seed of the activations that a network's own pooling is tried on.
_TRIAL_ROWS = 2
_TRIAL_SEED = 0
_TOLERANCE = 1e-4


class FeatureMap(NamedTuple):
    """The feature map of a row, and the way from it to the row.

    Parameters
    ----------
    layer : str or int
        The layer, as for `Backbone.tapped`.
    channels_last : bool
        Whether channels are the last axis.
    n_prefix : int
        Number of tokens before those of positions.
    rule : str
        The pooling of all positions; "grid": means of cells; "network" for anything else.
    row : callable or None
        From activations (n, ...) of the layer to rows (n, n_features), arrays both; None where
        the rule says it.
    cells : ndarray of shape (n_cells, n_positions) or None
        Of a grid: the weight of each position in each cell's mean.
    """

    layer: str | int
    channels_last: bool
    n_prefix: int
    rule: Rule
    row: Callable[[AnyArray], AnyArray] | None = None
    cells: FloatArray | None = None


def find_feature_map(
    backbone: "Backbone", layer: str | int, pooling: Pooling | None, input_shape: Sequence[int]
) -> FeatureMap | None:
    """Find the feature map that a layer's pooled row comes from.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layer : str or int
        As for `Backbone.tapped`.
    pooling : str or None
        How the row is pooled.
    input_shape : sequence of int
        Shape of what enters the network for one row.

    Returns
    -------
    found : FeatureMap or None
        None where no value with positions leads to the row alone.
    """
    question = (layer, pooling, tuple(input_shape))
    if question not in backbone._known_maps:
        backbone._known_maps[question] = _found(backbone, layer, pooling, input_shape)
    found: FeatureMap | None = backbone._known_maps[question]
    return found


def _found(
    backbone: "Backbone", layer: str | int, pooling: Pooling | None, input_shape: Sequence[int]
) -> FeatureMap | None:
    pool = backbone.pool(pooling)
    (shape,) = backbone.layer_shapes([layer], input_shape)
    at_end = _channels_at_end(pool, shape)
    spatial = len(shape) > 1 and _has_positions(shape, at_end, pool.prefix_tokens)
    if pooling is not None and pooling != "cls" and spatial:
        cells = pool.cell_weights(shape)
        rule: Any = pooling if cells is None else "grid"
        return FeatureMap(layer, at_end, _n_prefix(pool, shape), rule, cells=cells)
    ways = list(_ways(backbone, layer))
    # The shapes of all in one pass, which takes as long as that of the nearest.
    shapes = _shapes_inside(backbone, [before for before, _ in ways], input_shape)
    for (before, way), shape in zip(ways, shapes, strict=True):
        if len(shape) < 2:
            continue
        found = _pooled_by_network(before, nn.Sequential(way(), pool), shape, pool)
        if found is not None:
            return found
    return None


def _shapes_inside(
    backbone: "Backbone", layers: Sequence[str | int], input_shape: Sequence[int]
) -> list[tuple[int, ...]]:
    """Shapes of one row's activations inside the network; () where they are no rows of numbers."""
    outputs = dry_run(backbone.tapped(layers), (_TRIAL_ROWS, *input_shape)) if layers else ()
    return [
        tuple(output.shape[1:])
        if output.shape[:1] == (_TRIAL_ROWS,) and not output.is_complex()
        else ()
        for output in outputs
    ]


def _ways(
    backbone: "Backbone", layer: str | int
) -> Iterator[tuple[str | int, Callable[[], nn.Module]]]:
    """Places before a layer that alone decide it, the nearest first, and what builds the way."""
    if backbone._chains is None:
        last = backbone._stage_index(layer) + 1
        for k in range(last - 1, 0, -1):
            yield k, partial(nn.Sequential, *(s.module for s in backbone.stages[k:last]))
        return
    chain = backbone._chains[0]
    end = backbone._position(layer)
    names = {position: name for name, position in chain.named_positions().items()}
    for position in sorted((p for p in chain.crossing if p < end), reverse=True):
        yield names[position], partial(_segment, backbone, position, end)


def _segment(backbone: "Backbone", start: int, end: int) -> nn.Module:
    assert backbone._chains is not None
    graph = backbone._chains[0].segment(start, end)
    return torch.fx.GraphModule(backbone.network.module, graph)


def _pooled_by_network(
    layer: str | int, way: nn.Module, shape: tuple[int, ...], pool: Pool
) -> FeatureMap | None:
    """Describe the way from activations of a shape to the row; None if no position changes it."""
    given = _channels_at_end(pool, shape)
    n_prefix = _n_prefix(pool, shape)
    # Values of both signs reveal an activation function after the pooling.
    generator = torch.Generator().manual_seed(_TRIAL_SEED)
    trial = torch.randn((_TRIAL_ROWS, *shape), generator=generator)
    way.eval()
    with torch.inference_mode():
        wanted = way(trial.clone()).flatten(1)
        for at_end in dict.fromkeys((given, False, True)):
            mean = _positions(trial, at_end, n_prefix).flatten(2).mean(2)
            if mean.shape == wanted.shape and torch.allclose(mean, wanted, _TOLERANCE, _TOLERANCE):
                # A map of one position is the row itself.
                several = _has_positions(shape, at_end, n_prefix)
                return FeatureMap(layer, at_end, n_prefix, "avg") if several else None
        if not _has_positions(shape, given, n_prefix):
            return None
        changed = trial.clone()
        other = torch.randn((_TRIAL_ROWS, *shape), generator=generator)
        _positions(changed, given, n_prefix).copy_(_positions(other, given, n_prefix))
        if torch.allclose(way(changed).flatten(1), wanted, _TOLERANCE, _TOLERANCE):
            return None
    return FeatureMap(layer, given, n_prefix, "network", _on_arrays(way))


def _on_arrays(way: nn.Module) -> Callable[[AnyArray], AnyArray]:
    def row(activations: AnyArray) -> AnyArray:
        with torch.inference_mode():
            rows: AnyArray = way(torch.from_numpy(activations).float()).flatten(1).numpy()
        return rows

    return row


def _positions(x: torch.Tensor, at_end: bool, n_prefix: int) -> torch.Tensor:
    """View of activations as (n, channels, ...), without the tokens before those of positions."""
    x = x[:, n_prefix:] if n_prefix else x
    return x.movedim(-1, 1) if at_end else x


def _channels_at_end(pool: Pool, shape: Sequence[int]) -> bool:
    return pool._channels_at_end(len(shape) + 1)


def _n_prefix(pool: Pool, shape: Sequence[int]) -> int:
    return pool.prefix_tokens if len(shape) == 2 and pool.tokens else 0


def _has_positions(shape: Sequence[int], at_end: bool, n_prefix: int) -> bool:
    places = shape[:-1] if at_end else shape[1:]
    return math.prod(places) - n_prefix > 1
