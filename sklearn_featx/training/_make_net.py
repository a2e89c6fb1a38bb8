"""Construction of a net from plain settings, for the estimators.

`make_net` chooses criterion, optimizer, callbacks and validation split. `net_params` overrides each
choice.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.utils import noop
from torch import nn

from .._messages import shown
from ._callbacks import BestWeights, StepSchedule
from ._dataset import RowsDataset
from ._module import TailAndHead
from ._net import FineTuneNet
from ._net_params import check_net_params
from ._optimizer import OptimizerSpec, resolve_optimizer
from ._validation_split import HoldOut

Task = Literal["classification", "multilabel", "regression"]

_CRITERIA: dict[str, type[nn.Module]] = {
    "classification": nn.CrossEntropyLoss,
    "multilabel": nn.BCEWithLogitsLoss,
    "regression": nn.MSELoss,
}


def make_net(
    module_factory: Callable[[], TailAndHead],
    *,
    task: Task,
    lr: float,
    backbone_lr_ratio: float,
    weight_decay: float,
    max_epochs: int,
    batch_size: int,
    optimizer: OptimizerSpec = "adamw",
    early_stopping: bool = False,
    validation_fraction: float = 0.1,
    n_iter_no_change: int = 5,
    random_state: int = 0,
    device: str | torch.device = "cpu",
    callbacks: Sequence[Any] | None = None,
    net_params: Mapping[str, Any] | None = None,
    verbose: int = 0,
) -> FineTuneNet:
    """Build a skorch net from plain settings.

    Parameters
    ----------
    module_factory : callable
        Returns a new `TailAndHead`; called by `net.initialize()` with seeded generators.
    task : {"classification", "multilabel", "regression"}
        Cross entropy of codes, binary cross entropy of rows of 0 and 1, or mean squared error.
    lr : float
        Learning rate of the head.
    backbone_lr_ratio : float
        Learning rate of the last stage, as a multiple of `lr`.
    weight_decay : float
        Weight decay of weight matrices and kernels; norms, biases and tokens have none.
    max_epochs : int
        Number of epochs of `net.fit`.
    batch_size : int
        Number of rows in a step; -1 for all rows.
    optimizer : {"adamw", "adam", "sgd"} or class, default="adamw"
        See `resolve_optimizer`.
    early_stopping : bool, default=False
        Whether to hold out rows, stop when their loss no longer decreases, and restore the best
        weights.
    validation_fraction : float, default=0.1
        Share of the rows that `early_stopping` holds out, stratified by class; of whole groups if
        the dataset has groups.
    n_iter_no_change : int, default=5
        Epochs without improvement before `early_stopping` stops.
    random_state : int, default=0
        Seed of initial weights, row order, dropout and the split.
    device : str or torch.device, default="cpu"
        The device for training.
    callbacks : sequence, default=None
        skorch callbacks, or (name, callback) pairs. The learning rates follow a `StepSchedule`
        named "schedule", unless an `LRScheduler` or a callback of this name is given.
    net_params : mapping, default=None
        Arguments of `FineTuneNet` and `skorch.NeuralNet`, including dunder names. They override the
        other parameters ("callbacks" also replaces the net's own callbacks).
    verbose : int, default=0
        1 shows a progress bar, 2 skorch's table of epochs.

    Returns
    -------
    net : FineTuneNet
        The net, not yet initialized.

    Raises
    ------
    ValueError
        If `optimizer` or a key of `net_params` is unknown, or a value is invalid.
    """
    stopping = [("early_stopping", _early_stopping(n_iter_no_change))] if early_stopping else []
    settings: dict[str, Any] = {
        "lr": lr,
        "backbone_lr_ratio": backbone_lr_ratio,
        "weight_decay": weight_decay,
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "iterator_train__shuffle": True,
        "train_split": _split(task, validation_fraction, random_state) if early_stopping else None,
        "random_state": random_state,
        "device": device,
        # Early stopping comes last, because it interrupts the epoch's callbacks.
        "callbacks": [*_with_schedule(_checked_callbacks(callbacks)), *stopping],
        "show_progress": verbose == 1,
        "verbose": max(0, verbose - 1),
    }
    settings |= _criterion(task) | _optimizer(optimizer)
    given = check_net_params(net_params or {}, FineTuneNet)
    settings = _overridden(settings, given)
    _refuse_stopping_without_held_out_rows(settings)
    net = FineTuneNet(**{"module": module_factory, **settings})
    net.given_ = given
    return net


def _overridden(settings: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return settings of which the user gave some."""
    if isinstance(given.get("callbacks"), list | tuple):
        _checked_callbacks(given["callbacks"])
    for name in ("criterion", "optimizer"):
        if name in given:
            # The arguments of the default class do not fit another class.
            settings = {key: settings[key] for key in settings if not key.startswith(f"{name}__")}
            settings |= {"criterion__reduction": "none"} if name == "criterion" else {}
    return settings | given


def _refuse_stopping_without_held_out_rows(settings: dict[str, Any]) -> None:
    """Refuse skorch's early stopping by a loss that nothing computes."""
    callbacks = settings["callbacks"]
    for entry in callbacks if isinstance(callbacks, list | tuple) else ():
        callback = entry[-1] if isinstance(entry, tuple) else entry
        if isinstance(callback, type) and issubclass(callback, EarlyStopping):
            callback = callback()
        is_stopping = isinstance(callback, EarlyStopping) and callback.monitor == "valid_loss"
        if is_stopping and settings["train_split"] is None:
            raise ValueError(
                f"callbacks: {type(callback).__name__} watches valid_loss, and no images are held "
                "out for it. Set early_stopping=True, in place of the callback."
            )


def continue_fit(net: FineTuneNet, dataset: RowsDataset, epochs: int) -> FineTuneNet:
    """Continue training for some epochs, at the base learning rates and on all rows.

    Continued training has no known end, so it has neither a schedule nor early stopping.

    Parameters
    ----------
    net : FineTuneNet
        The net; it is initialized if necessary.
    dataset : RowsDataset
        The rows, which may be new ones.
    epochs : int
        Number of epochs.

    Returns
    -------
    net : FineTuneNet
        The same net.

    Raises
    ------
    DivergenceError
        If the loss or a parameter is NaN or infinite.
    """
    return net.partial_fit(dataset, dataset.targets, epochs=epochs)


def _with_schedule(callbacks: list[Any]) -> list[Any]:
    """Add the default schedule before the callbacks, unless they contain another one."""
    entries = [entry if isinstance(entry, tuple) else ("", entry) for entry in callbacks]
    if any(name == "schedule" or _is_scheduler(callback) for name, callback in entries):
        return callbacks
    return [("schedule", StepSchedule()), *callbacks]


def _is_scheduler(callback: Any) -> bool:
    return isinstance(callback, LRScheduler) or callback is LRScheduler


def _early_stopping(patience: int) -> BestWeights:
    return BestWeights(patience=patience, load_best=True, sink=noop)


def _split(task: Task, fraction: float, random_state: int) -> HoldOut:
    return HoldOut(fraction, stratified=task == "classification", random_state=random_state)


def _criterion(task: Task) -> dict[str, Any]:
    settings: dict[str, Any] = {"criterion": _CRITERIA[task], "criterion__reduction": "none"}
    if task == "multilabel":
        # skorch's default would add an axis with the probability of each label's absence.
        settings["predict_nonlinearity"] = torch.sigmoid
    return settings


def _checked_callbacks(callbacks: Sequence[Any] | None) -> list[Any]:
    for entry in callbacks or ():
        callback = entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry
        is_callback = isinstance(callback, Callback) or (
            isinstance(callback, type) and issubclass(callback, Callback)
        )
        if not is_callback and callback is not None:
            raise ValueError(
                f"callbacks: {shown(entry)} is no skorch callback, nor a pair (name, callback)."
            )
    return list(callbacks or ())


def _optimizer(optimizer: OptimizerSpec) -> dict[str, Any]:
    optimizer_class, arguments = resolve_optimizer(optimizer)
    dunder = {f"optimizer__{name}": value for name, value in arguments.items()}
    return {"optimizer": optimizer_class, **dunder}
