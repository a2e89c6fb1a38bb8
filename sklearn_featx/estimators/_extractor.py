"""PretrainedFeatureExtractor: a frozen pretrained network as a scikit-learn transformer."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, Self, get_args

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from .._messages import one_call, shown
from .._sklearn_compat import (
    Interval,
    StrOptions,
    _check_feature_names_in,
)
from .._typing import AnyArray, EngineChoice, FloatArray, OnError, Pooling, Precision, Weights
from ..backbones import Backbone, check_same, get_backbone, warn_of_classifier
from ..engines import EngineName, resolve_device, resolve_precision
from ..exceptions import ImageError, UnknownLayerError
from ..flow import (
    Cache,
    Failure,
    Recipe,
    Settings,
    Tap,
    TapRows,
    activations,
    as_table,
    first_shapes,
    refuse_none_readable,
    spread,
    warn_of,
)
from ..images import ImageCollection
from ._channels import n_channels_of
from ._column_scales import NO_SCALE, digest_columns, learn_scales, unit_norm
from ._fitting import fitting
from ._image_estimator import ROWS_ARE_NAN, ImageEstimator
from ._image_reader import ImageReader
from ._infinite_features import refuse_infinite, warn_of_infinite
from ._preprocessing import PreprocessingOption


class PretrainedFeatureExtractor(TransformerMixin, ImageEstimator):
    """Turn images into columns with a frozen pretrained network.

    Each image passes through the network once, in inference mode, after the preprocessing that the
    weights were trained with. Its features are the activations before the classification head, or
    of other layers. A row depends only on its image, not on the other rows of X.

    The transformer is stateless: `fit` validates parameters and X, and `transform` works without
    it. Only ``normalize="layer"`` learns in `fit`, the scale of each column. After `fit`, another
    network than that of `fit`, such as a module that was trained meanwhile, is an error.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="efficientnet_lite0"
        A name from `backbone_names`; ``"efficientnet_lite0"`` includes its ImageNet weights and
        needs no download. Or any network that maps one tensor to one tensor. Or a function
        without arguments that builds such a network. The function is called with PyTorch's seed 0;
        it is called again if its code or the values that its code reads have changed, and in each
        use if it may read files.
    weights : str, path or None, default="DEFAULT"
        ``"DEFAULT"``: the best weights of the backbone's library. Or the name of other weights; a
        ``.pth`` or ``.safetensors`` file; None for random weights, with a warning. Ignored if
        `backbone` is not a name.
    layer : str or list of str, default=None
        None: the input of the classification head. Or the name of a module or of an operation in
        the network; the ends of stages are in `backbone_stages`. Or several names; their
        features are concatenated in this order. ``"all"``: every stage [1]_.
    pooling : str, list of str or None, default="avg"
        Conversion of a feature map or token grid to a vector: ``"avg"``, the mean over positions;
        ``"max"``; ``"avgmax"``, the mean of both; ``"gem"``, a generalized mean [2]_; ``"grid2"``
        or ``"grid3"``, the means of 2 x 2 or 3 x 3 cells [3]_; ``"cls"``, the class token;
        ``"flatten"``, all values. Vectors of a list are concatenated; activations that are vectors
        do not change, and are repeated for each pooling of a list. None: no conversion; the result
        has more than two axes, unless the activations are vectors.
    preprocessing : "fast", Preprocessing, callable or None, default=None
        None: that of the weights' training. ``"fast"``: nearly the same, faster for large JPEG
        files, which are decoded at a fraction of their size; the cosine similarity is at least
        0.999. `Preprocessing`: another geometry. Or a function from a PIL image to the network's
        input, floats (channels, height, width), or to levels (PIL image, uint8), then normalized.
    image_size : int or (int, int), default=None
        Side, or (height, width), in pixels, of the network's input. None: the size of its training.
        If `backbone` is not a name, None is the size of the images, which must be equal.
    reader : ImageReader, default=None
        Conversion of the entries of X to images: the shape of flattened images, the values of black
        and white. None: ``ImageReader()``.
    batch_size : int, default=None
        Number of images in one pass. None: chosen for the device. If memory runs out, batches are
        halved.
    device : str, default="auto"
        ``"auto"``: a GPU if there is one. Any other name is never changed silently.
    precision : {"float32", "bfloat16", "float16", "auto"}, default="float32"
        Type of weights and activations; features are float32. ``"auto"``: the fastest type of the
        device; on a CPU it is measured. With 16-bit types, the cosine similarity to the exact
        features is about 0.999 for photographs; the lowest of 18 small crops was 0.985.
    compile : bool, default=False
        Whether to compile the network, which takes seconds to minutes, once in each process. A
        network that cannot be compiled gives a warning.
    engine : {"torch", "openvino"}, default="torch"
        Library that computes. ``"openvino"`` converts the network, which takes seconds in each
        process, and runs it on a CPU, often faster than PyTorch; it needs the extra ``openvino``.
    n_jobs : int, default=None
        Number of threads that read images and compute their features; on a GPU, of threads that
        read. None: as many as PyTorch uses (one per core, fewer in joblib's worker processes and
        under `threadpoolctl`), but a function as `preprocessing` is called by one thread, in the
        order of the images.
    cache : bool, path or FeatureStore, default=True
        Where features are cached, by the content of the image and everything that is done to it.
        True: a bounded temporary store of this process and its joblib workers, deleted at exit. A
        folder or `FeatureStore`: a permanent store. False: no cache. With a cache, a search over
        the steps after the extractor computes each image once.
    on_error : {"raise", "nan"}, default="raise"
        Treatment of unreadable images. ``"raise"``: the first one raises an `ImageError` with row
        and file. ``"nan"``: their rows are NaN, and one `ImageWarning` at the end names all of
        them.
    normalize : bool or "layer", default=False
        True: scale each row to unit Euclidean norm. ``"layer"``: center each column over the
        images of `fit`, and scale the columns so that a penalty treats layers alike. With one
        layer, all columns have one divisor, and a mean variance of 1. With several, the variance of
        a column is shrunk half way to the mean of its layer; all layers get one total variance.
    verbose : int, default=0
        1 shows a progress bar with images per second.

    Attributes
    ----------
    backbone_digest_ : str
        Digest of the network.
    n_channels_ : int or None
        Number of channels of an image if each passes alone; None: images pass as a whole.
    output_shapes_ : list of tuple of int
        Shape of one row of each layer; the columns are the concatenated layers.
    n_features_out_ : int
        Number of columns that `transform` returns.
    mean_, scale_ : ndarray of shape (n_features_out_,)
        The mean that is subtracted from each column, and the divisor; only with
        ``normalize="layer"``.
    scaled_digest_ : str
        Digest of network, layers and preprocessing; only with ``normalize="layer"``.
    failures_ : list of Failure
        Row, path and reason of each unreadable image of the last call of `transform`, a table for
        ``DataFrame(failures_)``; only with ``on_error="nan"``.
    n_features_in_ : int
        Number of columns of X; only if X has columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X; only if all of them are strings.

    See Also
    --------
    FineTuneClassifier : Classifier that trains the last stages of the network.
    backbone_stages : The stages of a backbone.

    References
    ----------
    .. [1] U. Evci, V. Dumoulin, H. Larochelle, M. C. Mozer, "Head2Toe: Utilizing intermediate
       representations for better transfer learning", ICML 2022.
    .. [2] F. Radenović, G. Tolias, O. Chum, "Fine-tuning CNN image retrieval with no human
       annotation", IEEE TPAMI 41(7), 2019.
    .. [3] S. Lazebnik, C. Schmid, J. Ponce, "Beyond bags of features: spatial pyramid matching for
       recognizing natural scene categories", CVPR 2006.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn_featx import PretrainedFeatureExtractor
    >>> photographs = load_sample_images().images
    >>> features = PretrainedFeatureExtractor().fit_transform(photographs)
    >>> features.shape
    (2, 1280)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 # scikit-learn's own form
        **ImageEstimator._parameter_constraints,
        "layer": [str, list, tuple, None],
        "pooling": [str, list, tuple, None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "compile": ["boolean"],
        "engine": [StrOptions(set(get_args(EngineChoice)))],
        "normalize": ["boolean", StrOptions({"layer"})],
    }

    def __init__(
        self,
        backbone: Any = "efficientnet_lite0",
        *,
        # the network and its columns
        weights: Weights = "DEFAULT",
        layer: str | list[str] | None = None,
        pooling: Pooling | Sequence[Pooling] | None = "avg",
        # images
        preprocessing: PreprocessingOption = None,
        image_size: int | tuple[int, int] | None = None,
        reader: ImageReader | None = None,
        # computation
        batch_size: int | None = None,
        device: str = "auto",
        precision: Precision = "float32",
        compile: bool = False,  # noqa: A002 # skorch's and PyTorch's word
        engine: EngineChoice = "torch",
        n_jobs: int | None = None,
        cache: Cache = True,
        # unreadable images; the scale of rows; progress
        on_error: OnError = "raise",
        normalize: bool | Literal["layer"] = False,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.reader = reader
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.compile = compile
        self.engine = engine
        self.n_jobs = n_jobs
        self.cache = cache
        self.on_error = on_error
        self.normalize = normalize
        self.verbose = verbose

    @fitting
    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 # scikit-learn's interface
        """Validate parameters and X, and load the network.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            Arrays (n, height, width[, channels]) or (n, channels, height, width), rows of pixels
            or numbers (see `ImageReader`), tensors; or sequences of paths, encoded bytes, PIL
            images, arrays; or a dataset with ``samples`` such as torchvision's ``ImageFolder``.
        y : ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : PretrainedFeatureExtractor
            The transformer.

        Raises
        ------
        InputError, ImageError
            If X cannot be converted to images; with ``on_error="raise"``, if a file does not exist.
        BackboneError
            If the backbone, its weights or a layer does not exist, or does not accept the images.
        """
        images = self._images(X, reset=True)
        resolve_precision(self.precision, resolve_device(self.device))
        recipe = self._recipe()
        # First: an untraceable network may keep state when it runs.
        digest = recipe.backbone.digest(len(recipe.backbone.stages))
        self.n_channels_ = n_channels_of(images)
        shapes = self._of_rows(first_shapes(images, recipe, self._settings()))
        self._check_shapes(shapes)
        self.backbone_digest_ = digest
        self.output_shapes_ = shapes
        self.n_features_out_ = sum(math.prod(shape) for shape in shapes)
        self._note([])
        if self.normalize == "layer":
            self._learn_scale(images, recipe)
        return self

    def transform(self, X: Any) -> FloatArray:
        """Compute the features of images.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        features : ndarray of shape (n_images, n_features_out_), float32
            One row per image, in the order of X; NaN if unreadable, with ``on_error="nan"``. With
            ``pooling=None``, a row has the shape of the layer.

        Raises
        ------
        InputError, ImageError
            If X is invalid, or an image is unreadable and ``on_error="raise"``.
        WeightsError
            If the network is not that of `fit`.
        """
        if self.normalize == "layer":
            check_is_fitted(self, "scale_", msg=NO_SCALE)
        features, failures = self._features(self._images(X, reset=False))
        warn_of(failures, len(features), ROWS_ARE_NAN)
        return features

    def fit_transform(self, X: Any, y: Any = None) -> FloatArray:
        """Fit, then compute the features of the same images.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.
        y : ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        features : ndarray of shape (n_images, n_features_out_), float32
            As returned by `transform`.

        Raises
        ------
        InputError, ImageError
            If X is invalid, an image is unreadable and ``on_error="raise"``, or all images are.
        """
        with one_call():
            features, failures = self.fit(X, y)._features(self._images(X, reset=False))
        refuse_none_readable(len(features), failures)
        warn_of(failures, len(features), ROWS_ARE_NAN)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> AnyArray:
        """Return the names of the columns: backbone, layer (if one is given) and number.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Checked against the names seen in `fit`; not used.

        Returns
        -------
        names : ndarray of shape (n_features_out_,), object
            ``efficientnet_lite0_0000`` and so on; ``efficientnet_lite0_blocks.4_avg_012`` if
            `layer` is given; ``efficientnet_lite0_avg_0000`` if only several poolings are.

        Raises
        ------
        NotFittedError
            If the number of features depends on X and the extractor is not fitted.
        """
        _check_feature_names_in(self, input_features, generate_names=False)
        recipe = self._recipe()
        shapes = self._known_shapes(recipe)
        if any(len(shape) != 1 for shape in shapes):
            raise ValueError(
                "pooling=None returns arrays with more than two axes, which have no column names. "
                "Use another pooling, such as 'flatten'."
            )
        prefixes = [self._prefix(recipe, tap) for tap in recipe.taps]
        return self._column_names(prefixes, [shape[0] for shape in shapes])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = self.normalize == "layer"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _features(self, images: ImageCollection) -> tuple[FloatArray, list[Failure]]:
        """Features of images, NaN for unreadable ones; and the unreadable images."""
        recipe = self._recipe()
        if hasattr(self, "backbone_digest_"):
            check_same(recipe.backbone, self.backbone_digest_)
        layers, errors = self._rows(images, recipe)
        warn_of_infinite(layers, images, errors, recipe.backbone.name)
        if not layers:
            layers = [np.empty((0, *s), np.float32) for s in self._shapes_of_none(recipe, errors)]
        self._check_shapes([layer.shape[1:] for layer in layers])
        features = np.concatenate(layers, axis=1) if len(layers) > 1 else layers[0]
        if self.normalize and len(features):
            features = self._normalized(features, recipe)
        failures = as_table(errors)
        self._note(failures)
        return (spread(features, len(images), errors) if errors else features), failures

    def _normalized(self, features: FloatArray, recipe: Recipe) -> FloatArray:
        if self.normalize != "layer":
            return unit_norm(features)
        if self.scaled_digest_ != digest_columns(recipe):
            raise ValueError(
                "normalize='layer': the scales were learned from another network, layer, pooling "
                "or preprocessing. Call fit again."
            )
        scaled: FloatArray = ((features - self.mean_) / self.scale_).astype(features.dtype)
        return scaled

    def _learn_scale(self, images: ImageCollection, recipe: Recipe) -> None:
        """Measure mean and variance of the columns over all readable images."""
        layers, errors = self._rows(images, recipe)
        refuse_none_readable(len(images), errors)
        self._check_shapes([layer.shape[1:] for layer in layers])
        refuse_infinite(layers, images, errors)
        self.scaled_digest_ = digest_columns(recipe)
        self.mean_, self.scale_ = learn_scales(layers)

    def _shapes_of_none(self, recipe: Recipe, errors: list[ImageError]) -> list[tuple[int, ...]]:
        """Shape of a row of each layer if no image is readable; an error if images decide it."""
        try:
            return self._known_shapes(recipe)
        except NotFittedError:
            refuse_none_readable(len(errors), errors)
            raise

    def _rows(self, images: ImageCollection, recipe: Recipe) -> TapRows:
        return activations(images, recipe, self._settings())

    def _settings(self) -> Settings:
        return super()._settings()._replace(batch_size=self.batch_size)

    def _recipes(self, images: ImageCollection) -> tuple[Recipe, Recipe]:  # noqa: ARG002
        return self._recipe(), self._recipe()

    def _backbone(self) -> Backbone:
        return get_backbone(self.backbone, self.weights, image_size=self._image_size())

    def _recipe(self) -> Recipe:
        backbone = self._backbone()
        if self.layer is None:
            warn_of_classifier(backbone)
        preprocess = self._preprocess(backbone)
        taps = tuple(
            Tap(layer, pooling) for layer in self._layers(backbone) for pooling in self._poolings()
        )
        return Recipe(backbone, taps, preprocess, self.device, self.precision, self._engine_name())

    def _layers(self, backbone: Backbone) -> Sequence[str | int]:
        n_stages = len(backbone.stages)
        if self.layer is None or self.layer == "all":
            # By number: a stage includes the nonlinearity after the module that gives its name.
            return [n_stages] if self.layer is None else range(1, n_stages + 1)
        if isinstance(self.layer, str):
            return [self.layer]
        _check_layers(self.layer)
        return list(self.layer)

    def _poolings(self) -> Sequence[Pooling | None]:
        if self.pooling is None:
            return [None]
        names = [self.pooling] if isinstance(self.pooling, str) else list(self.pooling)
        known = get_args(Pooling)
        if not names or any(name not in known for name in names):
            raise ValueError(f"pooling={shown(self.pooling)}: expected some of {known}, or None.")
        _refuse_repeated("pooling", names)
        return names

    def _prefix(self, recipe: Recipe, tap: Tap) -> str:
        backbone = recipe.backbone
        if self.layer is None:
            return f"{backbone.name}_{tap.pooling}" if len(recipe.taps) > 1 else backbone.name
        layer = tap.layer if isinstance(tap.layer, str) else backbone.stages[tap.layer - 1].layer
        return f"{backbone.name}_{layer}_{tap.pooling}"

    def _engine_name(self) -> EngineName:
        if not self.compile:
            return self.engine
        if self.engine != "torch":
            raise ValueError(
                f"compile=True is for engine='torch', and engine={self.engine!r}. Leave one out."
            )
        return "compiled"

    def _known_shapes(self, recipe: Recipe) -> list[tuple[int, ...]]:
        size = self._input_size(recipe.backbone)
        image_shape = self._reader().image_shape
        plain_numbers = image_shape is not None and image_shape[-1] == -1
        if size is not None and not plain_numbers:
            channels = recipe.backbone.preprocess.channels
            return self._of_rows(recipe.output_shapes((channels, *size)))
        if hasattr(self, "output_shapes_"):
            shapes: list[tuple[int, ...]] = self.output_shapes_
            return shapes
        raise NotFittedError(
            "The number of features of this backbone depends on the images; call 'fit' first."
        )

    def _check_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        if len(shapes) > 1 and any(len(shape) != 1 for shape in shapes):
            raise ValueError(
                f"pooling={self.pooling!r}: layer={shown(self.layer)} gives activations of the "
                f"shapes {shown(shapes)}, which cannot be concatenated. Choose another pooling, or "
                "one layer."
            )


def _refuse_repeated(parameter: str, names: Sequence[Any]) -> None:
    """Raise an error for equal columns, which would have equal names."""
    repeated = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if repeated is not None:
        raise ValueError(
            f"{parameter}={shown(list(names))}: {shown(repeated)} occurs twice. Name each once."
        )


def _check_layers(layers: Sequence[Any]) -> None:
    if not layers or not all(isinstance(layer, str) for layer in layers):
        raise UnknownLayerError(
            f"layer={shown(list(layers))}: expected the name of a layer, or several in a list. "
            "See backbone_stages."
        )
    _refuse_repeated("layer", layers)
