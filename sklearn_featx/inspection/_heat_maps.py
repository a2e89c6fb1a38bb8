"""Heat maps: the score of an image as a sum over positions of its feature map."""

from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from .._arguments import check_count
from .._messages import shown
from .._progress import Progress
from .._typing import AnyArray, FloatArray
from ..flow import as_table, warn_of
from ..images import Bags, ImageCollection
from ._affine import Affine, affine_map
from ._background import Background, background_for
from ._beside import Beside
from ._model import Block, Model
from ._position_effects import occlusion_effects, shapley_values
from ._resample import for_the_eye, interpolated, spread_out
from ._scores import Score, Unit

Found: TypeAlias = Literal["exact", "shapley", "occlusion"]
Method: TypeAlias = Literal["auto", Found]
_METHODS = ("auto", "exact", "shapley", "occlusion")


class HeatMaps(NamedTuple):
    """Result of `heat_maps`.

    Parameters
    ----------
    maps : ndarray of shape (n_images, height, width)
        Signed, in the unit of the score; NaN for images that cannot be read.
    intercept : ndarray of shape (n_images,)
        The part of the score without a position: the sum of a map plus its intercept is the score.
    target : ndarray of shape (n_images,)
        Class or output that each map is of.
    method : {"exact", "shapley", "occlusion"}
        How the maps were found.
    unit : {"decision function", "log-odds", "probability", "value"}
        Kind of the score.
    columns : dict of str to ndarray of shape (n_images,), default={}
        For exact maps of a model with a `ColumnTransformer`: the part of the intercept that the
        table columns add, by the name of their transformer. Else empty.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx import HeatMaps
    >>> maps = np.array([[[0.5, -0.25], [1.0, 0.0]]])
    >>> found = HeatMaps(maps, np.array([0.1]), np.array(["cat"]), "exact", "decision function")
    >>> found.scores
    array([1.35])
    """

    maps: FloatArray
    intercept: FloatArray
    target: AnyArray
    method: Found
    unit: Unit
    columns: dict[str, FloatArray] = {}  # noqa: RUF012 - never written

    @property
    def scores(self) -> FloatArray:
        """Score of each image, (n_images,)."""
        total: FloatArray = self.maps.sum((1, 2)) + self.intercept
        return total


