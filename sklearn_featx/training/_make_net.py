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
from skorch.callbacks import Callback, GradientNormClipping
from skorch.dataset import ValidSplit
from skorch.utils import noop
from torch import nn

from .._messages import shown
from ._callbacks import BestWeights, GradualUnfreezing, StepSchedule
from ._dataset import RowsDataset
from ._module import TailAndHead
from ._net import FineTuneNet
from ._optimizer import OptimizerSpec, ScheduleName, resolve_optimizer

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
    backbone_lr: float,
    layer_decay: float,
    weight_decay: float,
    max_epochs: int,
    batch_size: int,
    optimizer: OptimizerSpec = "adamw",
    schedule: ScheduleName = "cosine",
    grad_clip: float | None = None,
    label_smoothing: float = 0.0,
    gradual_unfreezing: bool = False,
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
    backbone_lr : float
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
    schedule : {"cosine", "constant"}, default="cosine"
        How the learning rates go over the steps of a fit, of which the first tenth is a warm-up.
        With a skorch `LRScheduler` of your own in `callbacks`, ``{"callbacks__schedule": None}`` in
        `net_params` leaves the rates to it.
    grad_clip : float, default=None
        Largest norm of the gradient; not clipped if None.
    label_smoothing : float, default=0.0
        Share of the target that is spread over all classes; classification only.
    gradual_unfreezing : bool, default=False
        Train the head in the first epoch, and one more stage in each epoch after it.
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
        skorch callbacks, or (name, callback) pairs, beside the net's own.
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
        If `optimizer` or a key of `net_params` is unknown, or labels that are not exclusive are to
        be smoothed.
    """
    own_callbacks = _callbacks(schedule, grad_clip)
    if gradual_unfreezing:
        own_callbacks.append(("gradual_unfreezing", GradualUnfreezing()))
    stopping = [("early_stopping", _early_stopping(n_iter_no_change))] if early_stopping else []
    settings: dict[str, Any] = {
        "lr": lr,
        "backbone_lr": backbone_lr,
        "layer_decay": layer_decay,
        "weight_decay": weight_decay,
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "iterator_train__shuffle": True,
        "train_split": _split(task, validation_fraction, random_state) if early_stopping else None,
        "random_state": random_state,
        "device": device,
        # Stopping interrupts the epoch's callbacks: it comes after the user's.
        "callbacks": [*own_callbacks, *_checked_callbacks(callbacks), *stopping],
        "show_progress": verbose == 1,
        "verbose": max(0, verbose - 1),
    }
    settings |= _criterion(task, label_smoothing) | _optimizer(optimizer)
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


def _callbacks(schedule: ScheduleName, grad_clip: float | None) -> list[tuple[str, Any]]:
    callbacks: list[tuple[str, Any]] = [("schedule", StepSchedule(schedule))]
    if grad_clip is not None:
        callbacks.append(("gradient_clipping", GradientNormClipping(grad_clip)))
    return callbacks


def _early_stopping(patience: int) -> BestWeights:
    return BestWeights(patience=patience, load_best=True, sink=noop)


def _split(task: Task, fraction: float, random_state: int) -> ValidSplit:
    return ValidSplit(fraction, stratified=task == "classification", random_state=random_state)


def _criterion(task: Task, label_smoothing: float) -> dict[str, Any]:
    settings: dict[str, Any] = {"criterion": _CRITERIA[task], "criterion__reduction": "none"}
    if label_smoothing and task != "classification":
        raise ValueError(
            f"label_smoothing={label_smoothing:g} spreads a share over exclusive classes: there "
            "are none here. Leave it at 0"
        )
    if task == "classification":
        settings["criterion__label_smoothing"] = label_smoothing
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
