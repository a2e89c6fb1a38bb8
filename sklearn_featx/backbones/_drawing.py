"""Random operations: those that draw random numbers even in inference mode, so rows vary."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import fx

# Functions of PyTorch and methods of tensors that always draw.
_ALWAYS = {
    "bernoulli", "gumbel_softmax", "multinomial", "normal", "poisson", "rand", "rand_like",
    "randint", "randint_like", "randn", "randn_like", "randperm",
    "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_",
    "uniform_",
}  # fmt: skip
# Arguments that decide whether an operation draws: the dropout probability and the training mode.
_PROBABILITIES = ("p", "dropout_p")
_TRAINING = ("training", "train")
_OF_BUILTINS = ("input", "p", "train")
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p")


def draws(node: fx.Node) -> bool:
    """Whether an operation of a traced network draws random numbers.

    Parameters
    ----------
    node : fx.Node
        A node of a graph in inference mode. Its modules are PyTorch's, which do not draw there.
    """
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in _ALWAYS:
        return True
    if "drop" not in name and name not in ("stochastic_depth", "scaled_dot_product_attention"):
        return False
    said = _arguments(node, name)
    training = [said[key] for key in _TRAINING if key in said]
    probabilities = [said[key] for key in _PROBABILITIES if key in said]
    return all(training) and any(p != 0 for p in probabilities)


def _arguments(node: fx.Node, name: str) -> Mapping[str, Any]:
    """Return the arguments of a call by name, including defaults."""
    if inspect.isbuiltin(node.target):
        names = _ATTENTION if name == "scaled_dot_product_attention" else _OF_BUILTINS
        return {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return {}
    bound.apply_defaults()
    return bound.arguments
