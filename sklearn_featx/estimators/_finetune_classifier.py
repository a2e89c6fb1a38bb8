"""FineTuneClassifier: classification by a network whose last stages are trained."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score

from .._sklearn_compat import StrOptions
from .._typing import AnyArray, FloatArray, Granularity, OnError, Precision, UnfreezeDepth, Weights
from ..flow import Cache
from ..images import ImageCollection
from ..training import AugmentSpec, Head, LinearModel, OptimizerSpec
from ._class_scores import ClassScores
from ._finetune_base import FineTuneEstimator
from ._finetune_probe import StartRows, classifier_probe
from ._fit_tasks import FitTasks
from ._fitting import fitting
from ._head_layers import HeadLayers
from ._image_reader import ImageReader
from ._preprocessing import PreprocessingOption
from ._prior import ClassShares, PriorForUnreadable
from ._targets import (
    check_classes,
    check_groups,
    check_labels,
    check_two_classes,
    codes_and_weights,
    is_indicator,
    refuse_balanced,
    refuse_other_classes,
    row_weights,
)
from ._unchanged import check_continued


class FineTuneClassifier(ClassScores, PriorForUnreadable, ClassifierMixin, FineTuneEstimator):
    """Classify images with a pretrained network whose last stages are trained.

    The last `unfreeze_depth` stages of the backbone, the tail, are trained with a new head. The
    stages before them, the trunk, are frozen: each image passes through them once, and training
    runs on their output.

    1. Images are preprocessed as the weights require, and pass through the trunk in inference mode.
    2. The head starts at the L2-regularized logistic regression on the frozen embeddings (LP-FT
       [1]_). With ``unfreeze_depth=0``, this is the model.
    3. Tail and head are trained together. Learning rates rise over the first tenth of the steps,
       then fall along a cosine [3]_.

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
        depths: ``(1, 3)`` is equivalent to 3, ``(2, 3)`` keeps the last stage frozen (surgical
        fine-tuning [2]_).
    granularity : {"stage", "block"} or list of str, default="stage"
        Definition of a stage: the architecture's stages, each residual or transformer block, or
        the parts between the named modules.
    head : {"linear", "mlp"}, nn.Module or callable, default="linear"
        The head: linear; one hidden layer; a module, which is copied; or a function
        ``(n_inputs, n_outputs) -> nn.Module``.
    head_layers : {"all", "last"}, default="last"
        Input of the head. ``"last"``: the pooled output of the last stage. ``"all"``: this output
        and the means of 3 x 3 cells of the activations of all earlier stages, concatenated [5]_.
    head_init : {"probe", "random"}, default="probe"
        Start of a linear head. Other heads, and `partial_fit`, start at random.
    C : float or "auto", default="auto"
        Inverse penalty of the probe, as in `LogisticRegression`, on embeddings scaled to a mean
        variance of 1. ``"auto"``: chosen by cross-validation.
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
        Train on random variations of the images, their views. ``"light"``: a crop of 70 to 100 % of
        the area, mirrored with probability 0.5; ``"strong"``: a crop of 25 to 100 %, mirrored with
        probability 0.5, and one operation of TrivialAugmentWide [4]_. Or a transform of
        torchvision's v2, or any function from a uint8 tensor (channels, height, width) to such a
        tensor.
    n_views : int or None, default=4
        Number of views of each image. Epoch e uses view e modulo `n_views`; each view passes
        through the trunk once and is cached. None: a new view in each epoch, never cached.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous call, not the pretrained ones.
    cross_fit : int or None, default=None
        Number of folds of `fit_transform`. The embedding of each image comes from a network that
        was trained on the other folds, so it does not depend on the image's target. None: from the
        network that was trained on all images.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn. Must be None for a multilabel target.
    random_state : int, RandomState or None, default=None
        Seed of all random numbers. Torch's global generator does not change.
    callbacks : list, default=None
        Callbacks of skorch, or (name, callback) pairs. `GradualUnfreezing` adds one stage after the
        other; a `skorch.callbacks.LRScheduler` replaces the schedule of the learning rates.
    net_params : dict, default=None
        Further arguments of `skorch.NeuralNet`, such as ``{"criterion__label_smoothing": 0.1}``.
        They override the other parameters.
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
        and file. ``"nan"``: `fit` and `score` leave them and their weights out; `predict_proba`
        returns `class_prior_` for them, `predict` the most frequent class, so that every scorer
        works. One `ImageWarning` names all of them.
    verbose : int, default=0
        1 shows progress bars, 2 skorch's table of epochs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted labels; the numbers of the columns if y was a multilabel indicator matrix.
    class_prior_ : ndarray of shape (n_classes,)
        Share of each class in the training data, weighted as in training; with `partial_fit`, in
        all of its calls.
    weight_sum_ : float
        Sum of the weights of the images in `class_prior_`.
    multilabel_ : bool
        Whether y was a multilabel indicator matrix.
    net_ : skorch.NeuralNet
        The net that predicts. Changes of it are not saved.
    history_ : list of dict
        One record for each epoch; empty if the linear probe is the model.
    trained_state_ : dict of str to ndarray
        The tensors that training has changed, by name; the arrays are read-only.
    backbone_digest_ : str
        Digest of the backbone, which is compared when a saved estimator predicts.
    C_ : float, tuple of float or None
        `C` of the linear probe, given or chosen; for a multilabel target, one per label. None:
        the head does not start at a probe.
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
        Number of columns of each pooled layer that the head reads.
    n_embedding_, n_outputs_ : int
        Numbers of inputs and outputs of the head.
    seed_ : int
        The seed that was drawn from `random_state`.
    failures_ : list of Failure
        Row, path and reason of each unreadable image of the last call (of `fit`, `predict`,
        `predict_proba` or `score`), a table for ``DataFrame(failures_)``.
    n_features_in_ : int
        Number of columns of X; only if X has columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X; only if all of them are strings.

    See Also
    --------
    FineTuneRegressor : Regressor with the same method.
    unfreeze_depths : The depths of a backbone, for a parameter grid.

    References
    ----------
    .. [1] A. Kumar et al., "Fine-tuning can distort pretrained features and underperform
       out-of-distribution", ICLR 2022.
    .. [2] Y. Lee et al., "Surgical fine-tuning improves adaptation to distribution shifts",
       ICLR 2023.
    .. [3] I. Loshchilov, F. Hutter, "SGDR: Stochastic gradient descent with warm restarts",
       ICLR 2017.
    .. [4] S. Müller, F. Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data
       augmentation", ICCV 2021.
    .. [5] U. Evci, V. Dumoulin, H. Larochelle, M. C. Mozer, "Head2Toe: Utilizing intermediate
       representations for better transfer learning", ICML 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_featx import FineTuneClassifier, ImageReader
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> reader = ImageReader(image_shape=(8, 8), value_range=(0, 16))
    >>> clf = FineTuneClassifier(reader=reader, image_size=32, unfreeze_depth=0)
    >>> clf.fit(X[:40], y[:40]).predict(X[40:44]).shape
    (4,)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 # scikit-learn's own form
        **FineTuneEstimator._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        backbone: Any = "efficientnet_lite0",
        *,
        # the network
        weights: Weights = "DEFAULT",
        unfreeze_depth: UnfreezeDepth = 1,
        granularity: Granularity = "stage",
        # the head
        head: Head = "linear",
        head_layers: HeadLayers = "last",
        head_init: Literal["probe", "random"] = "probe",
        C: float | Literal["auto"] = "auto",
        # training
        lr: float = 1e-3,
        backbone_lr_ratio: float = 0.1,
        weight_decay: float = 0.01,
        max_epochs: int = 10,
        batch_size: int = 32,
        optimizer: OptimizerSpec = "adamw",
        # stopping
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        # normalization and views
        batch_norm: Literal["frozen", "train"] = "frozen",
        augment: AugmentSpec | None = None,
        n_views: int | None = 4,
        # continued training, folds, weights
        warm_start: bool = False,
        cross_fit: int | None = None,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        # randomness, skorch
        random_state: int | np.random.RandomState | None = None,
        callbacks: Sequence[Any] | None = None,
        net_params: Mapping[str, Any] | None = None,
        # images
        preprocessing: PreprocessingOption = None,
        image_size: int | tuple[int, int] | None = None,
        reader: ImageReader | None = None,
        # computation
        device: str = "auto",
        precision: Precision = "float32",
        n_jobs: int | None = None,
        cache: Cache = True,
        # unreadable images; progress
        on_error: OnError = "raise",
        verbose: int = 0,
    ) -> None:
        super().__init__(
            backbone,
            weights=weights,
            unfreeze_depth=unfreeze_depth,
            granularity=granularity,
            head=head,
            head_layers=head_layers,
            head_init=head_init,
            C=C,
            lr=lr,
            backbone_lr_ratio=backbone_lr_ratio,
            weight_decay=weight_decay,
            max_epochs=max_epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            batch_norm=batch_norm,
            augment=augment,
            n_views=n_views,
            warm_start=warm_start,
            cross_fit=cross_fit,
            random_state=random_state,
            callbacks=callbacks,
            net_params=net_params,
            preprocessing=preprocessing,
            image_size=image_size,
            reader=reader,
            device=device,
            precision=precision,
            n_jobs=n_jobs,
            cache=cache,
            on_error=on_error,
            verbose=verbose,
        )
        self.class_weight = class_weight

    class_prior_: FloatArray
    weight_sum_: float
    _metric = staticmethod(accuracy_score)

    @property
    def _task(self) -> Literal["classification", "multilabel"]:  # type: ignore[override]
        return "multilabel" if self.multilabel_ else "classification"

    @fitting
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the tail and the head.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `PretrainedFeatureExtractor.fit`.
        y : array-like of shape (n_images,) or (n_images, n_classes)
            Labels of any type; or a multilabel indicator matrix of 0 and 1.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.
        groups : array-like of shape (n_images,), default=None
            Groups of the images, such as patients: early stopping and ``C="auto"`` do not separate
            them. With metadata routing, ``set_fit_request(groups=True)`` lets a search pass them.

        Returns
        -------
        self : FineTuneClassifier
            The fitted classifier.

        Raises
        ------
        InputError, ImageError
            If X is invalid, or an image is unreadable and ``on_error="raise"``.
        BackboneError
            If the backbone, its weights or the depth does not exist.
        DivergenceError
            If a loss or parameter is NaN or infinite.
        KeyboardInterrupt
            If Ctrl-C ends the training. The estimator is then fitted, with the weights at that
            moment, or with the best weights if `early_stopping` is True. Before training, Ctrl-C
            leaves the estimator as it was.
        """
        tasks = FitTasks(self, X, y, sample_weight, groups)
        prepared = self._prepared(X, y, sample_weight)
        return self._fit_rows(*prepared, tasks, check_groups(groups, len(prepared[0])))

    @fitting
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on some images, starting at the current state.

        The first call starts with a random head, since its images may not contain every class.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_classes)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All labels of all calls. Required in the first call, except for multilabel targets;
            later calls may repeat them, in any order.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.

        Returns
        -------
        self : FineTuneClassifier
            The classifier.

        Raises
        ------
        InputError, ImageError, BackboneError, DivergenceError, ValueError
            As in `fit`, and if `class_weight` is ``"balanced"``, which needs all images.
        """
        refuse_balanced(self.class_weight)
        images, first = self._next_images(X)
        labels = check_labels(y, name=type(self).__name__, n_rows=len(images))
        if first:
            if classes is None and not is_indicator(labels):
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._set_classes(labels if is_indicator(labels) else check_classes(classes))
        elif classes is not None and not self.multilabel_:
            refuse_other_classes(classes, self.classes_)
        return self._continue_fit(images, *codes_and_weights(self, labels, sample_weight))

    def predict(self, X: Any) -> AnyArray:
        """Predict the most probable label.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_images,) or (n_images, n_classes)
            Elements of `classes_`. For multilabel targets, 1 for each label whose probability is
            above 0.5. With ``on_error="nan"``, the most frequent class for unreadable images.

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

    def _decided(self, outputs: FloatArray) -> AnyArray:
        if self.multilabel_:
            return (outputs > 0).astype(np.int64)
        labels: AnyArray = self.classes_[outputs.argmax(axis=1)]
        return labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _prepared(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[ImageCollection, AnyArray, AnyArray | None]:
        if self._continues():
            check_continued(self)
        images = self._images(X, reset=not self._continues())
        labels = check_labels(y, name=type(self).__name__, n_rows=len(images))
        if self._continues():
            self._check_same_classes(labels)
        self._set_classes(labels)
        codes, weights = codes_and_weights(self, labels, sample_weight)
        if not self.multilabel_:
            check_two_classes(codes, self._weighed(codes, weights), self.classes_)
        return images, codes, weights

    def _targets_left(
        self, targets: AnyArray, weights: AnyArray | None, *, partial: bool = False
    ) -> AnyArray:
        if not (self.multilabel_ or partial):
            n_lost = len(self.failures_)
            check_two_classes(targets, weights, self.classes_, n_left_out=n_lost)
        return targets

    def _learn_prior(
        self, targets: AnyArray, weights: AnyArray | None, *, more: bool = False
    ) -> None:
        shares = ClassShares.of(targets, weights, self.n_outputs_)
        if more:
            shares = ClassShares(self.class_prior_, self.weight_sum_).joined(shares)
        self.class_prior_, self.weight_sum_ = shares

    def _prior(self) -> FloatArray:
        return ClassShares(self.class_prior_, self.weight_sum_).logits(multilabel=self.multilabel_)

    def _set_classes(self, labels: AnyArray) -> None:
        self.multilabel_ = is_indicator(labels)
        self.classes_ = np.arange(labels.shape[1]) if self.multilabel_ else np.unique(labels)
        self.n_outputs_ = len(self.classes_)

    def _check_same_classes(self, labels: AnyArray) -> None:
        classes = np.arange(labels.shape[1]) if is_indicator(labels) else np.unique(labels)
        if is_indicator(labels) != self.multilabel_ or not np.array_equal(classes, self.classes_):
            raise ValueError(
                "warm_start=True continues only with the classes of the previous fit, "
                f"{self.classes_.tolist()}; y has {classes.tolist()}. Set warm_start=False."
            )

    def _weighed(self, targets: AnyArray, sample_weight: AnyArray | None) -> AnyArray | None:
        if self.multilabel_:
            return sample_weight
        return row_weights(
            sample_weight,
            len(targets),
            codes=targets,
            classes=self.classes_,
            class_weight=self.class_weight,
        )

    def _probe(self, rows: StartRows, widths: Sequence[int]) -> LinearModel:
        return classifier_probe(self, rows, widths)
