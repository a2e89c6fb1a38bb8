"""A fitted model taken apart: the extractor, what comes before it, and what follows."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import normalize as scale_to_unit_norm

from .._messages import shown
from .._typing import AnyArray, FloatArray
from ..backbones import FeatureMap, find_feature_map
from ..estimators._extractor import PretrainedFeatureExtractor
from ..flow import (
    Recipe,
    Settings,
    Tap,
    activations,
    readable,
    refuse_none_readable,
    renumbered,
)
from ._layer_maps import LayerMaps
from ._scores import Score, scores_of, transformed, tuned_score

if TYPE_CHECKING:
    from ..estimators._tuned_network import TunedNetwork
    from ..images import ImageCollection

# Bytes of activations in memory; allocators keep arrays of this size for the next ones.
_BLOCK_BYTES = 2**25


class Block(NamedTuple):
    """Some of the images: their rows in X, and their activations, one entry for each layer."""

    rows: list[int]
    layers: list[LayerMaps]

    def features(self) -> FloatArray:
        """Pooled features, as the extractor concatenates them, float64."""
        rows = [np.concatenate([la.row(i) for la in self.layers]) for i in range(len(self.rows))]
        return np.stack(rows)


class Model:
    """A fitted network with what follows it.

    Parameters
    ----------
    estimator : estimator
        A fitted pipeline with an extractor or a fine-tuner, a fine-tuner, or a search over one.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        What it predicts on.

    Raises
    ------
    TypeError
        If there is no network in it.
    """

    def __init__(self, estimator: Any, X: Any) -> None:
        steps = _steps(estimator)
        places = [i for i, step in enumerate(steps) if _is_network(step)]
        if len(places) != 1:
            raise TypeError(
                f"estimator={shown(estimator)}: expected a fitted pipeline, or a search over one, "
                "with one PretrainedFeatureExtractor or fine-tuner among its steps."
            )
        (at,) = places
        self.before = steps[:at]
        for step in self.before:
            X = step.transform(X)
        self.network = steps[at]
        self.after = steps[at + 1 :]
        self._tuned: TunedNetwork | None = None
        if isinstance(self.network, PretrainedFeatureExtractor):
            work = self.network.work(X)
        else:
            # Here, so that looking at features does not import the training.
            from ..estimators._tuned_network import tuned_network

            self._tuned = tuned_network(self.network, X)
            work = self._tuned.work
        self.images: ImageCollection = work.images
        self.recipe: Recipe = work.predicting
        self.settings: Settings = work.settings

    def scores(self) -> list[Score]:
        """Scores of pooled features, the normalization of the extractor included."""
        if self._tuned is not None and not self.after:
            return [tuned_score(self.network, self._tuned.head.outputs)]
        return [s._replace(of=self._normalized(s.of)) for s in scores_of(self.after)]

    def rows(self, X: Any) -> FloatArray:
        """Features of images as the predictor gets them; without one, those of the last step."""
        for step in self.before:
            X = step.transform(X)
        features = self.network.transform(X)
        predicts = bool(self.after) and hasattr(self.after[-1], "predict")
        between = self.after[:-1] if predicts else self.after
        rows: FloatArray = np.asarray(transformed(between, features), dtype=np.float64)
        return rows

    def normalize(self, features: FloatArray) -> FloatArray:
        """Pooled features as the extractor returns them."""
        kind = getattr(self.network, "normalize", False)
        if kind == "layer":
            scaled: FloatArray = (features - self.network.mean_) / self.network.scale_
            return scaled
        unit: FloatArray = scale_to_unit_norm(features) if kind else features
        return unit

    def mean_features(self) -> FloatArray:
        """Mean of the pooled features of the images that can be read."""
        rows, failures = activations(self.images, self.recipe, self.settings)
        refuse_none_readable(len(self.images), failures)
        means = [tap.reshape(len(tap), -1).mean(0, dtype=np.float64) for tap in rows]
        mean: FloatArray = np.concatenate(means)
        return mean

    def known_mean(self) -> FloatArray | None:
        """Mean of the pooled features in training, where a fitted step knows it."""
        if self._tuned is not None and not self.after:
            return self._tuned.head.mean
        kind = getattr(self.network, "normalize", False)
        if kind == "layer":
            mean: FloatArray = self.network.mean_
            return mean
        n_features = sum(map(math.prod, self.recipe.output_shapes(self.input_shape)))
        found = np.asarray(getattr(self.after[0], "mean_", None) if self.after else None)
        return found if not kind and found.shape == (n_features,) else None

    def _normalized(self, of: Any) -> Any:
        return lambda features: of(self.normalize(features))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what enters the network for one image."""
        return self.recipe.input_shape(self.images, self.settings.skip_unreadable)

    def blocks(self) -> Iterator[Block]:
        """Go through the images, some at a time; those that cannot be read are left out."""
        shape = self.input_shape
        backbone = self.recipe.backbone
        found = [find_feature_map(backbone, t.layer, t.pooling, shape) for t in self.recipe.taps]
        if not any(found):
            raise ValueError(
                f"layer={shown(self._layers())} of backbone {backbone.name!r} has no feature "
                "map before it: its values have no positions. Choose another layer."
            )
        sources = [
            Tap(m.layer, None) if m else tap for m, tap in zip(found, self.recipe.taps, strict=True)
        ]
        taps = tuple(dict.fromkeys(sources))
        recipe = self.recipe.only(taps)
        shapes = recipe.output_shapes(shape)
        step = max(1, _BLOCK_BYTES // sum(recipe.row_bytes(shapes)))
        for start in range(0, len(self.images), step):
            rows = range(start, min(start + step, len(self.images)))
            with renumbered(rows):
                arrays, failures = activations(self.images.take(rows), recipe, self.settings)
            if not arrays:
                continue
            by_tap = dict(zip(taps, arrays, strict=True))
            layers = [
                LayerMaps(m, by_tap[source], _grid(m, by_tap[source], shape))
                for m, source in zip(found, sources, strict=True)
            ]
            yield Block([rows[i] for i in readable(len(rows), failures)], layers)

    def _layers(self) -> Any:
        return getattr(self.network, "layer", "the last")


def check_length(values: Any, name: str, images: "ImageCollection", of: str = "X") -> None:
    """Refuse values that are not one for each image."""
    shape = np.shape(values)
    if shape[:1] != (len(images),):
        n = shape[0] if shape else "no"
        raise ValueError(
            f"{name} has {n} entries, and {of} has {len(images)} images. Pass one for each image."
        )


def _is_network(step: Any) -> bool:
    return isinstance(step, PretrainedFeatureExtractor) or hasattr(step, "unfreeze_depth")


def _steps(estimator: Any) -> list[Any]:
    """Fitted steps, of the best estimator of a search and of pipelines in pipelines."""
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    if isinstance(estimator, Pipeline):
        return [part for _, step in estimator.steps for part in _steps(step)]
    return [] if estimator is None or isinstance(estimator, str) else [estimator]


def _grid(found: FeatureMap | None, raw: AnyArray, input_shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of a map; tokens lie as the image does."""
    if found is None:
        return 1, 1
    places = raw.shape[1:-1] if found.channels_last else raw.shape[2:]
    if len(places) == 2:
        return int(places[0]), int(places[1])
    n = math.prod(places) - found.n_prefix
    if len(input_shape) == 3:
        height = round(math.sqrt(n * input_shape[1] / input_shape[2]))
        if height and n % height == 0:
            return height, n // height
    return 1, n