def heat_maps(
    estimator: Any,
    X: Any,
    target: Any = None,
    size: Literal["image"] | tuple[int, int] | None = None,
    *,
    method: Method = "auto",
    baseline: Any = None,
    n_samples: int = 1024,
) -> HeatMaps:
    """Compute what each position of an image adds to a score.

    A score that is an affine function of pooled features is a sum over the positions of the feature
    map, exactly, whatever scalers, projections, selections and linear models follow the extractor.
    Any other score gets Shapley values of the positions: they are occluded in the feature map,
    which is pooled again. The backbone runs once for each image.

    Parameters
    ----------
    estimator : estimator
        Fitted: a pipeline with a `PretrainedFeatureExtractor` and a predictor, a fine-tuner, a
        pipeline with one, or a search over one.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        Input of its `predict`.
    target : label, int or array-like of shape (n_images,), default=None
        Class, or number of the output of a regressor; one for all images or one for each. None:
        with two classes, the second, whose score `decision_function` returns; with more classes,
        the predicted class of each image; for a regressor, the first output.
    size : "image", (int, int) or None, default=None
        None: the resolution of the feature map; with several layers, of the finest. "image", or a
        height and width: interpolated for the eye, with the same sum. Maps that are not exact are
        first smoothed: each position is averaged with its neighbors.
    method : {"auto", "exact", "shapley", "occlusion"}, default="auto"
        "exact": the sum over positions; an error if the score is not affine. "shapley": Shapley
        values of the positions of the coarsest map, at most 14 x 14. "occlusion": the decrease of
        the score when one position is occluded. "auto": exact if possible, else Shapley values.
    baseline : "zero", images or None, default=None
        Activations that a position is compared with. ``"zero"``: activations of 0. Images, such as
        the training images: their mean activations. None: the mean of the training images if a
        fitted step stores it (``normalize="layer"``, a `StandardScaler` or `PCA` right after the
        extractor, a fine-tuner's head). If no step does: 0 for exact maps, and the mean of X for
        other maps. X should then have many images; a single image is an error.
    n_samples : int, default=1024
        Coalitions of positions that Shapley values are estimated from; each different one is
        scored once. ``verbose=1`` of the extractor or fine-tuner shows a progress bar.

    Returns
    -------
    found : HeatMaps
        With `maps`, `intercept`, `target`, `method`, `unit`.

    Raises
    ------
    TypeError
        If there is no extractor, or no score, in the estimator.
    ValueError
        If `target` is none of the classes, the layer has no positions before it, the baseline would
        be the only image, or ``method="exact"`` and the score is not affine.

    Warns
    -----
    ImageWarning
        If images cannot be read, with ``on_error="nan"``: their maps are NaN.

    See Also
    --------
    HeatMapDisplay : Draws them.
    nearest_images : Which training images speak for a score.

    Notes
    -----
    With mean pooling, the map of a linear model is the class activation map; with
    ``baseline="zero"`` it equals the HiResCAM [1]_ of a head inside the network. The score of the
    baseline is part of the intercept. Another baseline changes the maps of mean-pooled features by
    a constant, and the maps of other models everywhere. With max pooling, the value of a feature is
    assigned to the position of its maximum.

    References
    ----------
    .. [1] R. L. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
       convolutional neural networks", arXiv:2011.08891, 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_featx import PretrainedFeatureExtractor, heat_maps
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images[:30] / 16, digits.target[:30]
    >>> extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32)
    >>> model = make_pipeline(extractor, LogisticRegression()).fit(X, y)
    >>> found = heat_maps(model, X)
    >>> found.method, found.maps.shape
    ('exact', (30, 4, 4))
    >>> bool(abs(found.scores - model.decision_function(X)).max() < 1e-5)
    True
    """
    if method not in _METHODS:
        raise ValueError(f"method={shown(method)} must be one of {list(_METHODS)}.")
    check_count(n_samples, "n_samples")
    model = Model(estimator, X)
    _refuse_channels(model.images)
    if isinstance(baseline, str) and baseline != "zero":
        raise ValueError(f"baseline={shown(baseline)}: expected 'zero', images or None.")
    is_named = baseline is None or isinstance(baseline, str)
    reference = baseline if is_named else Model(estimator, baseline)
    background: Background | None = None
    wanted = _per_image(target, len(model.images))
    finer = None if size is None else _checked_size(size, model)
    way: _Way | None = None
    parts: list[_Part] = []
    with Progress(
        len(model.images), verbose=model.settings.verbose, description="heat maps"
    ) as progress:
        for block in model.blocks():
            way = way or _decide(model, block, method, n_samples)
            if background is None:
                exact = way.affine is not None
                background = background_for(model, block, reference, exact=exact)
            chosen, known = _chosen(way, block, wanted), background.applied_to(block)
            parts.append(_explained(way, known, chosen, finer, model.beside, progress))
    if way is None:
        raise ValueError("X: none of the images can be read, so there is no map.")
    n_images, lost = len(model.images), as_table(model.failures)
    warn_of(lost, n_images, "their maps are NaN.", listed_in=None, stacklevel=3)
    return _joined(way, parts, n_images)


class _Part(NamedTuple):
    """Maps of some images, their intercepts and outputs."""

    rows: list[int]
    maps: FloatArray
    intercept: FloatArray
    chosen: AnyArray
    columns: dict[str, FloatArray]


class _Way(NamedTuple):
    """Method of the maps, decided by the first images for all."""

    score: Score
    method: Found
    affine: Affine | None = None
    n_samples: int = 0


def _decide(model: Model, block: Block, method: Method, n_samples: int) -> _Way:
    """Choose the exact way where the score is affine in sums over positions."""
    first, *others = model.scores()
    if method in ("auto", "exact") and all(layer.is_sum for layer in block.layers):
        affine = affine_map(first.of, block.features, first.limit)
        if affine is not None:
            return _Way(first, "exact", affine)
    if method == "exact":
        raise ValueError(
            "method='exact': the score is not an affine function of sums over positions. Use "
            "method='auto', which takes Shapley values for it."
        )
    name = "shapley" if method == "auto" else method
    return _Way(others[0] if others else first, name, n_samples=n_samples)


def _refuse_channels(images: ImageCollection) -> None:
    """Refuse channels that pass alone: each has a map of its own."""
    if isinstance(images, Bags) and images.n_channels > 1:
        raise ValueError(
            f"X: with channels='each', a score is that of {images.n_channels} maps, one for each "
            "channel. Fit with some channels, reader=ImageReader(channels=[0, 1, 2]), for a map."
        )


