"""Parts of a fitted fine-tuner: the backbone with the trained weights, and the head.

The tuned backbone has digests of its own: its rows are never taken for those of the frozen one.
"""

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from sklearn.utils.validation import check_is_fitted

from ..backbones import Backbone, with_weights
from ..training import HeadFunction, head_function
from ._finetune_base import FineTuneEstimator
from ._head_layers import embedding_taps
from ._image_estimator import Work

if TYPE_CHECKING:
    from .._typing import AnyArray

_STAGES = "stages."


class TunedNetwork(NamedTuple):
    """What a fitted fine-tuner computes.

    Parameters
    ----------
    work : Work
        What it does to images, up to the layers that the head reads.
    head : HeadFunction
        What the head makes of them.
    """

    work: Work
    head: HeadFunction


def tuned_network(estimator: FineTuneEstimator, X: Any) -> TunedNetwork:
    """Take the network of a fitted fine-tuner apart.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        What it predicts on.

    Returns
    -------
    network : TunedNetwork
        Work on the images, and the head.
    """
    check_is_fitted(estimator, "trained_state_")
    images = estimator._images(X, reset=False)
    backbone = _tuned_backbone(estimator)
    taps = embedding_taps(len(backbone.stages), estimator.head_layers)
    recipe = estimator._recipe(backbone, taps)
    net = estimator._predicting_net(estimator._backbone())
    work = Work(images, recipe, recipe, estimator._settings())
    return TunedNetwork(work, head_function(net))


# Tuned backbones by estimator, with the state that they were made of.
_tuned: "weakref.WeakKeyDictionary[FineTuneEstimator, tuple[Any, Backbone]]" = (
    weakref.WeakKeyDictionary()
)


def _tuned_backbone(estimator: FineTuneEstimator) -> Backbone:
    state = estimator.trained_state_
    known = _tuned.get(estimator)
    if known is not None and known[0] is state:
        return known[1]
    backbone = estimator._backbone()
    split = estimator._split(backbone)
    # At depth "all" the module begins with the normalization of pixels.
    first = split - 1 if split == 0 else split
    weights: dict[int, dict[str, AnyArray]] = {}
    for name, values in state.items():
        if name.startswith(_STAGES):
            number, _, path = name.removeprefix(_STAGES).partition(".")
            weights.setdefault(int(number) + first, {})[path] = values
    tuned = with_weights(backbone, weights) if weights else backbone
    _tuned[estimator] = (state, tuned)
    return tuned
