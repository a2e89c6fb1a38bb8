"""Base of FineTuneClassifier and FineTuneRegressor: images to rows, training, prediction.

The state of a fitted estimator consists of builtins and arrays. `trained_state_` contains the
tensors that training has changed; the net is built from them and the backbone. Networks are neither
copied nor saved, so clones, copies and pickles are small.
"""

import copy
import math
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._messages import one_call
from .._sklearn_compat import CallbackSupportMixin
from .._typing import AnyArray, FloatArray
from ..backbones import Backbone, get_backbone, warn_of_classifier
from ..engines import resolve_device, resolve_precision, type_name, warn_if_emulated
from ..exceptions import ImageError
from ..flow import (
    Failure,
    FixedViews,
    FreshViews,
    Recipe,
    Rows,
    Tap,
    activations,
    as_table,
    decide,
    first_shapes,
    held_or_stored,
    joined,
    open_store,
    readable,
    refuse_none_readable,
    renumber,
    renumbered,
    row_keys,
    rows_of_views,
    slices,
    warn_of,
)
from ..images import Bags, ImageCollection, bag_poolings
from ..training import (
    FineTuneNet,
    LinearModel,
    RowsDataset,
    continue_fit,
    fix_split,
    make_augment,
    make_net,
    plain_history,
    predict_rows,
    start_head,
    trained_state,
)
from ._channels import n_channels_of
from ._finetune_net import (
    NETS,
    ModulePlan,
    Start,
    State,
    keep_predicting,
    keep_training,
    predicting_net,
    probes,
    take_training,
)
from ._finetune_parameters import FineTuneParameters
from ._finetune_probe import StartRows, starts_at_probe, taken
from ._fit_tasks import FitTasks
from ._head_layers import embedding_taps, fitting_taps, net_taps, side_by_side
from ._prior import filled
from ._tuned_embedding import TunedEmbedding
from ._unchanged import check_same_head, check_unchanged

# Fixed, so that predictions do not depend on whether the rows are cached or computed.
_ROWS_PER_PREDICTION = 32


