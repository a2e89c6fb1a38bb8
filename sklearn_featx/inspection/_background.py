"""The baseline of heat maps: activations of an image that says nothing.

Against activations of 0 a position's part of a score includes what all images have in common, and a
model that is not affine is asked about features unlike any it was trained on. The mean of the
training images is like them.
"""

from typing import Any, NamedTuple, Self

import numpy as np

from .._messages import shown
from .._typing import FloatArray
from ._layer_maps import LayerMaps
from ._model import Block, Model


class Background(NamedTuple):
    """Activations that occluded positions have.

    Parameters
    ----------
    row : ndarray of shape (n_features,) or None
        Pooled features; None: zeros.
    activations : list of ndarray of shape (channels,) or None
        For layers whose rows a network pools from them, their mean.
    """

    row: FloatArray | None
    activations: list[FloatArray | None]

    @classmethod
    def of(cls, block: Block, row: FloatArray | None = None) -> Self:
        """Return the mean of images; `row`, if given, in place of their mean row."""
        means = [la.mean_activations() if not la.is_sum else None for la in block.layers]
        return cls(block.features().mean(0) if row is None else row, means)

    def given_to(self, block: Block) -> Block:
        """Return a block whose layers have this baseline."""
        if self.row is None:
            return block
        layers, start = [], 0
        for layer, activations in zip(block.layers, self.activations, strict=True):
            stop = start + (layer.n_features(0) if layer.is_sum else len(layer.row(0)))
            layers.append(_with(layer, self.row[start:stop], activations))
            start = stop
        return block._replace(layers=layers)


def _with(layer: LayerMaps, row: FloatArray, activations: FloatArray | None) -> LayerMaps:
    return layer.with_baseline(row) if activations is None else layer._replace(base=activations)


ZERO = Background(None, [])


def background_of(estimator: Any, baseline: Any) -> Background | None:
    """Return the baseline that a user names; None where it is to be found.

    Parameters
    ----------
    estimator : estimator
        As in `heat_maps`.
    baseline : "zero", images or None
        As in `heat_maps`. Of more images than fit into memory, the first ones.
    """
    if baseline is None:
        return None
    if isinstance(baseline, str):
        if baseline != "zero":
            raise ValueError(f"baseline={shown(baseline)}: expected 'zero', images or None.")
        return ZERO
    block = next(Model(estimator, baseline).blocks(), None)
    if block is None:
        raise ValueError("baseline: none of the images can be read.")
    return Background.of(block)


def own_background(model: Model, block: Block, *, exact: bool) -> Background:
    """Return the mean that fitted steps know, else that of the images themselves.

    Parameters
    ----------
    model : Model
        The model.
    block : Block
        The first of the images.
    exact : bool
        Whether the score is affine: then zeros are as good, and do not depend on other images.
    """
    known = model.known_mean()
    if known is None and exact:
        return ZERO
    return Background.of(block, None if known is None else np.asarray(known, dtype=np.float64))
