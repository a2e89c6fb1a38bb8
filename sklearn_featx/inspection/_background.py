"""The baseline of heat maps: the activations that an occluded position gets.

With a baseline of 0, the share of a position includes what all images have in common, and a model
that is not affine gets features unlike those of its training. The mean of the training images is
like them.
"""

from typing import NamedTuple

import numpy as np

from .._typing import FloatArray
from ..exceptions import InputError
from ._layer_maps import LayerMaps
from ._model import Block, Model

# Features are float32.
_ROUNDING = 1e-6


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

    def applied_to(self, block: Block) -> Block:
        """Return a block whose layers have this baseline."""
        if self.row is None:
            return block
        layers, start = [], 0
        for layer, activations in zip(block.layers, self.activations, strict=True):
            stop = start + layer.n_features
            layers.append(_with(layer, self.row[start:stop], activations))
            start = stop
        return Block(block.rows, layers)


def _with(layer: LayerMaps, row: FloatArray, activations: FloatArray | None) -> LayerMaps:
    return layer.with_baseline(row) if activations is None else layer._replace(base=activations)


ZERO = Background(None, [])


def background_for(
    model: Model, block: Block, baseline: Model | str | None, *, exact: bool
) -> Background:
    """Return the baseline of a model's maps.

    Parameters
    ----------
    model : Model
        The model on the images.
    block : Block
        The first of the images.
    baseline : Model, "zero" or None
        The model on images whose mean is taken, or zeros. None: the mean that fitted steps know,
        else that of the images themselves.
    exact : bool
        Whether the score is affine: then zeros are as good as the images' own mean, and do not
        depend on other images.

    Raises
    ------
    InputError
        If the mean of the images is each of them.
    """
    if isinstance(baseline, str):
        return ZERO
    if baseline is not None:
        return _mean(baseline, block, baseline.mean_features())
    known = model.known_mean()
    if known is None and exact:
        return ZERO
    if known is None:
        known = model.mean_features()
        # Columns beside the images come after these.
        rows, far = block.features[:, : len(known)], _ROUNDING * np.abs(known).max()
        if np.allclose(rows, known, rtol=_ROUNDING, atol=far):
            raise InputError(
                "baseline=None: the score is not affine, and the mean of one image, or of equal "
                "ones, is the image itself. Pass images such as those of the training, "
                "baseline=X_train (--known FOLDER of the command look)."
            )
    return _mean(model, block, known)


def _mean(model: Model, block: Block, row: FloatArray) -> Background:
    """Mean of a model's images; the mean activations are those of its first block."""
    kinds = [layer.is_sum for layer in block.layers]
    if all(kinds):
        return Background(row, [None] * len(kinds))
    some = next(model.blocks())
    means = [None if layer.is_sum else layer.mean_activations() for layer in some.layers]
    return Background(row, means)
