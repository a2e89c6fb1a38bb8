"""Backbones from a user's own module, which is copied and never changed."""

import copy

from torch import nn

from .._messages import cause
from .._preprocess import Preprocess
from ..exceptions import BackboneError
from ._granularity import groupings
from ._huggingface import build_huggingface, is_huggingface
from ._network import Network, freeze


def build_custom(module: nn.Module, *, borrowed: bool = True) -> Network:
    """Make a backbone of a copy of a user's module; nothing of it is removed.

    Parameters
    ----------
    module : nn.Module
        Any network that takes one tensor and returns one tensor.
    borrowed : bool, default=True
        Whether it is the user's, so that it must be copied; a new one is copied if it can be.

    Returns
    -------
    network : Network
        Its stages are the module's top-level children. Pixels reach it on the scale 0 to 1; it
        sees greyscale images when its first convolution has one input channel. A model of Hugging
        Face's transformers is a backbone up to its last hidden state.

    Raises
    ------
    BackboneError
        If the module cannot be copied.
    """
    own = _copied(module, borrowed=borrowed)
    if is_huggingface(own):
        return build_huggingface(own)
    freeze(own)
    stages, blocks = groupings(own)
    return Network(
        name=type(module).__name__.lower(),
        module=own,
        preprocess=Preprocess(channels=_input_channels(own)),
        stages=stages,
        blocks=blocks,
        origin={"source": "module", "class": _qualified(type(module))},
    )


def _copied(module: nn.Module, *, borrowed: bool) -> nn.Module:
    try:
        # Shapes are tried on the CPU; each engine and each tail goes to its device itself.
        return copy.deepcopy(module).cpu()
    except Exception as error:
        if not borrowed:
            return module
        # Whatever a module holds (locks, generators, tensors of a graph) may refuse to be copied.
        raise BackboneError(
            f"backbone: the {type(module).__name__} cannot be copied ({cause(error)}), and it "
            "is not used itself, so that it stays as it is. Pass a function that builds it instead."
        ) from error


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _input_channels(module: nn.Module) -> int:
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3
