"""Comparison of layers: one pass computes the features of all, an estimator is scored on each."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import cross_val_score

from .._arguments import check_flag, check_length
from .._digest import digest_array
from .._messages import Table, shown
from .._sklearn_compat import _safe_indexing
from .._typing import AnyArray, Pooling
from ..estimators._extractor import PretrainedFeatureExtractor
from ..estimators._infinite_features import warn_of_infinite
from ..estimators._targets import check_groups
from ..estimators._wrong_targets import refuse_missing
from ..exceptions import ImageError
from ..flow import Tap, activations, as_table, readable, refuse_none_readable, spread, warn_of
from ._folds import make_folds
from ._nested import nested_scores


class LayerScore(NamedTuple):
    """One row of `layer_sweep`.

    Parameters
    ----------
    backbone : str
        Name of the backbone, with the number of the extractor if several have the same name.
    layer : str
        Name of the layer.
    pooling : str
        Pooling of its activations.
    n_features : int
        Number of features.
    mean_score : float
        Mean of the scores over the folds.
    std_score : float
        Standard deviation of the scores over the folds.

    Examples
    --------
    >>> from sklearn_featx import LayerScore
    >>> row = LayerScore("resnet18", "layer3", "avg", 256, 0.93, 0.02)
    >>> row.layer, row.mean_score
    ('layer3', 0.93)
    """

    backbone: str
    layer: str
    pooling: Pooling
    n_features: int
    mean_score: float
    std_score: float


class LayerTable(Table[LayerScore]):
    """The scores of all layers, the best first; the result of `layer_sweep`.

    Parameters
    ----------
    rows : iterable of LayerScore
        The scores.
    nested_scores : ndarray of shape (n_folds,), default=None
        For each fold, the score of the layer that is best on its training rows.
    """

    columns = {  # noqa: RUF012 # constant
        "backbone": lambda row: row.backbone,
        "layer": lambda row: row.layer,
        "pooling": lambda row: row.pooling,
        "features": lambda row: f"{row.n_features:,}",
        "mean score": lambda row: f"{row.mean_score:.4f}",
        "std": lambda row: f"{row.std_score:.4f}",
    }

    def __init__(
        self,
        rows: Iterable[LayerScore] = (),
        nested_scores: npt.NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__(rows)
        self.nested_scores = nested_scores

    @property
    def notes(self) -> list[str]:
        """The nested score of the choice."""
        if self.nested_scores is None:
            return []
        mean, std = self.nested_scores.mean(), self.nested_scores.std()
        return [
            f"nested score of the choice: {mean:.4f}, std {std:.4f}; the mean score of the first "
            f"row is biased upwards, as the best of {len(self)} on the same folds"
        ]


def layer_sweep(
    extractor: PretrainedFeatureExtractor | Sequence[PretrainedFeatureExtractor],
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    layers: Sequence[str] | None = None,
    poolings: Sequence[Pooling] = ("avg", "max"),
    cv: Any = None,
    scoring: Any = None,
    nested: bool = True,
) -> LayerTable:
    """Cross-validate an estimator on the features of each layer and pooling.

    The images pass through each network once for all of its layers. All combinations are scored on
    the same folds.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor or list of them
        Defines backbone, weights, preprocessing, device and cache; its `layer` and `pooling` are
        ignored. Several extractors are compared on the images that are readable for all of them.
    estimator : estimator
        Estimator that is fitted to the features, for instance a logistic regression; it is cloned.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        As in `PretrainedFeatureExtractor.fit`.
    y : array-like of shape (n_images,)
        Targets.
    groups : array-like of shape (n_images,), default=None
        Groups of the images, such as patients, which no fold separates; see `image_groups`.
    layers : sequence of str, default=None
        Names of stages, modules or operations, which each backbone must have. None: the end of
        every stage.
    poolings : sequence of str, default=("avg", "max")
        Poolings to compare. Activations that are vectors are scored once.
    cv : int, splitter or iterable, default=None
        As in `cross_val_score`. With groups, a number of folds, or None for 5, keeps them together;
        a splitter does what it is made for.
    scoring : str or callable, default=None
        As in `cross_val_score`.
    nested : bool, default=True
        Whether to compute nested scores of the choice, since the best of many mean scores is biased
        upwards. With k folds, this takes k (k - 1) / 2 more fits of each combination where k is 3
        to 7, else at most 3 k.

    Returns
    -------
    table : list of LayerScore
        One record for each combination, the best mean score first. It prints as a table, also in
        notebooks. Its attribute `nested_scores` has, for each fold, the test score of the
        combination that is best on the fold's training rows: their mean is an unbiased score of the
        choice.

    Raises
    ------
    UnknownLayerError
        If a backbone has no layer with one of the names.

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
    extractors: list[Any] = list(extractor) if isinstance(extractor, list | tuple) else [extractor]
    _check(extractors, estimator, y, layers, poolings)
    _check_scoring(estimator, scoring)
    check_flag(nested, "nested")
    of_images = {"y": y} | ({} if groups is None else {"groups": groups})
    found = [_columns(one, X, of_images, layers, poolings) for one in extractors]
    errors = [error for _, failed in found for error in failed]
    codes = check_groups(groups, len(found[0][0][0].features))
    columns, y, codes = _readable_by_all(
        _distinctly_named([columns for columns, _ in found]), y, codes, errors
    )
    folds = make_folds(cv, estimator, y, codes)
    features = [column.features for column in columns]
    scores = np.array(
        [cross_val_score(estimator, rows, y, cv=folds, scoring=scoring) for rows in features]
    )
    of_the_choice = None
    if nested:
        of_the_choice = nested_scores(
            estimator, features, np.asarray(y), folds, scores, scoring, codes
        )
    return LayerTable(_best_first(columns, scores), of_the_choice)


