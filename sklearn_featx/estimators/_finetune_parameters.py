"""Parameters of the fine-tuners: defaults and constraints."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from .._messages import shown
from .._sklearn_compat import HasMethods, Interval, StrOptions
from .._typing import Granularity, OnError, Precision, UnfreezeDepth, Weights
from ..flow import Cache
from ..training import NET_PREFIXES, AugmentSpec, Head, OptimizerSpec
from ._head_layers import HeadLayers
from ._image_estimator import ImageEstimator
from ._image_reader import ImageReader
from ._preprocessing import PreprocessingOption

_AT_LEAST_ZERO = Interval(Real, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_COUNT = Interval(Integral, 1, None, closed="left")


class FineTuneParameters(ImageEstimator):
    """Base of the fine-tuners with their shared parameters, which the subclasses document."""

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 # scikit-learn's own form
        **ImageEstimator._parameter_constraints,
        "unfreeze_depth": [
            Interval(Integral, 0, None, closed="left"),
            StrOptions({"all"}),
            tuple,
            list,
        ],
        "granularity": [StrOptions({"stage", "block"}), list],
        "head": [StrOptions({"linear", "mlp"}), HasMethods(["forward"]), callable],
        "head_layers": [StrOptions({"all", "last"})],
        "head_init": [StrOptions({"probe", "random"})],
        "C": [_POSITIVE, StrOptions({"auto"})],
        "lr": [_POSITIVE],
        "backbone_lr_ratio": [_AT_LEAST_ZERO],
        "weight_decay": [_AT_LEAST_ZERO],
        "max_epochs": [_COUNT],
        "batch_size": [_COUNT],
        "optimizer": [StrOptions({"adamw", "adam", "sgd"}), type],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [_COUNT],
        "batch_norm": [StrOptions({"frozen", "train"})],
        "augment": [StrOptions({"light", "strong"}), callable, None],
        "n_views": [_COUNT, None],
        "warm_start": ["boolean"],
        "cross_fit": [Interval(Integral, 2, None, closed="left"), None],
        "random_state": ["random_state"],
        "callbacks": [list, tuple, None],
        "net_params": [dict, None],
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
        self.backbone = backbone
        self.weights = weights
        self.unfreeze_depth = unfreeze_depth
        self.granularity = granularity
        self.head = head
        self.head_layers = head_layers
        self.head_init = head_init
        self.C = C
        self.lr = lr
        self.backbone_lr_ratio = backbone_lr_ratio
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.batch_norm = batch_norm
        self.augment = augment
        self.n_views = n_views
        self.warm_start = warm_start
        self.cross_fit = cross_fit
        self.random_state = random_state
        self.callbacks = callbacks
        self.net_params = net_params
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.reader = reader
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.cache = cache
        self.on_error = on_error
        self.verbose = verbose

    def _refuse_names(self, params: Mapping[str, Any]) -> None:
        """Refuse arguments of skorch's net, which `net_params` sets."""
        for name, value in params.items():
            prefix, dunder, _ = name.partition("__")
            if dunder and prefix in NET_PREFIXES:
                raise ValueError(
                    f"{name}={shown(value)}: arguments of skorch's net are keys of net_params. Set "
                    f"net_params={{{name!r}: {shown(value)}}}, in a grid a list of such dicts."
                )
