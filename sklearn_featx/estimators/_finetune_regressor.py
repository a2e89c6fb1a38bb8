"""FineTuneRegressor: regression by a network whose last stages are trained."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from .._typing import AnyArray, FloatArray
from ..images import ImageCollection
from ..training import LinearModel
from ._finetune_base import FineTuneEstimator
from ._finetune_probe import StartRows, regressor_probe
from ._fit_tasks import FitTasks
from ._fitting import fitting
from ._prior import PriorForUnreadable
from ._targets import check_groups, check_targets, row_weights, standardization
from ._unchanged import check_continued


class FineTuneRegressor(PriorForUnreadable, RegressorMixin, FineTuneEstimator):
    """Predict numbers from images with a pretrained network whose last stages are trained.

    The method is that of `FineTuneClassifier`, with the mean squared error on standardized targets.
    The head starts at the ridge regression on the frozen embeddings.

    Parameters
    ----------
    backbone : str, nn.Module or callable, default="efficientnet_lite0"
        A name from `backbone_names`; any network that maps one tensor to one tensor, which is
        copied and never changed; or a function without arguments that builds one.
    weights : str, path or None, default="DEFAULT"
        ``"DEFAULT"``: the best weights of the backbone's library. Or the name of other weights, a
        ``.pth`` or ``.safetensors`` file, or None for random weights.
    unfreeze_depth : int, "all" or (int, int), default=1
        Number of stages, counted from the output, that are trained with the head: 0 is a linear
        probe, ``"all"`` full fine-tuning. A pair ``(first, last)`` trains the stages at these
        depths.
    granularity : {"stage", "block"} or list of str, default="stage"
        Definition of a stage: the architecture's stages, each residual or transformer block, or
        the parts between the named modules.
    head : {"linear", "mlp"}, nn.Module or callable, default="linear"
        The head: linear; one hidden layer; a module, which is copied; or a function
        ``(n_inputs, n_outputs) -> nn.Module``.
    head_layers : {"all", "last"}, default="last"
        Input of the head. ``"last"``: the pooled output of the last stage. ``"all"``: this output
        and the means of 3 x 3 cells of the activations of all earlier stages, concatenated.
    head_init : {"probe", "random"}, default="probe"
        Start of a linear head. Other heads, and `partial_fit`, start at random.
    C : float or "auto", default="auto"
        Inverse penalty of the probe (``alpha = 1 / C`` in `Ridge`), on embeddings scaled to a mean
        variance of 1. ``"auto"``: chosen by leave-one-out cross-validation; with `groups`
        in `fit`, by cross-validation with 5 folds of whole groups.
    lr : float, default=1e-3
        Learning rate of the head.
    backbone_lr_ratio : float, default=0.1
        Learning rate of the trained stages, as a multiple of `lr`. With ``layer_decay`` in
        `net_params`, that of the last stage.
    weight_decay : float, default=0.01
        Weight decay of weights; norms and biases have none.
    max_epochs : int, default=10
        Passes over the rows.
    batch_size : int, default=32
        Rows in one step of the optimizer.
    optimizer : {"adamw", "adam", "sgd"} or torch.optim.Optimizer class, default="adamw"
        The optimizer; ``"sgd"`` has Nesterov's momentum of 0.9, PyTorch's class alone has none.
    early_stopping : bool, default=False
        Whether to hold out a part of the images, stop when their loss no longer decreases, and
        restore the best weights. `partial_fit` has no epochs to choose from and holds out nothing.
    validation_fraction : float, default=0.1
        Share of the images that early stopping holds out. The head does not start from them either.
    n_iter_no_change : int, default=5
        Epochs without improvement before stopping early.
    batch_norm : {"frozen", "train"}, default="frozen"
        Batch normalization in trained stages. ``"frozen"``: it keeps its pretrained running
        statistics. ``"train"``: it is trained, and its running statistics are updated.
    augment : {"light", "strong"}, callable or None, default=None
        Train on random variations of the images, their views. See `FineTuneClassifier`.
    n_views : int or None, default=4
        Number of views of each image. Epoch e uses view e modulo `n_views`; each view passes
        through the trunk once and is cached. None: a new view in each epoch, never cached.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous call, not the pretrained ones.
    cross_fit : int or None, default=None
        Number of folds of `fit_transform`. The embedding of each image comes from a network that
        was trained on the other folds, so it does not depend on the image's target. None: from the
        network that was trained on all images.
    random_state : int, RandomState or None, default=None
        Seed of all random numbers. Torch's global generator does not change.
    callbacks : list, default=None
        Callbacks of skorch, or (name, callback) pairs. `GradualUnfreezing` adds one stage after the
        other; a `skorch.callbacks.LRScheduler` replaces the schedule of the learning rates.
    net_params : dict, default=None
        Further arguments of `skorch.NeuralNet`. They override the other parameters.
    preprocessing : "fast", Preprocessing, callable or None, default=None
        None: the preprocessing of the weights. ``"fast"``: nearly the same, faster for large JPEG
        files. `Preprocessing` changes the geometry. Or a function from a PIL image to a tensor.
    image_size : int or (int, int), default=None
        Side, or (height, width), in pixels, of the network's input. None: the size of its training.
    reader : ImageReader, default=None
        Conversion of the entries of X to images. None: ``ImageReader()``.
    device : str, default="auto"
        ``"auto"``: a GPU if there is one.
    precision : {"float32", "bfloat16", "float16", "auto"}, default="float32"
        Type in which the frozen stages compute. Trained parameters are float32; with
        ``"bfloat16"``, or if ``"auto"`` chooses it, their products are computed in bfloat16 (mixed
        precision).
    n_jobs : int, default=None
        Number of threads that read images and compute the frozen stages. None: as many as PyTorch
        uses.
    cache : bool, path or FeatureStore, default=True
        Where the rows of the trunk are cached, as in `PretrainedFeatureExtractor`. A search over
        learning rates, heads and folds then runs the trunk once for each image, and a search over
        depths at most once for each depth; `precompute` needs one pass for all depths.
    on_error : {"raise", "nan"}, default="raise"
        Treatment of unreadable images. ``"raise"``: the first one raises an `ImageError` with row
        and file. ``"nan"``: `fit` and `score` leave them and their weights out; `predict` returns
        `target_mean_` for them, so that every scorer works. One `ImageWarning` names all of them.
    verbose : int, default=0
        1 shows progress bars, 2 skorch's table of epochs.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The net that predicts. Changes of it are not saved.
    history_ : list of dict
        One record for each epoch; empty if the linear probe is the model.
    trained_state_ : dict of str to ndarray
        The tensors that training has changed, by name; the arrays are read-only.
    target_mean_, target_scale_ : ndarray of shape (n_outputs_,)
        Mean and standard deviation of the training targets.
    target_ndim_ : int
        Number of axes of y in `fit`.
    backbone_digest_ : str
        Digest of the backbone, which is compared when a saved estimator predicts.
    C_ : float or None
        `C` of the linear probe, given or chosen. None: the head does not start at a probe.
    head_digest_ : str or None
        Digest of the code and settings of a user's head, which is compared likewise; None for
        ``"linear"`` and ``"mlp"``.
    image_size_ : (int, int) or None
        Height and width of the network's input; None: those of the images.
    trained_stages_ : list of int
        Positions, from 0 at the input, of the stages that `unfreeze_depth` selected in `fit`.
    n_channels_ : int or None
        Number of channels of an image if each passes alone; None: images pass as a whole.
    layer_widths_ : list of int
        Number of columns of each layer that the head reads.
    n_embedding_, n_outputs_ : int
        Numbers of inputs and outputs of the head.
    seed_ : int
        The seed that was drawn from `random_state`.
    failures_ : list of Failure
        Row, path and reason of each unreadable image of the last call (of `fit`, `predict` or
        `score`), a table for ``DataFrame(failures_)``.
    n_features_in_ : int
        Number of columns of X; only if X has columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X; only if all of them are strings.

    See Also
    --------
    FineTuneClassifier : Classifier with the same method, which it explains.

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

    @fitting
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the tail and the head.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `PretrainedFeatureExtractor.fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.
        groups : array-like of shape (n_images,), default=None
            Groups of the images, such as patients: early stopping and ``C="auto"`` do not separate
            them. With metadata routing, ``set_fit_request(groups=True)`` lets a search pass them.

        Returns
        -------
        self : FineTuneRegressor
            The fitted regressor.

        Raises
        ------
        InputError, ImageError, BackboneError, DivergenceError, KeyboardInterrupt
            As in `FineTuneClassifier.fit`.
        """
        tasks = FitTasks(self, X, y, sample_weight, groups)
        prepared = self._prepared(X, y, sample_weight)
        return self._fit_rows(*prepared, tasks, check_groups(groups, len(prepared[0])))

    @fitting
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on some images, starting at the current state.

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

        Raises
        ------
        InputError, ImageError, BackboneError, DivergenceError
            As in `fit`.
        """
        images, first = self._next_images(X)
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
            As many columns as y in `fit`. With ``on_error="nan"``, `target_mean_` for unreadable
            images.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        InputError, ImageError
            If X is invalid, or an image is unreadable and ``on_error="raise"``.
        WeightsError
            If the backbone is not that of `fit`.
        """
        return self._decided(self._predicted(X))

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
        if self._continues():
            check_continued(self)
        images = self._images(X, reset=not self._continues())
        targets, weights = self._checked(images, y, sample_weight)
        # A warm start keeps the scale of the targets in the first call.
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
        # Mean and scale are those of the readable images.
        columns = targets * self.target_scale_ + self.target_mean_
        self.target_mean_, self.target_scale_ = standardization(columns, weights)
        return self._standardized(columns)

    def _learn_prior(
        self, targets: AnyArray, weights: AnyArray | None, *, more: bool = False
    ) -> None:
        """Do nothing: the prior is `target_mean_`."""

    def _prior(self) -> FloatArray:
        return np.zeros(self.n_outputs_)

    def _standardized(self, targets: AnyArray) -> AnyArray:
        columns = targets.reshape(len(targets), -1)
        if columns.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y has {columns.shape[1]} targets for each image, and the estimator was fitted to "
                f"{self.n_outputs_}. Pass as many, or make a new estimator."
            )
        standard: AnyArray = (columns - self.target_mean_) / self.target_scale_
        return standard

    def _probe(self, rows: StartRows, widths: Sequence[int]) -> LinearModel:
        return regressor_probe(self, rows, widths)
