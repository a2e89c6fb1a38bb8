"""Layers that the head reads, as taps: what the net gets, and what the head starts from.

With ``head_layers="last"`` the embedding is the output of the last stage. With ``"all"`` it is the
pooled activations of every stage: those of the trunk are cached vectors, and the net computes the
others as its stages are trained.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from .._typing import AnyArray
from ..flow import StoredRows, Tap

HeadLayers: TypeAlias = Literal["all", "last"]


def embedding_taps(n_stages: int, head_layers: HeadLayers) -> tuple[Tap, ...]:
    """Taps of the frozen embedding, in the order of its columns."""
    first = 1 if head_layers == "all" else n_stages
    return tuple(Tap(k, "avg") for k in range(first, n_stages + 1))


def net_taps(split: int, n_stages: int, head_layers: HeadLayers) -> tuple[Tap, ...]:
    """Taps of the net's rows: activations at the split point, then vectors of the trunk."""
    read = embedding_taps(n_stages, head_layers)
    if split == n_stages:
        return read
    return (Tap(split), *(tap for tap in read if int(tap.layer) <= split))


def fitting_taps(split: int, n_stages: int, head_layers: HeadLayers) -> tuple[Tap, ...]:
    """Taps of the net's rows, then those of the embedding that are not among them."""
    taps = net_taps(split, n_stages, head_layers)
    return (*taps, *(t for t in embedding_taps(n_stages, head_layers) if t not in taps))


def side_by_side(
    layers: Sequence[AnyArray | StoredRows],
) -> tuple[AnyArray, list[AnyArray]]:
    """Concatenate vectors of layers.

    Parameters
    ----------
    layers : sequence of ndarray of shape (n_rows, n_features of the layer)
        Vectors of each layer.

    Returns
    -------
    embeddings : ndarray of shape (n_rows, n_features)
        All columns.
    layers : list of ndarray
        Views of the columns of each layer, so that no vector is in memory twice.
    """
    held = [np.asarray(layer) for layer in layers]
    if len(held) == 1:
        return held[0], held
    ends = np.cumsum([layer.shape[1] for layer in held])
    embeddings = np.concatenate(held, axis=1)
    return embeddings, np.split(embeddings, ends[:-1], axis=1)
