"""The skorch net that trains a tail and a head.

It extends `skorch.NeuralNet` by parameter groups with a learning rate for each depth, row weights
in the loss, seeds that do not change global generators, an error when training diverges, and
batches that are computed in chunks on a CPU. `net_params` sets any argument of `skorch.NeuralNet`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from skorch.dataset import unpack_data
from skorch.exceptions import SkorchTrainingImpossibleError
from skorch.history import History
from skorch.utils import to_device, to_tensor
from torch import nn
from torch.utils.data import Dataset, Subset

from .._graphs import plain_new_tensors
from .._progress import Progress
from .._typing import AnyArray
from ..exceptions import DivergenceError
from ._bags import BagParts
from ._dataset import Batch, RowsDataset, TrainingBatch, as_is, chunks, first_part, of_rows
from ._interrupts import noticed_interrupts
from ._layout import in_channels_last, prefers_channels_last, use_channels_last
from ._module import (
    TailAndHead,
    freeze_statistics,
    named_trained_parameters,
    needs_batch_statistics,
)
from ._net_params import check_callback_names, naming_net_params
from ._optimizer import parameter_groups
from ._random import Draws, derive_seed
from ._row_losses import row_losses
from ._split_errors import split_error

# The minimum size of a chunk on a CPU, in rows and in numbers: a few rows with large feature maps
# stay in the cache; small rows are so many that the overhead of calls and of folded norms is
# negligible.
CPU_MIN_ROWS, CPU_MIN_NUMBERS = 16, 2**18
# Seed streams of one random_state: 0 for initial weights, 1 for prediction, 2 + n for epoch n.
INITIAL_STREAM, PREDICT_STREAM, FIRST_EPOCH_STREAM = range(3)
# Callback methods within a step, which may draw random numbers under the lock of the step. Between
# steps, callbacks may wait for other threads and must not hold that lock.
_IN_A_STEP = ("on_batch_begin", "on_grad_computed")


class _StoppedByCallback(KeyboardInterrupt):
    """The `KeyboardInterrupt` by which a skorch callback ends the training after an epoch."""


class FineTuneNet(NeuralNet):
    """A skorch net over a `TailAndHead`, fitted on a `RowsDataset`.

    Its module is in eval mode outside of training, so that threads can share the net for
    prediction.

    Parameters
    ----------
    module : callable
        Returns a new `TailAndHead`.
    *args : tuple
        Arguments of `skorch.NeuralNet`. The criterion must return one loss for each row
        (`reduction="none"`).
    backbone_lr_ratio : float, default=0.1
        Learning rate of the last stage, as a multiple of `lr`.
    layer_decay : float, default=1.0
        Factor for each additional stage between a stage and the head.
    weight_decay : float, default=0.0
        Weight decay of weight matrices and kernels.
    micro_batch_size : int, "auto" or None, default="auto"
        Number of rows in a chunk; the gradients of the chunks are accumulated. "auto": for feature
        maps and tokens on a CPU, at least 16 rows and at least 2**18 numbers; otherwise whole
        batches. None: whole batches. Batch normalization that needs the statistics of the batch
        always gets whole batches.
    random_state : int, default=0
        Seed of initial weights, row order and dropout.
    show_progress : bool, default=False
        Whether a progress bar counts the rows.
    **kwargs : dict
        Arguments of `skorch.NeuralNet`.
    """

    # Number of steps of the current fit; 0 for continued training, which has no planned end.
    planned_steps_ = 0
    planned_ = False
    interrupted_ = False
    shuffler_: torch.Generator | None = None
    progress_: Progress | None = None
    draws_: Draws | None = None
    released_ = False
    # The arguments that the user has set by `net_params`.
    given_: Mapping[str, Any] = MappingProxyType({})
    # Whether prediction draws random numbers; None: unknown.
    predicts_at_random_: bool | None = None
    # Whether several threads may predict concurrently; None: unknown.
    reentrant_: bool | None = None

    def __init__(
        self,
        module: Callable[[], TailAndHead],
        *args: Any,
        backbone_lr_ratio: float = 0.1,
        layer_decay: float = 1.0,
        weight_decay: float = 0.0,
        micro_batch_size: int | Literal["auto"] | None = "auto",
        random_state: int = 0,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> None:
        self.backbone_lr_ratio = backbone_lr_ratio
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.micro_batch_size = micro_batch_size
        self.random_state = random_state
        self.show_progress = show_progress
        super().__init__(module, *args, **kwargs)

    # Building

    @plain_new_tensors()
    def initialize(self) -> "FineTuneNet":
        """Build module, optimizer and callbacks, seeded, without changing torch's global state."""
        with self.draws(INITIAL_STREAM).active():
            super().initialize()
        check_callback_names(self.given_, set(dict(self.callbacks_)))
        if any(key.startswith("iterator") for key in self.given_):
            with naming_net_params(self.given_):
                row = RowsDataset(np.zeros((1, 1)), np.zeros(1))
                self.get_iterator(row, training=True), self.get_iterator(row)
        self._set_training(False)
        return self

    def initialize_criterion(self) -> "FineTuneNet":
        """Build the criterion; an error names `net_params`."""
        with naming_net_params(self.given_):
            super().initialize_criterion()
        return self

    def initialize_callbacks(self) -> "FineTuneNet":
        """Build the callbacks; an error names `net_params`."""
        with naming_net_params(self.given_):
            super().initialize_callbacks()
        return self

    def initialize_module(self) -> "FineTuneNet":
        """Build the module, with convolution kernels in channels_last memory format if it can."""
        super().initialize_module()
        self.channels_last_ = prefers_channels_last(self.module_)
        if self.channels_last_:
            use_channels_last(self.module_)
        return self

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> "FineTuneNet":
        """Group the trained parameters by depth, unless `optimizer__param_groups` does."""
        arguments = self.get_params_for("optimizer")
        if "param_groups" in arguments:
            super().initialize_optimizer(*args, **kwargs)
            return self
        groups = parameter_groups(
            plain_module(self),
            lr=arguments.pop("lr", self.lr),
            backbone_lr_ratio=self.backbone_lr_ratio,
            layer_decay=self.layer_decay,
            weight_decay=arguments.pop("weight_decay", self.weight_decay),
        )
        with naming_net_params(self.given_):
            self.optimizer_ = self.optimizer(groups, **arguments)
        return self

    def get_all_learnable_params(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Return the trained parameters, without frozen ones."""
        return (
            (name, parameter)
            for name, parameter in super().get_all_learnable_params()
            if parameter.requires_grad
        )

    def get_iterator(self, dataset: Dataset[Any], training: bool = False) -> Any:
        """Return the loader of batches, in seeded order; a `RowsDataset` returns whole batches."""
        prefix = "iterator_train" if training else "iterator_valid"
        # Without a generator, a DataLoader would draw its base seed from torch's global generator.
        added: dict[str, Any] = {"generator": self.shuffler_ or torch.Generator()}
        if isinstance(_whole(dataset), RowsDataset):
            added["collate_fn"] = as_is
        given = self.get_params_for(prefix)
        batch_size = given.pop("batch_size", self.batch_size)
        batch_size = len(dataset) if batch_size == -1 else batch_size  # type: ignore[arg-type]
        return getattr(self, prefix)(dataset, **{"batch_size": batch_size, **added, **given})

    def get_split_datasets(
        self, X: Any, y: Any = None, **fit_params: Any
    ) -> tuple[Dataset[Any], Dataset[Any] | None]:
        """Hold out validation rows in a planned fit; continued training uses all rows.

        The validation loss is that of the dataset's `for_validation`.
        """
        if not self.planned_:
            return self.get_dataset(X, y), None
        if getattr(X, "groups", None) is not None:
            fit_params = {"groups": X.groups, **fit_params}
        try:
            split: tuple[Dataset[Any], Dataset[Any] | None]
            # A stratified split needs the targets, which the dataset contains.
            split = super().get_split_datasets(X, X.targets if y is None else y, **fit_params)
        except ValueError as error:
            targets = X.targets if y is None else y
            raise split_error(self.train_split, targets, fit_params.get("groups")) from error
        train, valid = split
        foreign = valid is not None and not isinstance(_whole(valid), RowsDataset)
        if foreign and isinstance(X, RowsDataset):
            raise ValueError(
                "net_params: train_split holds out a dataset of its own, and the net reads rows of "
                "the trunk. Fit with these images in X, and with train_split=ValidSplit("
                "PredefinedSplit(test_fold)) of skorch and scikit-learn."
            )
        if isinstance(valid, Subset) and isinstance(valid.dataset, RowsDataset):
            valid = Subset(valid.dataset.for_validation(), valid.indices)
        return train, valid

    # Training

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> "FineTuneNet":
        """Initialize the net and train it for `max_epochs`."""
        self.planned_ = True
        try:
            super().fit(X, y, **fit_params)
        finally:
            self.planned_ = False
        return self

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any
    ) -> "FineTuneNet":
        """Continue training; `interrupted_` is True if Ctrl-C ended it."""
        self.check_training_readiness()
        self.interrupted_ = False
        with noticed_interrupts() as interrupts:
            super().partial_fit(X, y, classes, **fit_params)
        # Including an interrupt that skorch has taken for a callback's request to stop.
        self.interrupted_ |= interrupts.any
        self._set_training(False)
        # The last step may have diverged, and no loss was computed after it.
        for name, parameter in named_trained_parameters(self.module_):
            if not torch.isfinite(parameter).all():
                raise self._divergence(f"the parameter {name!r} is NaN or infinite")
        return self

    @plain_new_tensors()
    def fit_loop(
        self, X: Any, y: Any = None, epochs: int | None = None, **fit_params: Any
    ) -> "FineTuneNet":
        """Train for some epochs, without changing torch's global random state."""
        epochs = self.max_epochs if epochs is None else epochs
        self.planned_epochs_ = epochs
        self.classes_ = np.unique(X.targets)
        self.shuffler_ = torch.Generator()
        bar = Progress(len(X) * epochs, verbose=int(self.show_progress), description="training")
        self.draws_ = self.draws(PREDICT_STREAM)
        with bar as self.progress_:
            try:
                super().fit_loop(X, y, epochs, **fit_params)
            except _StoppedByCallback:
                raise
            except KeyboardInterrupt:
                # skorch ends the training without a record of the interrupt.
                self.interrupted_ = True
                raise
            finally:
                self.shuffler_ = self.progress_ = self.draws_ = None
        return self

    def draws(self, stream: int) -> Draws:
        """Return the random numbers of one stream, on the net's device."""
        return Draws(derive_seed(self.random_state, stream), self.device or "cpu")

    def _drawing(self) -> AbstractContextManager[None]:
        """Context manager in which torch draws the random numbers of the current training."""
        return nullcontext() if self.draws_ is None else self.draws_.active()

    def on_epoch_begin(
        self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        """Seed an epoch by its number, so that continued training repeats no random numbers."""
        seed = derive_seed(self.random_state, FIRST_EPOCH_STREAM + len(self.history))
        if self.draws_ is not None:
            self.draws_.reseed(seed)
        if self.shuffler_ is not None:
            self.shuffler_.manual_seed(seed)
        rows = _whole(dataset_train)
        if isinstance(rows, RowsDataset):
            rows.start_epoch(len(self.history))
        steps = len(self.get_iterator(dataset_train, training=True))
        self.planned_steps_ = self.planned_epochs_ * steps if self.planned_ else 0
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kwargs)

    def on_batch_end(
        self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Count the rows of the batch on the progress bar."""
        super().on_batch_end(net, batch, training, **kwargs)
        if self.progress_ is not None:
            self.progress_.update(len(batch[1]))

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call the callbacks with batches of (rows, targets), since scores expect no weights."""
        batch = cb_kwargs.get("batch")
        if batch is not None:
            rows, (targets, _) = batch
            cb_kwargs["batch"] = (rows, targets)
        block = self._drawing() if method_name in _IN_A_STEP else nullcontext()
        try:
            with block:
                super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt as error:
            if method_name == "on_epoch_end":
                raise _StoppedByCallback from error
            raise

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Run the module on rows, on the net's device and in its memory format."""
        rows = self.on_device(x)
        if isinstance(rows, BagParts):
            # skorch converts only types that it knows.
            return self.module_(rows, **fit_params)
        return super().infer(rows, **fit_params)

    def on_device(self, rows: Any) -> Any:
        """Move rows, or their parts, to the net's device, in the net's memory format."""
        arranged = in_channels_last if self.channels_last_ else as_is
        return of_rows(rows, lambda part: arranged(to_tensor(part, device=self.device)))

    def get_loss(
        self,
        y_pred: torch.Tensor,
        y_true: Any,
        X: Any = None,  # noqa: ARG002 (skorch's interface)
        training: bool = False,  # noqa: ARG002
    ) -> torch.Tensor:
        """Return the mean of weight times loss over the rows, with the mean loss over outputs."""
        targets, weights = to_device(y_true, self.device)
        if targets.is_floating_point():
            # Not every version of PyTorch converts targets of another precision than the outputs.
            targets = targets.reshape(y_pred.shape).to(y_pred.dtype)
        losses = row_losses(self.criterion_, y_pred, targets)
        mean: torch.Tensor = (weights * losses).mean()
        return mean

    def train_step(self, batch: TrainingBatch, **fit_params: Any) -> Any:
        """Perform one step; only optimizers that are not torch's may draw random numbers."""
        of_torch = type(self.optimizer_).__module__.startswith("torch.optim")
        with nullcontext() if of_torch else self._drawing():
            return super().train_step(batch, **fit_params)

    def train_step_single(self, batch: TrainingBatch, **fit_params: Any) -> dict[str, torch.Tensor]:
        """Compute loss and gradients of a batch, in chunks if that is equivalent and faster."""
        self._set_training(True)
        rows, (targets, weights) = unpack_data(batch)
        n_rows = len(weights)
        if n_rows == 1:
            # One row has no statistics of its own: this step uses the running ones.
            freeze_statistics(self.module_)
        steps = [
            self._chunk_step(chunk, n_rows, **fit_params)
            for chunk in chunks(rows, targets, weights, self._chunk_size(rows, n_rows))
        ]
        return {
            "loss": sum((step["loss"] for step in steps), torch.zeros((), device=self.device)),
            "y_pred": torch.cat([step["y_pred"] for step in steps]),
        }

    def _chunk_step(
        self, chunk: TrainingBatch, n_rows: int, **fit_params: Any
    ) -> dict[str, torch.Tensor]:
        """Accumulate the gradients of a chunk of rows."""
        rows, target = chunk
        # The backward pass draws no random numbers: trainings in several threads overlap there.
        with self._drawing():
            y_pred = self.infer(rows, **fit_params)
            # The mean over the batch is the sum of the chunks' means, by their shares of the rows.
            loss = self.get_loss(y_pred, target, X=rows, training=True) * (len(y_pred) / n_rows)
        self._check_finite(loss)
        torch.autograd.backward(loss)
        return {"loss": loss.detach(), "y_pred": y_pred.detach()}

    def _chunk_size(self, rows: Batch, n_rows: int) -> int:
        """Return the number of rows in a chunk; of bags, those with as many images."""
        images = first_part(rows)
        size = self.micro_batch_size
        if size == "auto":
            on_cpu = torch.device(self.device or "cpu").type == "cpu"
            # Vectors are small: chunks would only add calls.
            size = _cpu_rows(images[0].numel()) if on_cpu and images.ndim > 2 else None
        if size is None or needs_batch_statistics(self.module_):
            return n_rows
        return max(1, size * n_rows // len(images))

    def validation_step(self, batch: TrainingBatch, **fit_params: Any) -> dict[str, torch.Tensor]:
        """Compute the loss of a validation batch; raise an error if it is NaN or infinite."""
        with self._drawing():
            step: dict[str, torch.Tensor] = super().validation_step(batch, **fit_params)
        self._check_finite(step["loss"])
        return step

    def _check_finite(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise self._divergence(f"the loss is {loss.item()}")

    def _divergence(self, what: str) -> DivergenceError:
        ratio = self.backbone_lr_ratio
        return DivergenceError(
            f"training diverged in epoch {len(self.history)}: {what}. The learning rate is "
            f"lr={self.lr:g} for the head and {self.lr * ratio:g} for the backbone "
            f"(backbone_lr_ratio={ratio:g}). Try a lower lr or backbone_lr_ratio, clip the "
            "gradients (callbacks=[skorch.callbacks.GradientNormClipping(1.0)]), or look for rows "
            "or targets of extreme size"
        )

    # After training

    def check_training_readiness(self) -> None:
        """Raise an error if the net was released."""
        if self.released_:
            raise SkorchTrainingImpossibleError(
                "this net belongs to a fitted estimator and only predicts: it has no optimizer. "
                "Call fit or partial_fit of the estimator"
            )

    def release(self) -> None:
        """Delete the parts that only training needs: optimizer, gradients, callbacks."""
        self._set_training(False)
        for _, callback in list[Any](vars(self)["callbacks_"]):
            if isinstance(callback, LRScheduler):
                # A user's scheduler would also keep the optimizer.
                callback.initialize()
        self.callbacks, self.callbacks_ = list[Any](), list[Any]()
        self.optimizer_ = None
        for parameter in self.module_.parameters():
            parameter.grad = None
        self.released_ = True

    def restore_history(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Continue the history of an earlier net, in the format of `plain_history`."""
        self.history_ = History(dict(epoch) for epoch in epochs)

    # scikit-learn's view of the net, for scoring callbacks

    def predict(self, X: Any) -> AnyArray:
        """Predict class codes, a 0 or 1 for each label, or values, depending on the criterion."""
        outputs = self.predict_proba(X)
        if isinstance(self.criterion_, nn.CrossEntropyLoss):
            return np.asarray(outputs.argmax(1))
        if isinstance(self.criterion_, nn.BCEWithLogitsLoss):
            return np.asarray(outputs > 0.5).astype(int)
        return np.asarray(outputs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        regression = self.criterion is nn.MSELoss
        tags.estimator_type = "regressor" if regression else "classifier"
        return tags


def plain_module(net: FineTuneNet) -> TailAndHead:
    """Return the module of a net, without the wrapper of `torch.compile`.

    Parameters
    ----------
    net : FineTuneNet
        An initialized net.

    Returns
    -------
    module : TailAndHead
        The module, with the parameter names of the state.
    """
    return next(part for part in net.module_.modules() if isinstance(part, TailAndHead))


def _cpu_rows(n_numbers: int) -> int:
    """Return the number of rows in a chunk on a CPU, from the size of a row."""
    return max(CPU_MIN_ROWS, CPU_MIN_NUMBERS // max(1, n_numbers))


def _whole(dataset: Any) -> Any:
    """Return the dataset that nested subsets are taken from."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset
