"""Parts of a fitted fine-tuner: the backbone with the trained weights, and the head.

The tuned backbone has its own digests, so its rows are never confused with those of the frozen one.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sklearn.utils.validation import check_is_fitted

from ..backbones import Backbone, with_weights
from ..training import HeadFunction, head_function
from ._finetune_base import FineTuneEstimator
from ._finetune_net import State, tuned_backbone
from ._head_layers import embedding_taps
from ._image_estimator import Work

if TYPE_CHECKING:
    from .._typing import AnyArray

_STAGES = "stages."


class TunedNetwork(NamedTuple):
    """The computation of a fitted fine-tuner.

    Parameters
    ----------
    work : Work
        Its work on images, up to the layers that the head reads.
    head : HeadFunction
        The head.
    """

    work: Work
    head: HeadFunction


def tuned_network(estimator: FineTuneEstimator, X: Any) -> TunedNetwork:
    """Return the parts of the network of a fitted fine-tuner.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        A fitted estimator.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        As in `predict`.

    Returns
    -------
    network : TunedNetwork
        Work on the images, and the head.
    """
    check_is_fitted(estimator, "trained_state_")
    images = estimator._images(X, reset=False)
    net = estimator._predicting_net(estimator._backbone())
    backbone = _tuned_backbone(estimator)
    taps = embedding_taps(len(backbone.stages), estimator.head_layers)
    recipe = estimator._recipe(backbone, taps)
    work = Work(images, recipe, recipe, estimator._settings())
    return TunedNetwork(work, head_function(net))


def _tuned_backbone(estimator: FineTuneEstimator) -> Backbone:
    state, backbone = estimator.trained_state_, estimator._backbone()
    split = estimator._split(backbone)
    make = partial(_with_state, backbone, split, state)
    return tuned_backbone(estimator, backbone, split, state, make)


def _with_state(backbone: Backbone, split: int, state: State) -> Backbone:
    """Return the backbone with the weights of a trained state."""
    # At depth "all" the module begins with the normalization of pixels.
    first = split - 1 if split == 0 else split
    weights: dict[int, dict[str, AnyArray]] = {}
    for name, values in state.items():
        if name.startswith(_STAGES):
            number, _, path = name.removeprefix(_STAGES).partition(".")
            weights.setdefault(int(number) + first, {})[path] = values
    return with_weights(backbone, weights) if weights else backbone
