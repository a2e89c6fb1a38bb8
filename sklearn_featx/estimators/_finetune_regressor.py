"""FineTuneRegressor: numbers in, numbers out."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from .._sklearn_compat import _fit_context
from .._typing import AnyArray, FloatArray
from ..images import ImageCollection
from ..training import LinearModel
from ._finetune_base import FineTuneEstimator
from ._finetune_probe import regressor_probe
from ._fit_tasks import FitTasks
from ._prior import ReadableScore, warn_of_prior
from ._targets import check_targets, row_weights, standardization


class FineTuneRegressor(ReadableScore, RegressorMixin, FineTuneEstimator):
    """Predict numbers from images with a pretrained network whose last stages are trained.

    As `FineTuneClassifier`, with the mean squared error on standardized targets; the head starts
    at the ridge regression on the frozen embeddings.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="efficientnet_lite0"
        A name of `backbone_names`, any network from one tensor to one tensor, or a function that
        builds one.
    weights : str, path or None, default="DEFAULT"
        Name of weights, a ``.pth`` or ``.safetensors`` file, or None for random weights.
    unfreeze_depth : int, "all" or (int, int), default=1
        Number of stages, counted from the output, that are trained with the head.
    granularity : {"stage", "block"} or list of str, default="stage"
        What a stage is.
    head : {"linear", "mlp"}, nn.Module or callable, default="linear"
        The head.
    head_layers : {"all", "last"}, default="last"
        What the head reads: the pooled activations of every stage, or of the last one.
    head_init : {"probe", "random"}, default="probe"
        Where a linear head starts.
    C : float or "auto", default="auto"
        Inverse of the penalty of the probe (``alpha = 1 / C`` in `Ridge`), on embeddings scaled to
        a mean variance of 1. ``"auto"``: chosen by leave-one-out cross-validation.
    lr : float, default=1e-3
        Learning rate of the head.
    backbone_lr_ratio : float, default=0.1
        Learning rate of the last stage, as a multiple of `lr`.
    weight_decay : float, default=0.01
        Weight decay of weights; norms and biases have none.
    max_epochs : int, default=10
        Passes over the rows.
    batch_size : int, default=32
        Rows in one step of the optimizer.
    optimizer : {"adamw", "adam", "sgd"} or torch.optim.Optimizer class, default="adamw"
        The optimizer.
    early_stopping : bool, default=False
        Set a part of the rows aside, stop when their loss no longer falls, restore the best.
    validation_fraction : float, default=0.1
        The part that is set aside.
    n_iter_no_change : int, default=5
        Epochs without improvement before stopping early.
    batch_norm : {"frozen", "train"}, default="frozen"
        Whether running statistics in trained stages stay as pretrained.
    augment : {"light", "strong"}, callable or None, default=None
        Train on views of the images, made by random variation.
    n_views : int or None, default=4
        Number of views of each image, which the epochs see in turn; None: a fresh one in each.
    warm_start : bool, default=False
        Let `fit` go on from the weights of the call before, in place of the pretrained ones.
    cross_fit : int or None, default=None
        Number of folds of `fit_transform`: each image's embedding comes from a network that was
        trained on the other folds, so that a learner after it sees no embedding that knows its
        target. None: from the network that was trained on all images.
    random_state : int, RandomState or None, default=None
        Seed of everything random.
    callbacks : list, default=None
        Callbacks of skorch, or (name, callback) pairs.
    net_params : dict, default=None
        Further arguments of `skorch.NeuralNet`.
    preprocessing : "fast", callable or None, default=None
        None: the preprocessing of the weights. ``"fast"``: nearly the same, faster for large JPEG
        files. Else a function from a PIL image to a tensor.
    image_size : int or (int, int), default=None
        Side, or (height, width), in pixels, of what the network sees.
    reader : ImageReader, default=None
        How an entry of X becomes a picture. None: ``ImageReader()``.
    device : str, default="auto"
        ``"auto"``: a GPU if there is one.
    precision : {"float32", "bfloat16", "float16", "auto"}, default="float32"
        Type in which the frozen stages compute. What is trained is float32; with ``"bfloat16"``,
        or ``"auto"`` where that is the fastest, its products are computed in bfloat16 (mixed
        precision).
    n_jobs : int, default=None
        Number of threads that read images and run them through the frozen stages. None: as many as
        PyTorch would use.
    cache : bool, path or FeatureStore, default=True
        Where the rows at the split point are remembered, as in `PretrainedFeatureExtractor`: a
        search over depths, learning rates, heads and folds runs the trunk once per image.
    on_error : {"raise", "nan"}, default="raise"
        What an image that cannot be read does. ``"raise"``: the first is an `ImageError` with row
        and file. ``"nan"``: `fit` and `score` leave them out, with their weights; their prediction
        is the one without evidence, `target_mean_`, so that every scorer works. One `ImageWarning`
        names all of them.
    verbose : int, default=0
        1 shows progress bars, 2 skorch's table of epochs.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The net that was trained.
    history_ : list of dict
        One record for each epoch; empty where no epoch was needed.
    trained_state_ : dict of str to ndarray
        What training changed, by name.
    target_mean_, target_scale_ : ndarray of shape (n_outputs_,)
        Mean and standard deviation of the training targets.
    target_ndim_ : int
        Number of axes that y had.
    backbone_digest_ : str
        Digest of the backbone; compared when a saved estimator is used again.
    layer_widths_ : list of int
        Number of columns of each layer that the head reads.
    n_embedding_, n_outputs_ : int
        Numbers of inputs and outputs of the head.
    seed_ : int
        The seed that was drawn from `random_state`.
    failures_ : list of Failure
        Row, path and reason of each image that the last call (of `fit`, `predict` or `score`)
        could not read, a table for ``DataFrame(failures_)``.
    n_features_in_ : int
        Number of columns of X; only when X has columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X; only when X has named columns.

    See Also
    --------
    FineTuneClassifier : The same for labels; explains the method.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_featx import FineTuneRegressor, ImageReader
    >>> X, y = load_digits(return_X_y=True)
    >>> reader = ImageReader(image_shape=(8, 8), value_range=(0, 16))
    >>> reg = FineTuneRegressor(reader=reader, image_size=32, unfreeze_depth=0)
    >>> reg.fit(X[:40], y[:40]).predict(X[40:44]).shape
    (4,)
    """

    _task = "regression"
    _metric = staticmethod(r2_score)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the tail and the head.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `PretrainedFeatureExtractor.fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.

        Returns
        -------
        self : FineTuneRegressor
            The fitted regressor.
        """
        tasks = FitTasks(self, X, y, sample_weight)
        return self._fit_rows(*self._prepared(X, y, sample_weight), tasks)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on some images, on from where the net is.

        The first call sets the mean and scale of the targets.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.

        Returns
        -------
        self : FineTuneRegressor
            The regressor.
        """
        first = not hasattr(self, "trained_state_")
        images = self._images(X, reset=first)
        targets, weights = self._checked(images, y, sample_weight)
        if first:
            self._set_targets(targets, weights)
        return self._continue_fit(images, self._standardized(targets), weights)

    def predict(self, X: Any) -> FloatArray:
        """Predict the targets.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        values : ndarray of shape (n_images,) or (n_images, n_outputs), float64
            As many columns as y had in `fit`. With ``on_error="nan"``, `target_mean_` for images
            that cannot be read.
        """
        outputs, failures = self._outputs(X)
        warn_of_prior(failures, len(outputs))
        return self._decided(outputs)

    def _decided(self, outputs: FloatArray) -> FloatArray:
        values: FloatArray = outputs * self.target_scale_ + self.target_mean_
        return values[:, 0] if self.target_ndim_ == 1 else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _checked(
        self, images: ImageCollection, y: Any, sample_weight: Any
    ) -> tuple[AnyArray, AnyArray | None]:
        targets = check_targets(y, name=type(self).__name__, n_rows=len(images))
        return targets, row_weights(sample_weight, len(targets))

    def _set_targets(self, targets: AnyArray, weights: AnyArray | None) -> None:
        self.target_mean_, self.target_scale_ = standardization(targets, weights)
        self.target_ndim_ = targets.ndim
        self.n_outputs_ = len(self.target_mean_)

    def _prepared(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[ImageCollection, AnyArray, AnyArray | None]:
        images = self._images(X, reset=not self._continues())
        targets, weights = self._checked(images, y, sample_weight)
        # What was learned is about targets on the scale of the first call.
        if not self._continues():
            self._set_targets(targets, weights)
        return images, self._standardized(targets), weights

    def _targets_left(
        self,
        targets: AnyArray,
        weights: AnyArray | None,
        *,
        partial: bool = False,  # noqa: ARG002 # mean and scale are the same to both
    ) -> AnyArray:
        if self._continues():
            return targets
        # Mean and scale are those of what is trained on.
        columns = targets * self.target_scale_ + self.target_mean_
        self.target_mean_, self.target_scale_ = standardization(columns, weights)
        return self._standardized(columns)

    def _learn_prior(
        self, targets: AnyArray, weights: AnyArray | None, *, more: bool = False
    ) -> None:
        """Nothing to learn: the prior is `target_mean_`, which the targets were standardized by."""

    def _prior(self) -> FloatArray:
        return np.zeros(self.n_outputs_)

    def _standardized(self, targets: AnyArray) -> AnyArray:
        columns = targets.reshape(len(targets), -1)
        if columns.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y has {columns.shape[1]} targets for each image; the estimator was fitted to "
                f"{self.n_outputs_}."
            )
        standard: AnyArray = (columns - self.target_mean_) / self.target_scale_
        return standard

    def _probe(
        self,
        features: AnyArray,
        targets: AnyArray,
        weights: AnyArray | None,
        widths: Sequence[int],
    ) -> LinearModel:
        return regressor_probe(self, features, targets, weights, widths)
