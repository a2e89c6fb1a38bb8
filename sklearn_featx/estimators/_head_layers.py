"""The layers that the head reads, as taps of the trunk and of the frozen embedding.

With ``head_layers="last"`` the embedding is the pooled output of the last stage. With ``"all"`` it
is also the means of 3 x 3 cells of the activations of every other stage: those of the trunk are
cached vectors, and the net computes the others in its trained stages.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from .._typing import AnyArray
from ..flow import StoredRows, Tap
from ..training import EARLIER_POOLING, LAST_POOLING

HeadLayers: TypeAlias = Literal["all", "last"]


def embedding_taps(n_stages: int, head_layers: HeadLayers) -> tuple[Tap, ...]:
    """Taps of the frozen embedding, in the order of its columns.

    The last stage of most networks pools its activations itself: they have no cells.
    """
    last = Tap(n_stages, LAST_POOLING)
    if head_layers == "last":
        return (last,)
    return (*(Tap(k, EARLIER_POOLING) for k in range(1, n_stages)), last)


def net_taps(split: int, n_stages: int, head_layers: HeadLayers) -> tuple[Tap, ...]:
    """Taps that the net reads: activations at the split point, then vectors of the trunk."""
    read = embedding_taps(n_stages, head_layers)
    if split == n_stages:
        return read
    return (Tap(split), *(tap for tap in read if int(tap.layer) <= split))


def fitting_taps(split: int, n_stages: int, head_layers: HeadLayers) -> tuple[Tap, ...]:
    """Taps that the net reads, then the remaining taps of the embedding."""
    taps = net_taps(split, n_stages, head_layers)
    return (*taps, *(t for t in embedding_taps(n_stages, head_layers) if t not in taps))


def side_by_side(
    layers: Sequence[AnyArray | StoredRows],
) -> tuple[AnyArray, list[AnyArray]]:
    """Concatenate the vectors of layers.

    Parameters
    ----------
    layers : sequence of ndarray of shape (n_rows, n_features_of_the_layer)
        Vectors of each layer.

    Returns
    -------
    embeddings : ndarray of shape (n_rows, n_features)
        All columns.
    layers : list of ndarray
        The columns of each layer, as views of `embeddings` that take no memory.
    """
    held = [np.asarray(layer) for layer in layers]
    if len(held) == 1:
        return held[0], held
    ends = np.cumsum([layer.shape[1] for layer in held])
    embeddings = np.concatenate(held, axis=1)
    return embeddings, np.split(embeddings, ends[:-1], axis=1)