class _Columns(NamedTuple):
    """Features of one layer and pooling: a row for each image, NaN for unreadable images."""

    backbone: str
    layer: str
    pooling: Pooling
    features: AnyArray


def _columns(
    extractor: PretrainedFeatureExtractor,
    X: Any,
    of_images: Mapping[str, Any],
    layers: Any,
    poolings: Sequence[Pooling],
) -> tuple[list[_Columns], list[ImageError]]:
    """Return the features of each layer and pooling of one extractor, and unreadable images."""
    images, recipe, _, settings = extractor.work(X)
    for name, values in of_images.items():
        check_length(values, name, images)
    names = [stage.layer for stage in recipe.backbone.stages]
    chosen: list[str | int] = list(range(1, len(names) + 1)) if layers is None else list(layers)
    taps = tuple(Tap(layer, pooling) for layer in chosen for pooling in poolings)
    rows, errors = activations(images, replace(recipe, taps=taps), settings)
    refuse_none_readable(len(images), errors)
    columns, seen = [], set()
    for tap, features in zip(taps, rows, strict=True):
        # Poolings do not change vectors, so one of them is enough.
        fingerprint = (tap.layer, digest_array(features))
        if fingerprint not in seen:
            seen.add(fingerprint)
            layer = tap.layer if isinstance(tap.layer, str) else names[tap.layer - 1]
            assert tap.pooling is not None
            warn_of_infinite([features], images, errors, recipe.backbone.name, layer)
            features = spread(features, len(images), errors) if errors else features
            columns.append(_Columns(recipe.backbone.name, layer, tap.pooling, features))
    return columns, errors


def _distinctly_named(found: Sequence[list[_Columns]]) -> list[_Columns]:
    """Join the columns of all extractors; equal names of backbones get the extractor's number."""
    uses = Counter(columns[0].backbone for columns in found)
    return [
        column
        if uses[column.backbone] == 1
        else column._replace(backbone=f"{column.backbone} [{i}]")
        for i, columns in enumerate(found)
        for column in columns
    ]


def _best_first(columns: Sequence[_Columns], scores: npt.NDArray[np.float64]) -> list[LayerScore]:
    """Return the record of each column, with its scores over the folds."""
    rows = [
        LayerScore(*column[:3], column.features.shape[1], float(s.mean()), float(s.std()))
        for column, s in zip(columns, scores, strict=True)
    ]
    return sorted(rows, key=lambda row: -row.mean_score)


def _readable_by_all(
    columns: list[_Columns], y: Any, groups: AnyArray | None, errors: Sequence[ImageError]
) -> tuple[list[_Columns], Any, AnyArray | None]:
    """Leave out the images that are unreadable for an extractor, with a warning."""
    if not errors:
        return columns, y, groups
    n_images = len(columns[0].features)
    each_once = list({failure.row: failure for failure in as_table(errors)}.values())
    refuse_none_readable(n_images, each_once)
    warn_of(each_once, n_images, "they are left out of the scores.", listed_in=None)
    rest = readable(n_images, each_once)
    left = [column._replace(features=column.features[rest]) for column in columns]
    return left, _safe_indexing(y, rest), None if groups is None else groups[rest]


def _check(extractors: list[Any], estimator: Any, y: Any, layers: Any, poolings: Any) -> None:
    """Raise an error for arguments that would cause an empty table or an unclear error."""
    wrong = [one for one in extractors if not isinstance(one, PretrainedFeatureExtractor)]
    if wrong or not extractors:
        raise TypeError(
            f"extractor={shown(wrong[0] if wrong else extractors)}: expected a "
            "PretrainedFeatureExtractor, or several in a list. The estimator for the features is "
            "the second argument."
        )
    if not hasattr(estimator, "fit") or isinstance(estimator, type):
        raise TypeError(
            f"estimator={shown(estimator)}: expected an estimator for the features, such as "
            "LogisticRegression()."
        )
    if y is None:
        raise ValueError("layer_sweep requires y to be passed, but the target y is None.")
    refuse_missing(y)
    if layers is not None and not _is_list_of(layers, lambda name: isinstance(name, str)):
        raise ValueError(f"layers={shown(layers)}: expected a list of names of layers, or None.")
    known = list(get_args(Pooling))
    if not _is_list_of(poolings, known.__contains__):
        raise ValueError(f"poolings={shown(poolings)}: expected a list of some of {known}.")


def _check_scoring(estimator: Any, scoring: Any) -> None:
    """Refuse a name of no score: scikit-learn's error lists all names, after the features."""
    known = scoring is None or callable(scoring)
    if not known and not (isinstance(scoring, str) and scoring in get_scorer_names()):
        raise ValueError(
            f"scoring={shown(scoring)}: expected a name of sklearn.metrics.get_scorer_names(), a "
            "callable or None."
        )
    check_scoring(estimator, scoring=scoring)


def _is_list_of(values: Any, fits: Callable[[Any], bool]) -> bool:
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    return listed and len(values) > 0 and all(fits(value) for value in values)
