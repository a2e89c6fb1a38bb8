"""A fitted model in parts: the steps before its network, the network, and the steps after it."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import normalize as scale_to_unit_norm
from sklearn.utils.validation import check_is_fitted

from .._messages import shown
from .._typing import AnyArray, FloatArray
from ..backbones import FeatureMap, check_same, find_feature_map
from ..estimators._extractor import PretrainedFeatureExtractor
from ..exceptions import UnsuitableModelError
from ..flow import (
    Recipe,
    Settings,
    Tap,
    activations,
    readable,
    refuse_none_readable,
    renumber,
    renumbered,
    stream,
)
from ..images import Bags
from ._beside import Beside, columns_beside
from ._layer_maps import LayerMaps
from ._scores import Score, scores_of, transformed, tuned_score

if TYPE_CHECKING:
    from ..estimators._tuned_network import TunedNetwork
    from ..exceptions import ImageError
    from ..images import ImageCollection

# Bytes of activations of bags in memory.
_BLOCK_BYTES = 2**25
# Poolings by which a bag of one image has the row of its image.
_SAME_ALONE = ("mean", "max")


class Block:
    """A block of the images.

    Parameters
    ----------
    rows : list of int
        Their rows in X.
    layers : list of LayerMaps
        Their activations.
    """

    def __init__(self, rows: list[int], layers: list[LayerMaps]) -> None:
        self.rows = rows
        self.layers = layers

    @cached_property
    def features(self) -> FloatArray:
        """Pooled features, as the extractor concatenates them, float64."""
        return np.concatenate([layer.rows() for layer in self.layers], axis=1)


class Model:
    """A fitted network with the steps before and after it.

    Parameters
    ----------
    estimator : estimator
        A fitted pipeline with an extractor or a fine-tuner, a fine-tuner, or a search over one.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        Input of its `predict`.

    Raises
    ------
    TypeError
        If there is no network in it.
    """

    def __init__(self, estimator: Any, X: Any) -> None:
        steps = fitted_steps(estimator)
        places = [i for i, step in enumerate(steps) if _networks(step)]
        unions = [step for step in steps if isinstance(step, FeatureUnion) and _networks(step)]
        if unions or sum(len(_networks(step)) for step in steps) != 1:
            raise UnsuitableModelError(_expected(estimator, bool(unions)))
        (at,) = places
        self.whole, self.after = steps[: at + 1], steps[at + 1 :]
        for step in steps[:at]:
            X = step.transform(X)
        self.beside: Beside | None = None
        branch = steps[at : at + 1]
        if isinstance(steps[at], ColumnTransformer):
            (name,) = _networks(steps[at])
            self.beside = columns_beside(steps[at], name, X)
            X, branch = self.beside.images, _steps(self.beside.branch)
        (at,) = (i for i, step in enumerate(branch) if _networks(step))
        for step in branch[:at]:
            X = step.transform(X)
        self.network, self.within = branch[at], branch[at + 1 :]
        self._tuned: TunedNetwork | None = None
        if isinstance(self.network, PretrainedFeatureExtractor):
            work = self.network.work(X)
            if hasattr(self.network, "backbone_digest_"):
                check_same(work.predicting.backbone, self.network.backbone_digest_)
        else:
            # Here, so that looking at features does not import the training.
            from ..estimators._tuned_network import tuned_network

            self._tuned = tuned_network(self.network, X)
            work = self._tuned.work
        self.images: ImageCollection = _without_bags_of_one(work.images)
        self.recipe: Recipe = work.predicting
        self.settings: Settings = work.settings
        # Of the images of the last `blocks`.
        self.failures: list[ImageError] = []

    def scores(self) -> list[Score]:
        """Scores of pooled features, the normalization of the extractor included."""
        if self._tuned is not None and not self.after:
            return [tuned_score(self.network, self._tuned.head.outputs)]
        return [s._replace(of=self._joined(s.of)) for s in scores_of(self.after)]

    def rows(self, X: Any) -> FloatArray:
        """Features of images as the predictor gets them; without one, those of the last step."""
        predicts = bool(self.after) and hasattr(self.after[-1], "predict")
        between = self.after[:-1] if predicts else self.after
        rows: FloatArray = np.asarray(transformed([*self.whole, *between], X), dtype=np.float64)
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
        first = (self.within or self.after or [None])[0]
        found = np.asarray(getattr(first, "mean_", None))
        if self.beside is not None and not self.within and found.ndim == 1:
            found = found[self.beside.place] / self.beside.weight
        return found if not kind and found.shape == (n_features,) else None

    def _joined(self, of: Any) -> Any:
        """Return scores of pooled features, after which a row has the columns beside its image."""
        beside = self.beside
        if beside is None:
            return lambda rows: of(self.normalize(rows))
        n_others = beside.values.shape[1]

        def joined(rows: FloatArray) -> Any:
            features, others = np.split(rows, [rows.shape[1] - n_others], axis=1)
            images = transformed(self.within, self.normalize(features))
            return of(beside.joined(images, others))

        return joined

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input for one image."""
        return self.recipe.input_shape(self.images, self.settings.skip_unreadable)

    def blocks(self) -> Iterator[Block]:
        """Yield the images in blocks, without the unreadable ones, which `failures` lists."""
        self.failures = []
        shape = self.input_shape
        backbone = self.recipe.backbone
        found = [find_feature_map(backbone, t.layer, t.pooling, shape) for t in self.recipe.taps]
        if not any(found):
            raise ValueError(
                f"layer={shown(self._layers())} of backbone {backbone.name!r} has no feature "
                "map before it: its values have no positions. Choose another layer."
            )
        self._check_bags(found)
        sources = [
            Tap(m.layer, None) if m else tap for m, tap in zip(found, self.recipe.taps, strict=True)
        ]
        taps = tuple(dict.fromkeys(sources))
        for rows, arrays in self._activations(self.recipe.only(taps)):
            by_tap = dict(zip(taps, arrays, strict=True))
            layers = [
                LayerMaps(m, by_tap[source], _grid(m, by_tap[source], shape))
                for m, source in zip(found, sources, strict=True)
            ]
            if self.beside is not None:
                layers.append(LayerMaps(None, self.beside.values[rows]))
            yield Block(rows, layers)

    def _activations(self, recipe: Recipe) -> Iterator[tuple[list[int], list[AnyArray]]]:
        """Yield activations of some images, with their rows."""
        if not isinstance(self.images, Bags):
            for result in stream(self.images, recipe, self.settings):
                self.failures += result.failures
                if result.rows:
                    yield result.rows, result.taps
            return
        shapes = recipe.output_shapes(self.input_shape)
        step = max(1, _BLOCK_BYTES // sum(recipe.row_bytes(shapes)))
        for start in range(0, len(self.images), step):
            rows = range(start, min(start + step, len(self.images)))
            with renumbered(rows):
                arrays, failures = activations(self.images.take(rows), recipe, self.settings)
            self.failures += renumber(failures, rows)
            if arrays:
                yield [rows[i] for i in readable(len(rows), failures)], arrays

    def _check_bags(self, found: Sequence[FeatureMap | None]) -> None:
        """Refuse bags whose row is not that of the mean of their feature maps."""
        if not isinstance(self.images, Bags):
            return
        linear = all(m is None or m.rule in ("avg", "grid", "flatten") for m in found)
        if self._tuned is not None or self.images.pooling != "mean" or not linear:
            kind = type(self.network).__name__
            way_out = "Pass each image as an entry of its own, [image]."
            if self.images.pooling not in _SAME_ALONE:
                # Alone, an image has another row: what would be drawn is another score.
                way_out = "Fit with bag_pooling='mean'."
            raise ValueError(
                f"X: entries are bags, pooled by bag_pooling={shown(self.images.pooling)} of "
                f"{kind}. A bag has a map only with bag_pooling='mean' of a "
                f"PretrainedFeatureExtractor with pooling='avg'. {way_out}"
            )

    def _layers(self) -> Any:
        return getattr(self.network, "layer", "the last")


def _without_bags_of_one(images: "ImageCollection") -> "ImageCollection":
    """Images alone where no bag has several: their rows are equal."""
    if isinstance(images, Bags) and images.pooling in _SAME_ALONE and (images.sizes == 1).all():
        return images.images
    return images


def _networks(step: Any) -> list[str]:
    """Names of the networks that a step is or has."""
    if isinstance(step, PretrainedFeatureExtractor) or hasattr(step, "unfreeze_depth"):
        return [type(step).__name__]
    parts: list[tuple[str, Any]] = []
    if isinstance(step, ColumnTransformer):
        parts = [(name, part) for name, part, _ in getattr(step, "transformers_", ())]
    elif isinstance(step, FeatureUnion):
        parts = list(step.transformer_list)
    return [name for name, part in parts for inner in _steps(part) for _ in _networks(inner)]


def _expected(estimator: Any, has_union: bool) -> str:
    """Say what is wrong with an estimator, and the way out."""
    if has_union:
        return (
            f"estimator={shown(estimator)}: a FeatureUnion has an extractor, and its parts are not "
            "looked into. Several layers and poolings are parameters of one extractor; columns "
            "beside the images are joined by a ColumnTransformer."
        )
    return (
        f"estimator={shown(estimator)}: expected a fitted pipeline, or a search over one, with one "
        "PretrainedFeatureExtractor or fine-tuner among its steps, or in a ColumnTransformer among "
        "them. What wraps predictors (CalibratedClassifierCV, VotingClassifier) belongs behind it."
    )


def fitted_steps(estimator: Any) -> list[Any]:
    """Fitted steps, of the best estimator of a search and of pipelines in pipelines.

    Parameters
    ----------
    estimator : estimator
        A pipeline, a search or another estimator.

    Raises
    ------
    NotFittedError
        If a pipeline or search is not fitted; the error names it, not its last step.
    """
    if isinstance(estimator, Pipeline) or hasattr(estimator, "refit"):
        check_is_fitted(estimator)
    return _steps(estimator)


def _steps(estimator: Any) -> list[Any]:
    while hasattr(estimator, "best_estimator_") or isinstance(estimator, FrozenEstimator):
        frozen = isinstance(estimator, FrozenEstimator)
        estimator = estimator.estimator if frozen else estimator.best_estimator_
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
