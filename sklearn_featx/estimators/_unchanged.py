"""Checks that a fitted fine-tuner still has the networks and the structure of its `fit`."""

from typing import Any

from .._messages import shown
from ..backbones import Backbone, check_same
from ..exceptions import WeightsError
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
        If `image_size`, `unfreeze_depth` or `head_layers` was changed.
    """
    check_same(backbone, estimator.backbone_digest_)
    if estimator._input_size(backbone) != estimator.image_size_:
        raise _changed(estimator, "image_size")
    if list(backbone.trained_stages(estimator.unfreeze_depth)) != estimator.trained_stages_:
        raise _changed(estimator, "unfreeze_depth")
    layers = embedding_taps(len(backbone.stages), estimator.head_layers)
    if len(layers) != len(estimator.layer_widths_):
        raise _changed(estimator, "head_layers")


def check_continued(estimator: Any) -> None:
    """Raise an error if a warm start would continue with another backbone, depth or input.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        A fitted estimator with ``warm_start=True``.

    Raises
    ------
    WeightsError, ValueError
        As in `check_unchanged`.
    """
    backbone = estimator._backbone()
    try:
        check_unchanged(estimator, backbone)
    except WeightsError as error:
        raise WeightsError(
            "warm_start=True continues only with the backbone of the previous fit, and "
            f"{shown(estimator.backbone)} is not the one that this estimator was fitted on. Set "
            "warm_start=False, or restore the old one."
        ) from error


def check_same_head(estimator: Any, digest: str | None) -> None:
    """Raise an error if the trained weights belong to a head of other code or settings.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        A fitted estimator.
    digest : str or None
        The digest of the present head.

    Raises
    ------
    WeightsError
        If it differs from that of `fit`.
    """
    if estimator.head_digest_ != digest:
        raise WeightsError(
            f"head={shown(estimator.head)} is not the one that this estimator was fitted with: its "
            "code or its settings differ. Fit again, or restore the old head."
        )


def _changed(estimator: Any, name: str) -> ValueError:
    value = getattr(estimator, name)
    # A warm start would continue from these weights.
    way = "fit with warm_start=False" if estimator.warm_start else "call fit"
    return ValueError(
        f"{name}={shown(value)} was set after fit, and the trained weights belong to another "
        f"value. Set that value again, or {way}."
    )
