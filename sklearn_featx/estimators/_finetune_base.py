"""What FineTuneClassifier and FineTuneRegressor share: parameters, images to rows, the net.

A fitted estimator is builtins and arrays: `trained_state_` holds what training changed, and the net
is rebuilt from it and the named backbone when it is needed. Networks are kept beside the
estimators, never in them, so clones, copies and pickles stay small.
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

from .._digest import digest_array
from .._sklearn_compat import CallbackSupportMixin
from .._typing import AnyArray, FloatArray, Granularity, UnfreezeDepth
from ..backbones import Backbone, get_backbone, warn_of_classifier
from ..engines import resolve_device, resolve_precision, type_name
from ..exceptions import ImageError
from ..flow import (
    Failure,
    FixedViews,
    FreshViews,
    JoinedRows,
    Recipe,
    StoredRows,
    Tap,
    activations,
    as_table,
    choose_preprocess,
    decide,
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
from ..images import ImageCollection
from ..training import (
    FineTuneNet,
    LinearModel,
    RowsDataset,
    continue_fit,
    make_augment,
    make_net,
    plain_history,
    predict_rows,
    start_head,
    trained_state,
)
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
from ._fit_tasks import FitTasks
from ._head_layers import embedding_taps, fitting_taps, net_taps, side_by_side
from ._prior import filled
from ._tuned_embedding import TunedEmbedding

# Fixed, so that predictions do not depend on how the rows came: remembered or computed.
_ROWS_PER_PREDICTION = 32


class FineTuneEstimator(
    TunedEmbedding, CallbackSupportMixin, FineTuneParameters, metaclass=ABCMeta
):
    """What classifier and regressor share: parameters, the way of the images, the net."""

    _task: Literal["classification", "multilabel", "regression"]
    _not_saved = frozenset({NETS})

    @property
    def net_(self) -> FineTuneNet:
        """The skorch net that predicts; its `history` is skorch's own object."""
        check_is_fitted(self, "trained_state_")
        return self._predicting_net(self._backbone())

    @abstractmethod
    def _probe(
        self,
        features: AnyArray,
        targets: AnyArray,
        weights: AnyArray | None,
        widths: Sequence[int],
    ) -> LinearModel:
        """Weight and bias of the linear probe on layers of some widths."""

    def _shared_probe(
        self, features: AnyArray, targets: AnyArray, weights: AnyArray | None
    ) -> LinearModel:
        """Return the probe, solved once for all depths and learning rates of a search."""
        widths = tuple(self.layer_widths_)
        parts = (digest_array(a) for a in (features, targets, weights) if a is not None)
        key = (self._task, *parts, widths, self.n_outputs_, self.C)
        return probes.get(key, lambda: self._probe(features, targets, weights, widths))

    # Images to rows

    def _backbone(self) -> Backbone:
        granularity: Granularity = self.granularity
        return get_backbone(self.backbone, self.weights, granularity, image_size=self.image_size)

    def _trained(self, backbone: Backbone) -> range:
        """Positions of the trained stages, counted from the input."""
        depth: UnfreezeDepth = self.unfreeze_depth
        return backbone.trained_stages(depth)

    def _split(self, backbone: Backbone) -> int:
        return self._trained(backbone).start

    def _recipe(self, backbone: Backbone, taps: Sequence[Tap]) -> Recipe:
        """Recipe whose rows are taken at some taps."""
        preprocess = choose_preprocess(backbone, self.preprocessing, self.image_size)
        return Recipe(backbone, tuple(taps), preprocess, self.device, self.precision)

    def _net_taps(self, backbone: Backbone) -> tuple[Tap, ...]:
        """Taps of what the net reads."""
        return net_taps(self._split(backbone), len(backbone.stages), self.head_layers)

    def _fitting_taps(self, backbone: Backbone) -> tuple[Tap, ...]:
        """Taps of what the net reads, then of what else a named head starts from."""
        if not isinstance(self.head, str):
            return self._net_taps(backbone)
        return fitting_taps(self._split(backbone), len(backbone.stages), self.head_layers)

    def _rows(
        self, images: ImageCollection, backbone: Backbone
    ) -> tuple[AnyArray | StoredRows | JoinedRows, list[ImageError]]:
        """Rows that the net reads, and the images that cannot be read."""
        recipe = self._recipe(backbone, self._net_taps(backbone))
        taps, errors = activations(images, recipe, self._settings())
        refuse_none_readable(len(images), errors)
        return joined(taps), errors

    def _recipes(self, images: ImageCollection) -> tuple[Recipe, Recipe]:
        backbone = self._backbone()
        return self._training_recipe(backbone), self._predicting_recipe(backbone, images)

    def _training_rows(
        self, images: ImageCollection, backbone: Backbone
    ) -> tuple[AnyArray | StoredRows | JoinedRows, AnyArray | None, list[ImageError]]:
        """Rows that the net reads, the embeddings if the head needs them, and failures."""
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
        """Recipe of all rows that training needs, those that the net reads first."""
        return self._recipe(backbone, self._fitting_taps(backbone))

    def _predicting_recipe(self, backbone: Backbone, images: ImageCollection) -> Recipe:
        """Recipe whose first taps are those that the net reads.

        Where rows are cached, a pass for a prediction computes what training needs as well: another
        fold of a search trains on the same image, which then needs no second pass.
        """
        training = self._training_recipe(backbone)
        needed = training.only(self._net_taps(backbone))
        if not needed.network_taps:
            # No image passes the network, and none shall for rows that are not used.
            return needed
        store = open_store(self.cache)
        decision = decide(training, training.row_shapes(images), len(images), store)
        return training if decision.remember else needed

    def _head_start(
        self, embeddings: AnyArray | None, targets: AnyArray, weights: AnyArray | None
    ) -> Start | None:
        """Decide how the head starts: its scale from the embeddings, its weights from the probe."""
        if embeddings is None:
            return None
        model = None
        if self._starts_at_probe():
            model = self._shared_probe(embeddings, targets, weights)
        return self._start_at(embeddings, weights, model)

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

    def _starts_at_probe(self) -> bool:
        return bool(self.head_init == "probe" and self.head == "linear")

    # The net

    def _plan(self, backbone: Backbone) -> ModulePlan:
        """All that the module is made from."""
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
            batch_norm=self.batch_norm,
            # float16 would need its losses scaled.
            mixed_precision=type_name(resolve_precision(self.precision, device)) == "bfloat16",
            # Float64, which MPS lacks, and on embeddings, for which a GPU gains nothing.
            device="cpu" if is_probe else device,
            float_levels=not callable(self.preprocessing),
        )

    def _predicting_net(self, backbone: Backbone) -> FineTuneNet:
        plan, state = self._plan(backbone), self.trained_state_
        plan.check_backbone(self.backbone_digest_)
        return predicting_net(
            self, plan, state, lambda: self._make_net(plan, state=state), self.history_
        )

    def _make_net(
        self, plan: ModulePlan, start: Start | None = None, state: State | None = None
    ) -> FineTuneNet:
        """Return a net that starts as its head does, or where an earlier one ended."""
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
    ) -> Self:
        backbone = self._start(images)
        weights = self._weighed(targets, sample_weight)
        # Rows without weight would still take places in batches and in their statistics.
        counted = np.arange(len(images)) if weights is None else np.flatnonzero(weights > 0)
        with renumbered(counted.tolist()):
            rows, embeddings, errors = self._training_rows(images.take(counted), backbone)
        left = self._left(counted, errors, len(images))
        counted = counted[left]
        targets = targets[counted]
        # Balanced weights are of the images that are trained on.
        weights = self._weighed(targets, _taken(sample_weight, counted))
        if errors:
            targets = self._targets_left(targets, weights)
        self._learn_prior(targets, weights)
        plan = self._plan(backbone)
        if self._continues() and not plan.is_probe:
            net = self._make_net(plan, state=self.trained_state_)
        else:
            start = self._head_start(embeddings, targets, weights)
            net = self._make_net(plan, start)
        if tasks is not None:
            tasks.begin(net, 0 if plan.is_probe else net.max_epochs)
        if plan.is_probe:
            net.initialize()
        else:
            with renumbered(counted.tolist()):
                seen = self._seen_rows(images.take(counted), rows, backbone)
                net.fit(RowsDataset(seen, targets, weights, validation_rows=rows), None)
        self._learn(net)
        keep_predicting(self, plan, self.trained_state_, net)
        if tasks is not None:
            tasks.end()
        return self._unless_interrupted(net)

    def _left(
        self, counted: AnyArray, errors: Sequence[ImageError], n_images: int
    ) -> slice | AnyArray:
        """Places of the images that could be read; the others are noted and warned of."""
        self.failures_ = as_table(renumber(errors, counted))
        # Through three methods and scikit-learn's wrapper of `fit` to its caller.
        warn_of(self.failures_, n_images, "they are left out of the training.", stacklevel=6)
        return readable(len(counted), errors) if errors else slice(None)

    @abstractmethod
    def _targets_left(
        self, targets: AnyArray, weights: AnyArray | None, *, partial: bool = False
    ) -> AnyArray:
        """Check, or adapt, the targets of a fit from which some images are left out."""

    def _weighed(self, targets: AnyArray, sample_weight: AnyArray | None) -> AnyArray | None:  # noqa: ARG002
        """Weights of rows in training."""
        return sample_weight

    @abstractmethod
    def _learn_prior(
        self, targets: AnyArray, weights: AnyArray | None, *, more: bool = False
    ) -> None:
        """Learn the prior from targets, or more of it."""

    def _continues(self) -> bool:
        """Whether `fit` goes on from what an earlier one has learned."""
        return bool(self.warm_start) and hasattr(self, "trained_state_")

    def _seen_rows(
        self, images: ImageCollection, rows: AnyArray | StoredRows | JoinedRows, backbone: Backbone
    ) -> AnyArray | StoredRows | JoinedRows | FixedViews | FreshViews:
        """Rows that training sees: those of the images, or of views of them."""
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
        """Digest of each image, which its views are seeded with."""
        store = open_store(self.cache)
        if store is not None:
            return row_keys(images, store)
        return [images.digest(i) for i in range(len(images))]

    def _start(self, images: ImageCollection) -> Backbone:
        """Set what is known before training."""
        backbone = self._backbone()
        warn_of_classifier(backbone)
        resolve_precision(self.precision, resolve_device(self.device))
        # Checks that the network takes such images, before any of them is read.
        recipe = self._recipe(backbone, embedding_taps(len(backbone.stages), self.head_layers))
        self._split(backbone)
        shapes = recipe.output_shapes(recipe.input_shape(images, self.on_error == "nan"))
        self.layer_widths_ = [math.prod(shape) for shape in shapes]
        self.n_embedding_ = sum(self.layer_widths_)
        self.backbone_digest_ = backbone.digest(len(backbone.stages))
        self.seed_ = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return backbone

    def _is_probe(self, backbone: Backbone) -> bool:
        """Whether the linear probe is the whole model: nothing is left to train."""
        return self._starts_at_probe() and self._split(backbone) == len(backbone.stages)

    def _learn(self, net: FineTuneNet) -> None:
        """Take over what a net has learned, also of a training that Ctrl-C has ended."""
        self.trained_state_ = trained_state(net)
        # The record of an epoch that was not finished has no loss.
        finished = [e for e in net.history if not net.interrupted_ or "train_loss" in e]
        self.history_ = plain_history(finished)

    def _unless_interrupted(self, net: FineTuneNet) -> Self:
        if net.interrupted_:
            # So that a search stops as well; the estimator can be used.
            raise KeyboardInterrupt
        return self

    def _continue_fit(
        self, images: ImageCollection, targets: AnyArray, sample_weight: AnyArray | None
    ) -> Self:
        """Train for one epoch, on from where the net is."""
        fitted = hasattr(self, "trained_state_")
        rows: AnyArray | StoredRows | JoinedRows
        embeddings: AnyArray | None = None
        if fitted:
            backbone = self._backbone()
            rows, errors = self._rows(images, backbone)
        else:
            backbone = self._start(images)
            rows, embeddings, errors = self._training_rows(images, backbone)
        left = self._left(np.arange(len(images)), errors, len(images))
        images, targets = images.take(left), targets[left]
        weights = self._weighed(targets, _taken(sample_weight, left))
        self._learn_prior(targets, weights, more=fitted)
        plan = self._plan(backbone)
        net = self._net_to_train(plan) if fitted else None
        if net is None:
            targets = self._targets_left(targets, weights, partial=True) if errors else targets
            start = None
            if embeddings is not None:
                start = self._start_at(embeddings, weights)
            net = self._make_net(plan, start).initialize()
        seen = self._seen_rows(images, rows, backbone)
        continue_fit(net, RowsDataset(seen, targets, weights), 1)
        self._learn(net)
        keep_training(self, plan, self.trained_state_, net)
        return self._unless_interrupted(net)

    def _net_to_train(self, plan: ModulePlan) -> FineTuneNet:
        """Return a net that nobody predicts with, where the last training has ended."""
        plan.check_backbone(self.backbone_digest_)
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
        """Logits or standardized values of images, the prior's for those that cannot be read."""
        check_is_fitted(self, "trained_state_")
        images = self._images(X, reset=False)
        outputs, failures = self._computed(images, predict_rows, self.n_outputs_)
        if failures:
            outputs = filled(outputs, len(images), failures, self._prior())
        return outputs, failures

    def _computed(
        self,
        images: ImageCollection,
        function: Callable[[FineTuneNet, Any, int], AnyArray],
        n_columns: int,
    ) -> tuple[FloatArray, list[Failure]]:
        """Apply a function of net and rows to the images that can be read."""
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
        if self.on_error == "nan":
            # Assigned whole: with several threads, it is the table of one of their calls.
            self.failures_ = failures
        return results.astype(np.float64), failures

    @abstractmethod
    def _prior(self) -> FloatArray:
        """Output without evidence, of shape (n_outputs,)."""

    def __sklearn_clone__(self) -> Self:
        # Some transforms have a `get_params` that is not scikit-learn's: `clone` must not see them.
        plain = copy.copy(self)
        plain.augment = None
        cloned: Self = super(FineTuneEstimator, plain).__sklearn_clone__()
        cloned.augment = copy.deepcopy(self.augment)
        return cloned


def _taken(weights: AnyArray | None, places: slice | AnyArray) -> AnyArray | None:
    return None if weights is None else weights[places]
