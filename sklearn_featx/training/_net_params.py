"""Validation of `net_params`: keys and values, each error naming the key.

Values of plain arguments are checked by a table. The arguments of classes, such as
``optimizer__momentum``, are checked by the classes themselves, when the net is initialized.
"""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import torch
from skorch import NeuralNet

from .._messages import cause, shown
from .._sklearn_compat import Interval, StrOptions, invalid_parameter

# Objects of a net whose arguments have names such as ``optimizer__momentum``.
NET_PREFIXES = (
    "criterion",
    "optimizer",
    "iterator_train",
    "iterator_valid",
    "callbacks",
    "compile",
)
# The estimators make both from the backbone, the head and the images.
_OF_THE_ESTIMATOR = ("module", "dataset")
_AT_LEAST_ZERO = Interval(Real, 0, None, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")
_CONSTRAINTS: dict[str, list[Any]] = {
    "lr": [_AT_LEAST_ZERO],
    "backbone_lr_ratio": [_AT_LEAST_ZERO],
    "layer_decay": [_AT_LEAST_ZERO],
    "weight_decay": [_AT_LEAST_ZERO],
    "optimizer__lr": [_AT_LEAST_ZERO],
    "optimizer__weight_decay": [_AT_LEAST_ZERO],
    "max_epochs": [_COUNT],
    "batch_size": [_COUNT, Interval(Integral, -1, 0, closed="left")],
    "micro_batch_size": [_COUNT, StrOptions({"auto"}), None],
    "random_state": [Interval(Integral, 0, None, closed="left")],
    "criterion": [callable],
    "criterion__reduction": [StrOptions({"none"})],
    "optimizer": [callable],
    "iterator_train": [callable],
    "iterator_valid": [callable],
    "train_split": [callable, None],
    "predict_nonlinearity": [callable, StrOptions({"auto"}), None],
    "callbacks": [list, tuple, StrOptions({"disable"}), None],
    "warm_start": ["boolean"],
    "show_progress": ["boolean"],
    "verbose": ["verbose"],
}


def check_net_params(net_params: Mapping[str, Any], net: type) -> dict[str, Any]:
    """Return `net_params` as a dict, if the keys exist and plain values are valid.

    Parameters
    ----------
    net_params : mapping of str to object
        Arguments of a net, including dunder names.
    net : type
        The class of the net.

    Raises
    ------
    ValueError
        If a key is unknown or a value is invalid.
    """
    known = (_argument_names(NeuralNet) | _argument_names(net)) - {*_OF_THE_ESTIMATOR}
    for key, value in net_params.items():
        _check_key(str(key), known)
        expected = invalid_parameter(str(key), value, _CONSTRAINTS)
        if expected is not None:
            raise ValueError(f"net_params: {key} must be {expected}, got {shown(value)}.")
    if net_params.get("device") is not None:
        with naming_net_params(net_params):
            torch.device(net_params["device"])
    return dict(net_params)


def check_callback_names(net_params: Mapping[str, Any], names: set[str]) -> None:
    """Raise an error if ``callbacks__name__...`` names a callback that the net does not have.

    Parameters
    ----------
    net_params : mapping of str to object
        Arguments of a net.
    names : set of str
        The callbacks of the net.
    """
    for key in net_params:
        prefix, _, rest = key.partition("__")
        name, of_a_callback, _ = rest.partition("__")
        if prefix == "callbacks" and of_a_callback and name not in names:
            raise ValueError(
                f"net_params: {shown(key)} names no callback of the net, which has "
                f"{shown(sorted(names))}."
            )


@contextmanager
def naming_net_params(net_params: Mapping[str, Any]) -> Iterator[None]:
    """Context manager: errors of skorch and torch in the initialization name `net_params`.

    Parameters
    ----------
    net_params : mapping of str to object
        Arguments of the net. Without any, errors do not change.
    """
    try:
        yield
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if not net_params or str(error).startswith("net_params"):
            raise
        raise ValueError(
            f"net_params={shown(dict(net_params))}: skorch cannot initialize the net "
            f"({cause(error)}). Correct or remove the argument."
        ) from error


def _check_key(key: str, known: set[str]) -> None:
    prefix, dunder, name = key.partition("__")
    if key in known or (dunder and name and prefix in NET_PREFIXES):
        return
    if prefix in _OF_THE_ESTIMATOR:
        raise ValueError(f"net_params: {shown(key)} is set by the estimator. Remove it.")
    near = difflib.get_close_matches(key, _candidates(key, name, known), 3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"net_params: unknown key {shown(key)}, no argument of skorch's nets.{hint}")


def _candidates(key: str, name: str, known: set[str]) -> list[str]:
    """Keys that a misspelled key may mean: another prefix, or two underscores instead of one."""
    if name:
        return [*known, *(f"{prefix}__{name}" for prefix in NET_PREFIXES)]
    separated = [p for p in NET_PREFIXES if key.startswith(f"{p}_")]
    return [f"{p}__{key[len(p) + 1 :]}" for p in separated] or list(known)


def _argument_names(cls: type) -> set[str]:
    arguments = inspect.signature(cls).parameters.values()
    return {a.name for a in arguments if a.kind in (a.POSITIONAL_OR_KEYWORD, a.KEYWORD_ONLY)}
