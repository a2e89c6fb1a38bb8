"""From plain settings to a net: what the estimators call.

`make_net` decides (criterion, optimizer, callbacks, split); `FineTuneNet` does. Whatever is in
`net_params` has the last word.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import ValidSplit
from skorch.utils import noop
from torch import nn

from .._messages import shown
from ._callbacks import BestWeights, StepSchedule
from ._dataset import RowsDataset
from ._module import TailAndHead
from ._net import FineTuneNet
from ._optimizer import OptimizerSpec, resolve_optimizer

Task = Literal["classification", "multilabel", "regression"]

_CRITERIA: dict[str, type[nn.Module]] = {
    "classification": nn.CrossEntropyLoss,
    "multilabel": nn.BCEWithLogitsLoss,
    "regression": nn.MSELoss,
}
_PREFIXES = (
    "module",
    "criterion",
    "optimizer",
    "iterator_train",
    "iterator_valid",
    "dataset",
    "callbacks",
    "compile",
)


def make_net(
    module_factory: Callable[[], TailAndHead],
    *,
    task: Task,
    lr: float,
    backbone_lr_ratio: float,
    layer_decay: float,
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
        Returns a new `TailAndHead` each time; called by `net.initialize()`, on seeded generators.
    task : {"classification", "multilabel", "regression"}
        Cross entropy on codes, binary cross entropy on rows of 0 and 1, or the mean squared error.
    lr : float
        Learning rate of the head.
    backbone_lr_ratio : float
        Learning rate of the last stage, as a multiple of `lr`.
    layer_decay : float
        Factor for each further stage away from the head.
    weight_decay : float
        Weight decay of weight matrices and kernels; norms, biases and tokens have none.
    max_epochs : int
        Number of epochs of `net.fit`.
    batch_size : int
        Rows in a step; -1 takes all of them.
    optimizer : {"adamw", "adam", "sgd"} or class, default="adamw"
        See `resolve_optimizer`.
    early_stopping : bool, default=False
        Set rows aside, stop when their loss no longer falls, and restore the best weights.
    validation_fraction : float, default=0.1
        Share of the rows that `early_stopping` sets aside, stratified by class.
    n_iter_no_change : int, default=5
        Epochs without improvement before `early_stopping` stops.
    random_state : int, default=0
        Seed of first weights, row order, dropout and the split.
    device : str or torch.device, default="cpu"
        Where to train.
    callbacks : sequence, default=None
        skorch callbacks, or (name, callback) pairs. The learning rates follow a `StepSchedule`
        named "schedule", unless an `LRScheduler`, or a callback of this name, is among them.
    net_params : mapping, default=None
        Arguments of `FineTuneNet` and `skorch.NeuralNet`, dunder names included; they replace what
        the other parameters say ("callbacks" then replaces the net's own, too).
    verbose : int, default=0
        1 shows a progress bar, 2 skorch's table of epochs.

    Returns
    -------
    net : FineTuneNet
        Not yet initialized.

    Raises
    ------
    ValueError
        If `optimizer` or a key of `net_params` is unknown.
    """
    stopping = [("early_stopping", _early_stopping(n_iter_no_change))] if early_stopping else []
    settings: dict[str, Any] = {
        "lr": lr,
        "backbone_lr_ratio": backbone_lr_ratio,
        "layer_decay": layer_decay,
        "weight_decay": weight_decay,
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "iterator_train__shuffle": True,
        "train_split": _split(task, validation_fraction, random_state) if early_stopping else None,
        "random_state": random_state,
        "device": device,
        # Stopping interrupts the epoch's callbacks: it comes after the user's.
        "callbacks": [*_with_schedule(_checked_callbacks(callbacks)), *stopping],
        "show_progress": verbose == 1,
        "verbose": max(0, verbose - 1),
    }
    settings |= _criterion(task) | _optimizer(optimizer)
    given = _checked_net_params(net_params or {})
    for name in ("criterion", "optimizer"):
        if name in given:
            # The arguments of another class are not for this one.
            settings = {key: settings[key] for key in settings if not key.startswith(f"{name}__")}
            settings |= {"criterion__reduction": "none"} if name == "criterion" else {}
    return FineTuneNet(**{"module": module_factory, **settings, **given})


def continue_fit(net: FineTuneNet, dataset: RowsDataset, epochs: int) -> FineTuneNet:
    """Train on for some epochs, at the base learning rates and on every row.

    The end of such training is not known, so there is no schedule, and no early stopping.

    Parameters
    ----------
    net : FineTuneNet
        Initialized here if it is not yet.
    dataset : RowsDataset
        The rows, which may be new ones.
    epochs : int
        How many.

    Returns
    -------
    net : FineTuneNet
        The net that was given.

    Raises
    ------
    DivergenceError
        If the loss or a parameter is no longer finite.
    """
    return net.partial_fit(dataset, dataset.targets, epochs=epochs)


def _with_schedule(callbacks: list[Any]) -> list[Any]:
    """Put the net's own schedule before the callbacks, unless they have another one."""
    entries = [entry if isinstance(entry, tuple) else ("", entry) for entry in callbacks]
    if any(name == "schedule" or _is_scheduler(callback) for name, callback in entries):
        return callbacks
    return [("schedule", StepSchedule()), *callbacks]


def _is_scheduler(callback: Any) -> bool:
    return isinstance(callback, LRScheduler) or callback is LRScheduler


def _early_stopping(patience: int) -> BestWeights:
    return BestWeights(patience=patience, load_best=True, sink=noop)


def _split(task: Task, fraction: float, random_state: int) -> ValidSplit:
    return ValidSplit(fraction, stratified=task == "classification", random_state=random_state)


def _criterion(task: Task) -> dict[str, Any]:
    settings: dict[str, Any] = {"criterion": _CRITERIA[task], "criterion__reduction": "none"}
    if task == "multilabel":
        # skorch's own choice adds an axis with the probability of each label's absence.
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


def _checked_net_params(net_params: Mapping[str, Any]) -> dict[str, Any]:
    known = _argument_names(NeuralNet) | _argument_names(FineTuneNet)
    for key in map(str, net_params):
        prefix, dunder, name = key.partition("__")
        if key in known or (dunder and name and prefix in _PREFIXES):
            continue
        near = difflib.get_close_matches(key, [*known, *(f"{p}__{name}" for p in _PREFIXES)], 3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"net_params: unknown key {shown(key)}, no argument of skorch's nets.{hint}"
        )
    return dict(net_params)


def _argument_names(cls: type) -> set[str]:
    arguments = inspect.signature(cls).parameters.values()
    return {a.name for a in arguments if a.kind in (a.POSITIONAL_OR_KEYWORD, a.KEYWORD_ONLY)}
