"""Checks that a fitted fine-tuner still has the network and the structure of its `fit`."""

from typing import Any

from .._messages import shown
from ..backbones import Backbone, check_same
from ._head_layers import embedding_taps


def check_unchanged(estimator: Any, backbone: Backbone) -> None:
    """Raise an error if the trained weights belong to another backbone, or to other stages.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        A fitted estimator.
    backbone : Backbone
        The backbone of its parameters.

    Raises
    ------
    WeightsError
        If the backbone differs.
    ValueError
        If `unfreeze_depth` or `head_layers` was changed.
    """
    check_same(backbone, estimator.backbone_digest_)
    if list(backbone.trained_stages(estimator.unfreeze_depth)) != estimator.trained_stages_:
        raise _changed(estimator, "unfreeze_depth")
    layers = embedding_taps(len(backbone.stages), estimator.head_layers)
    if len(layers) != len(estimator.layer_widths_):
        raise _changed(estimator, "head_layers")


def _changed(estimator: Any, name: str) -> ValueError:
    value = getattr(estimator, name)
    return ValueError(
        f"{name}={shown(value)} was set after fit, and the trained weights belong to another "
        "value. Set that value again, or call fit."
    )