class FineTuneEstimator(
    TunedEmbedding, CallbackSupportMixin, FineTuneParameters, metaclass=ABCMeta
):
    """Base of the fine-tuners. Subclasses validate y, and convert outputs to predictions."""

    _task: Literal["classification", "multilabel", "regression"]
    _not_saved = frozenset({NETS})

    @property
    def net_(self) -> FineTuneNet:
        """The skorch net that predicts; changes of it are not saved."""
        check_is_fitted(self, "trained_state_")
        return self._predicting_net(self._backbone())

    @abstractmethod
    def _probe(self, rows: StartRows, widths: Sequence[int]) -> LinearModel:
        """Linear probe on rows; `widths` are the numbers of columns of the layers."""

    def _shared_probe(self, rows: StartRows) -> LinearModel:
        """Return the probe; it is solved once for all depths and learning rates of a search."""
        widths = tuple(self.layer_widths_)
        key = (self._task, *rows.key(self.C), widths, self.n_outputs_, self.C)
        return probes.get(key, lambda: self._probe(rows, widths))

    # Images to rows

    def _backbone(self) -> Backbone:
        size = self._image_size()
        return get_backbone(self.backbone, self.weights, self.granularity, image_size=size)

    def _trained(self, backbone: Backbone) -> range:
        """Positions of the trained stages, counted from the input."""
        return backbone.trained_stages(self.unfreeze_depth)

    def _split(self, backbone: Backbone) -> int:
        return self._trained(backbone).start

    def _recipe(self, backbone: Backbone, taps: Sequence[Tap]) -> Recipe:
        """Recipe with some taps."""
        return Recipe(
            backbone,
            tuple(taps),
            self._preprocess(backbone),
            self.device,
            self.precision,
            trains_on_bags=True,
        )

    def _net_taps(self, backbone: Backbone) -> tuple[Tap, ...]:
        """Taps of the rows that the net reads."""
        return net_taps(self._split(backbone), len(backbone.stages), self.head_layers)

    def _fitting_taps(self, backbone: Backbone) -> tuple[Tap, ...]:
        """Taps of the rows that the net reads, then of the other layers that a head starts from."""
        if not isinstance(self.head, str):
            return self._net_taps(backbone)
        return fitting_taps(self._split(backbone), len(backbone.stages), self.head_layers)

    def _rows(self, images: ImageCollection, backbone: Backbone) -> tuple[Rows, list[ImageError]]:
        """Rows that the net reads, and the unreadable images."""
        recipe = self._recipe(backbone, self._net_taps(backbone))
        taps, errors = activations(images, recipe, self._settings())
        refuse_none_readable(len(images), errors)
        return joined(taps), errors

    def _recipes(self, images: ImageCollection) -> tuple[Recipe, Recipe]:
        backbone = self._backbone()
        return self._training_recipe(backbone), self._predicting_recipe(backbone, images)

    def _training_rows(
        self, images: ImageCollection, backbone: Backbone
    ) -> tuple[Rows, AnyArray | None, list[ImageError]]:
        """Rows that the net reads, the embeddings if the head needs them, unreadable images."""
        recipe, embeddings = self._training_recipe(backbone), None
        rows, errors = held_or_stored(images, recipe, self._settings())
        refuse_none_readable(len(images), errors)
        found = dict(zip(recipe.taps, rows, strict=True))
        if isinstance(self.head, str):
            layers = embedding_taps(len(backbone.stages), self.head_layers)
            embeddings, parts = side_by_side([found.pop(tap) for tap in layers])
            found.update(zip(layers, parts, strict=True))
        return joined([found[tap] for tap in self._net_taps(backbone)]), embeddings, errors

    def _training_recipe(self, backbone: Backbone) -> Recipe:
        """Recipe of all rows that training needs; those that the net reads come first."""
        return self._recipe(backbone, self._fitting_taps(backbone))

    def _predicting_recipe(self, backbone: Backbone, images: ImageCollection) -> Recipe:
        """Recipe of prediction; the taps that the net reads come first.

        If rows are cached, a pass for a prediction also computes the rows that training needs:
        another fold of a search trains on the same image, which then needs no second pass.
        """
        training = self._training_recipe(backbone)
        needed = training.only(self._net_taps(backbone))
        if not needed.network_taps:
            # Prediction needs no pass, so it makes none for rows that only training reads.
            return needed
        store = open_store(self.cache)
        decision = decide(training, training.row_shapes(images), len(images), store)
        return training if decision.cached else needed

    def _started_net(self, plan: ModulePlan, rows: StartRows, dataset: RowsDataset) -> FineTuneNet:
        """Return a net whose named head has a start: scale of the embeddings, and the probe.

        Rows that early stopping holds out are no part of it.
        """
        net = self._make_net(plan)
        if not plan.is_probe:
            rows = rows.some(fix_split(net, dataset))
        model = self._shared_probe(rows) if starts_at_probe(self) else None
        self.C_ = None if model is None else model.C
        start = self._start_at(rows.embeddings, rows.weights, model)
        net.module = partial(plan.make, start)
        return net

    def _start_at(
        self, embeddings: AnyArray, weights: AnyArray | None, model: LinearModel | None = None
    ) -> Start:
        return partial(
            start_head,
            embeddings=embeddings,
            weights=weights,
            model=model,
            widths=self.layer_widths_,
        )

    # The net

    def _plan(self, backbone: Backbone) -> ModulePlan:
        """Everything that the module is made from."""
        trained, device = self._trained(backbone), resolve_device(self.device)
        is_probe = self._is_probe(backbone)
        return ModulePlan(
            backbone,
            trained.start,
            tuple(k in trained for k in range(trained.start, len(backbone.stages))),
            self.head,
            self.n_embedding_,
            self.n_outputs_,
            self.seed_,
            is_probe=is_probe,
            reads_all=self.head_layers == "all",
            bag_poolings=bag_poolings(self._reader().bag_pooling),
            n_channels=getattr(self, "n_channels_", None) or 1,
            batch_norm=self.batch_norm,
            # Training in float16 would need a scaled loss.
            mixed_precision=type_name(resolve_precision(self.precision, device)) == "bfloat16",
            # The probe is computed in float64, which MPS lacks, and is too small for a GPU.
            device="cpu" if is_probe else device,
            float_levels=not callable(self.preprocessing),
        )

    def _predicting_net(self, backbone: Backbone) -> FineTuneNet:
        plan, state = self._plan(backbone), self.trained_state_
        check_unchanged(self, plan.backbone)
        return predicting_net(
            self, plan, state, lambda: self._make_net(plan, state=state), self.history_
        )

    def _make_net(
        self, plan: ModulePlan, start: Start | None = None, state: State | None = None
    ) -> FineTuneNet:
        """Return a net with a started head, or with the state of an earlier training."""
        if state is None:
            self.head_digest_ = plan.head_digest()
            self.C_ = None
        else:
            check_same_head(self, plan.head_digest())
        return make_net(
            partial(plan.make, start, state),
            task=self._task,
            lr=self.lr,
            backbone_lr_ratio=self.backbone_lr_ratio,
            weight_decay=self.weight_decay,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            early_stopping=self.early_stopping,
            validation_fraction=self.validation_fraction,
            n_iter_no_change=self.n_iter_no_change,
            random_state=self.seed_,
            device=plan.device,
            callbacks=self.callbacks,
            net_params=self.net_params,
            verbose=int(self.verbose),
        )

    # Fit and predict

    def _fit_rows(
        self,
        images: ImageCollection,
        targets: AnyArray,
        sample_weight: AnyArray | None,
        tasks: FitTasks | None = None,
        groups: AnyArray | None = None,
    ) -> Self:
        backbone = self._start(images)
        weights = self._weighed(targets, sample_weight)
        # Rows of weight 0 would take places in batches, and count in batch statistics.
        counted = np.arange(len(images)) if weights is None else np.flatnonzero(weights > 0)
        with renumbered(counted.tolist()):
            rows, embeddings, errors = self._training_rows(images.take(counted), backbone)
        left = self._left(counted, errors, len(images))
        counted = counted[left]
        targets = targets[counted]
        # Balanced class weights depend on the readable images.
        weights = self._weighed(targets, taken(sample_weight, counted))
        if errors:
            targets = self._targets_left(targets, weights)
        self._learn_prior(targets, weights)
        plan, groups = self._plan(backbone), taken(groups, counted)
        if self._continues() and not plan.is_probe:
            net = self._make_net(plan, state=self.trained_state_)
        elif embeddings is None:
            net = self._make_net(plan)
        else:
            start = StartRows(embeddings, targets, weights, groups)
            net = self._started_net(plan, start, RowsDataset(rows, targets, weights, None, groups))
        if tasks is not None:
            tasks.begin(net, 0 if plan.is_probe else net.max_epochs)
        if plan.is_probe:
            net.initialize()
        else:
            with renumbered(counted.tolist()):
                seen = self._seen_rows(images.take(counted), rows, backbone)
                net.fit(RowsDataset(seen, targets, weights, rows, groups), None)
        self._learn(net)
        keep_predicting(self, plan, self.trained_state_, net)
        if tasks is not None:
            tasks.end()
        return self._unless_interrupted(net)

    def _left(
        self, counted: AnyArray, errors: Sequence[ImageError], n_images: int
    ) -> slice | AnyArray:
        """Return the positions of the readable images; record and warn of the others."""
        self.failures_ = as_table(renumber(errors, counted))
        # The caller of `fit` is behind three methods, `fitting` and scikit-learn's wrapper.
        warn_of(self.failures_, n_images, "they are left out of the training.", stacklevel=7)
        return readable(len(counted), errors) if errors else slice(None)

    @abstractmethod
    def _targets_left(
        self, targets: AnyArray, weights: AnyArray | None, *, partial: bool = False
    ) -> AnyArray:
        """Validate or adapt the targets of a fit that leaves some images out."""

    def _weighed(self, targets: AnyArray, sample_weight: AnyArray | None) -> AnyArray | None:  # noqa: ARG002
        """Weights of the rows in training."""
        return sample_weight

    @abstractmethod
    def _learn_prior(
        self, targets: AnyArray, weights: AnyArray | None, *, more: bool = False
    ) -> None:
        """Learn the prior from targets; `more` adds them to those of earlier calls."""

    def _continues(self) -> bool:
        """Whether `fit` continues an earlier training."""
        return bool(self.warm_start) and hasattr(self, "trained_state_")

    def _seen_rows(
        self, images: ImageCollection, rows: Rows, backbone: Backbone
    ) -> Rows | FixedViews | FreshViews:
        """Rows that training reads: those of the images, or of their views."""
        if self.augment is None:
            return rows
        return rows_of_views(
            images,
            self._keys(images),
            make_augment(self.augment),
            self._recipe(backbone, self._net_taps(backbone)),
            self._settings(),
            seed=self.seed_,
            n_views=self.n_views,
        )

    def _keys(self, images: ImageCollection) -> list[str]:
        """Digest of each image, also of each one in a bag: the seed of its views."""
        if isinstance(images, Bags):
            images = images.images
        return row_keys(images, open_store(self.cache), n_jobs=self.n_jobs)

    def _start(self, images: ImageCollection) -> Backbone:
        """Validate the backbone, and set the attributes that are known before training."""
        backbone = self._backbone()
        warn_of_classifier(backbone)
        device = resolve_device(self.device)
        warn_if_emulated(resolve_precision(self.precision, device), device)
        # First: an untraceable network may keep state when it runs.
        self.backbone_digest_ = backbone.digest(len(backbone.stages))
        # The shapes check that the network accepts the images, before all of them are read.
        self.image_size_ = self._input_size(backbone)
        self.trained_stages_ = list(self._trained(backbone))
        taps = embedding_taps(len(backbone.stages), self.head_layers)
        needed = tuple(dict.fromkeys([*self._fitting_taps(backbone), *taps]))
        found = first_shapes(images, self._recipe(backbone, needed), self._settings())
        shapes = [found[needed.index(tap)] for tap in taps]
        self.n_channels_ = n_channels_of(images)
        self.layer_widths_ = [math.prod(shape) for shape in self._of_rows(shapes)]
        self.n_embedding_ = sum(self.layer_widths_)
        self.seed_ = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return backbone

    def _is_probe(self, backbone: Backbone) -> bool:
        """Whether the linear probe is the whole model, without anything to train."""
        return starts_at_probe(self) and self._split(backbone) == len(backbone.stages)

    def _learn(self, net: FineTuneNet) -> None:
        """Take over the state of a net, also after a training that Ctrl-C has ended."""
        # The record of an unfinished epoch has no loss.
        finished = [e for e in net.history if not net.interrupted_ or "train_loss" in e]
        self.history_ = plain_history(finished)
        # Last: with it, an interrupted estimator is fitted.
        self.trained_state_ = trained_state(net)

    def _unless_interrupted(self, net: FineTuneNet) -> Self:
        if net.interrupted_:
            # The estimator is usable, but a search must stop.
            raise KeyboardInterrupt
        return self

    def _next_images(self, X: Any) -> tuple[ImageCollection, bool]:
        """Images of a call of `partial_fit`, and whether it is the first one."""
        first = not hasattr(self, "trained_state_")
        return self._images(X, reset=first), first

    def _continue_fit(
        self, images: ImageCollection, targets: AnyArray, sample_weight: AnyArray | None
    ) -> Self:
        """Train for one epoch, starting at the current state."""
        fitted = hasattr(self, "trained_state_")
        rows: Rows
        embeddings: AnyArray | None = None
        if fitted:
            backbone = self._backbone()
            rows, errors = self._rows(images, backbone)
        else:
            backbone = self._start(images)
            rows, embeddings, errors = self._training_rows(images, backbone)
        left = self._left(np.arange(len(images)), errors, len(images))
        images, targets = images.take(left), targets[left]
        weights = self._weighed(targets, taken(sample_weight, left))
        plan = self._plan(backbone)
        net = self._net_to_train(plan) if fitted else None
        if net is None:
            targets = self._targets_left(targets, weights, partial=True) if errors else targets
            start = None if embeddings is None else self._start_at(embeddings, weights)
            net = self._make_net(plan, start).initialize()
        seen = self._seen_rows(images, rows, backbone)
        continue_fit(net, RowsDataset(seen, targets, weights), 1)
        self._learn(net)
        # After the training: images of a call that fails are not counted.
        self._learn_prior(targets, weights, more=fitted)
        keep_training(self, plan, self.trained_state_, net)
        return self._unless_interrupted(net)

    def _net_to_train(self, plan: ModulePlan) -> FineTuneNet:
        """Return a net at the end of the last training, which is not used for prediction."""
        check_unchanged(self, plan.backbone)
        net = take_training(self, plan, self.trained_state_)
        fresh = self._make_net(plan, state=self.trained_state_)
        if net is None:
            net = fresh.initialize()
            net.restore_history(self.history_)
        else:
            net.callbacks = fresh.callbacks
            net.initialize_callbacks()
        return net

    def _outputs(self, X: Any) -> tuple[FloatArray, list[Failure]]:
        """Logits or standardized values of images, the prior for unreadable ones."""
        check_is_fitted(self, "trained_state_")
        images = self._images(X, reset=False)
        outputs, failures = self._computed(images, predict_rows, self.n_outputs_)
        if failures:
            outputs = filled(outputs, len(images), failures, self._prior())
        return outputs, failures

    @one_call()
    def _computed(
        self,
        images: ImageCollection,
        function: Callable[[FineTuneNet, Any, int], AnyArray],
        n_columns: int,
    ) -> tuple[FloatArray, list[Failure]]:
        """Apply a function of net and rows to the readable images."""
        backbone = self._backbone()
        net = self._predicting_net(backbone)
        recipe = self._predicting_recipe(backbone, images)
        n_parts = len(self._net_taps(backbone))
        errors: list[ImageError] = []
        parts = []
        for taps, failed in slices(images, recipe, self._settings(), _ROWS_PER_PREDICTION):
            errors += failed
            if taps:
                parts.append(function(net, joined(taps[:n_parts]), _ROWS_PER_PREDICTION))
        results: FloatArray = np.concatenate(parts or [np.empty((0, n_columns))])
        failures = as_table(errors)
        self._note(failures)
        return results.astype(np.float64), failures

    @abstractmethod
    def _prior(self) -> FloatArray:
        """Output without evidence, of shape (n_outputs,)."""

    def __sklearn_clone__(self) -> Self:
        # `clone` must not see a transform whose `get_params` has another meaning.
        plain = copy.copy(self)
        plain.augment = None
        cloned: Self = super(FineTuneEstimator, plain).__sklearn_clone__()
        cloned.augment = copy.deepcopy(self.augment)
        return cloned