def _per_image(target: Any, n_images: int) -> list[Any] | None:
    """One target for each image; None where the scores decide."""
    if target is None:
        return None
    if np.ndim(target) == 0:
        return [target] * n_images
    if len(target) != n_images:
        raise ValueError(f"target has {len(target)} entries, and X has {n_images} images.")
    return list(target)


def _chosen(way: _Way, block: Block, wanted: list[Any] | None) -> AnyArray:
    """Position of each image's output."""
    score, affine = way.score, way.affine
    if wanted is not None:
        return np.array([score.place(wanted[row]) for row in block.rows])
    if score.unit == "value" or len(score.labels) == 2:
        return np.full(len(block.rows), 0 if score.unit == "value" else 1)
    rows = block.features
    found = score.of(rows) if affine is None else rows @ affine.weights + affine.intercept
    best: AnyArray = found.argmax(1)
    return best


def _explained(
    way: _Way,
    block: Block,
    chosen: AnyArray,
    size: tuple[int, int] | None,
    beside: Beside | None,
    progress: Progress,
) -> _Part:
    """Return the maps of a block's images, of a finer size if it is given, and intercepts."""
    columns: dict[str, FloatArray] = {}
    if way.affine is not None:
        weights = way.affine.weights.T[chosen]
        maps, rest = _exact(block, weights, size)
        intercept = way.affine.intercept[chosen] + rest
        if beside is not None:
            columns = beside.shares(block.rows, weights)
        progress.update(len(maps))
    else:
        effects = []
        for i, k in enumerate(chosen):
            effects.append(_effects(way, block, i, int(k)))
            progress.update(1)
        maps = np.stack(effects)
        scores = way.score.of(block.features)[np.arange(len(chosen)), chosen]
        intercept = scores - maps.sum((1, 2))
        maps = maps if size is None else for_the_eye(maps, size, exact=False)
    if way.score.rest is not None:
        intercept = intercept + way.score.rest(block.features)
    return _Part(block.rows, maps, intercept, chosen, columns)


def _effects(way: _Way, block: Block, i: int, output: int) -> FloatArray:
    """Map of one image by occlusion or Shapley values."""
    score = way.score.only(output)
    if way.method == "occlusion":
        return occlusion_effects(block.layers, i, score)
    return shapley_values(block.layers, i, score, way.n_samples)


def _exact(
    block: Block, weights: FloatArray, size: tuple[int, int] | None
) -> tuple[FloatArray, FloatArray]:
    """Return maps of images by the weights of their rows, and what has no position.

    The layers' maps are added on the finest grid or `size`.
    """
    rest, start = np.zeros(len(weights)), 0
    of_grid: dict[tuple[int, int], FloatArray] = {}
    for layer in block.layers:
        stop = start + layer.n_features
        share, left = layer.shares(weights[:, start:stop])
        rest, start = rest + left, stop
        if layer.found is not None:
            of_grid[layer.grid] = of_grid.get(layer.grid, 0.0) + share
    finest = max(of_grid, key=lambda grid: grid[0] * grid[1])
    finer = partial(spread_out, size=finest) if size is None else partial(interpolated, size=size)
    maps, *others = (finer(share) for share in of_grid.values())
    for other in others:
        maps += other
    return maps, rest


def _joined(way: _Way, parts: list[_Part], n_images: int) -> HeatMaps:
    """Put the images of all blocks in order; NaN for those that cannot be read."""
    maps = np.full((n_images, *parts[0].maps.shape[1:]), np.nan)
    intercept, places = np.full(n_images, np.nan), np.zeros(n_images, int)
    columns = {name: np.full(n_images, np.nan) for name in parts[0].columns}
    for part in parts:
        maps[part.rows], intercept[part.rows] = part.maps, part.intercept
        places[part.rows] = part.chosen
        for name, values in part.columns.items():
            columns[name][part.rows] = values
    score = way.score
    return HeatMaps(maps, intercept, score.labels[places], way.method, score.unit, columns)


def _checked_size(size: Any, model: Model) -> tuple[int, int]:
    """Height and width of a map in pixels."""
    if isinstance(size, str) and size == "image":
        height, width = model.input_shape[-2:]
        return int(height), int(width)
    sides = size if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(s, int | np.integer) and s >= 1 for s in sides):
        raise ValueError(f"size={shown(size)}: expected None, 'image' or (height, width).")
    return int(sides[0]), int(sides[1])
