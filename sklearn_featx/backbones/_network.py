"""Network: the result of every source, a headless network with its metadata."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from .._preprocess import Preprocess

# Name of a stage to the names of its parameters.
Grouping: TypeAlias = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Network:
    """A network without its classification head, ready to be cut.

    Parameters
    ----------
    name : str
        Name of the backbone; the prefix of its feature names.
    module : nn.Module
        The network in inference mode, without gradients and without its classification head.
    preprocess : Preprocess
        The preprocessing that the weights were trained with.
    stages : dict of str to tuple of str
        The architecture's stages: name of a stage to the names of its parameters. Any other
        parameter joins the stage that is running when it is used.
    blocks : dict of str to tuple of str
        The same for its residual or transformer blocks.
    weights : str, default="of the module"
        Name of the weights, for messages.
    is_custom : bool, default=False
        Whether it is a user's network, of no library whose conventions are known.
    leaf_modules : tuple of type, default=()
        Module classes that tracing keeps as one operation.
    autowrap_functions : tuple of callable, default=()
        Functions that tracing keeps as one operation.
    channels_last : bool, default=False
        Whether four-dimensional activations are (n, height, width, channels).
    prefix_tokens : int, default=0
        Number of tokens before the patches in (n, tokens, channels) activations.
    """

    name: str
    module: nn.Module
    preprocess: Preprocess
    stages: Grouping
    blocks: Grouping
    weights: str = "of the module"
    is_custom: bool = False
    leaf_modules: tuple[type[nn.Module], ...] = ()
    autowrap_functions: tuple[Any, ...] = ()
    channels_last: bool = False
    prefix_tokens: int = 0


def freeze(module: nn.Module) -> nn.Module:
    """Put a module into inference mode and disable its gradients."""
    return module.eval().requires_grad_(False)
