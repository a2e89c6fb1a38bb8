"""Which layer? One pass gives the features of all; an estimator is scored on each."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import check_cv, cross_val_score
from sklearn.utils import _safe_indexing

from .._digest import digest_array
from .._messages import shown
from .._typing import Pooling
from ..estimators._extractor import PretrainedFeatureExtractor
from ..flow import Tap, activations, as_table, readable, refuse_none_readable, warn_of


class LayerScore(NamedTuple):
    """One row of `layer_sweep`.

    Parameters
    ----------
    layer : str
        Name of the layer.
    pooling : str
        How its activations became vectors.
    n_features : int
        Number of features.
    mean_score : float
        Mean of the scores over the folds.
    std_score : float
        Standard deviation of the scores over the folds.
    """

    layer: str
    pooling: Pooling
    n_features: int
    mean_score: float
    std_score: float


def layer_sweep(
    extractor: PretrainedFeatureExtractor,
    estimator: Any,
    X: Any,
    y: Any,
    *,
    layers: Sequence[str] | None = None,
    poolings: Sequence[Pooling] = ("avg", "max"),
    cv: Any = None,
    scoring: Any = None,
) -> list[LayerScore]:
    """Cross-validate an estimator on the features of each layer and pooling.

    The images go through the network once for all of them, and every combination is scored on the
    same folds.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
        Says backbone, weights, preprocessing, device and cache; its `layer` and `pooling` are not
        used.
    estimator : estimator
        What comes after the features, for instance a logistic regression; it is cloned.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        As in `PretrainedFeatureExtractor.fit`.
    y : array-like of shape (n_images,)
        Targets.
    layers : sequence of str, default=None
        Names of stages, modules or operations; None: the end of every stage.
    poolings : sequence of str, default=("avg", "max")
        Poolings to try. Activations that are vectors already are tried once.
    cv : int, splitter or iterable, default=None
        As in `cross_val_score`.
    scoring : str or callable, default=None
        As in `cross_val_score`.

    Returns
    -------
    table : list of LayerScore
        One record for each combination, the best mean score first.

    Raises
    ------
    UnknownLayerError
        If the backbone has no layer of that name.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn_featx import ImageReader, PretrainedFeatureExtractor, layer_sweep
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> reader = ImageReader(image_shape=(8, 8), value_range=(0, 16))
    >>> extractor = PretrainedFeatureExtractor(reader=reader, image_size=32)
    >>> table = layer_sweep(
    ...     extractor, RidgeClassifier(), X[:30], y[:30], layers=["blocks.1", "blocks.3"], cv=3
    ... )
    >>> sorted(row.layer for row in table)
    ['blocks.1', 'blocks.1', 'blocks.3', 'blocks.3']
    """
    _check(extractor, y, layers, poolings)
    images, recipe, _, settings = extractor.work(X)
    names = [stage.name for stage in recipe.backbone.stages]
    chosen: list[str | int] = list(range(1, len(names) + 1)) if layers is None else list(layers)
    taps = tuple(Tap(layer, pooling) for layer in chosen for pooling in poolings)
    rows = activations(images, replace(recipe, taps=taps), settings)
    errors = settings.failures or []
    refuse_none_readable(len(images), errors)
    if errors:
        warn_of(as_table(errors), len(images), "they are left out of the scores.")
        y = _safe_indexing(y, readable(len(images), errors))
    folds = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(np.zeros(len(y)), y))
    table, seen = [], set()
    for tap, features in zip(taps, rows, strict=True):
        # Poolings do nothing to vectors: one of them is enough.
        fingerprint = (tap.layer, digest_array(features))
        if fingerprint in seen:
            continue
        seen.add(fingerprint)
        scores = cross_val_score(estimator, features, y, cv=folds, scoring=scoring)
        layer = tap.layer if isinstance(tap.layer, str) else names[tap.layer - 1]
        assert tap.pooling is not None
        table.append(
            LayerScore(
                layer, tap.pooling, features.shape[1], float(scores.mean()), float(scores.std())
            )
        )
    return sorted(table, key=lambda row: -row.mean_score)


def _check(extractor: Any, y: Any, layers: Any, poolings: Any) -> None:
    """Refuse what would give an empty table, or an error of Python's."""
    if not isinstance(extractor, PretrainedFeatureExtractor):
        raise TypeError(
            f"extractor={shown(extractor)}: expected a PretrainedFeatureExtractor; what comes "
            "after it is the second argument."
        )
    if y is None:
        raise ValueError("layer_sweep requires y to be passed, but the target y is None.")
    if layers is not None and not _is_list_of(layers, lambda name: isinstance(name, str)):
        raise ValueError(f"layers={shown(layers)}: expected a list of names of layers, or None.")
    known = list(get_args(Pooling))
    if not _is_list_of(poolings, known.__contains__):
        raise ValueError(f"poolings={shown(poolings)}: expected a list of some of {known}.")


def _is_list_of(values: Any, fits: Callable[[Any], bool]) -> bool:
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    return listed and len(values) > 0 and all(fits(value) for value in values)
