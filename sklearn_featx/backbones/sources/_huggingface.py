"""Own networks that are Hugging Face vision models: recognized by shape, not by import.

Such a model returns a record of several tensors. As a backbone it returns one: the last hidden
state, tokens (n, tokens, channels) or a map (n, channels, height, width). The model's own pooling
and its classification head are no part of it: they are pooling and head of the estimators.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..._preprocess import Preprocess
from ...exceptions import BackboneError
from .._network import Network, freeze
from ..cutting._granularity import groupings

_PREFIX_TOKENS = ("cls_token", "class_embedding", "distillation_token", "register_tokens")


class LastHiddenState(nn.Module):
    """A Hugging Face vision model that returns its last hidden state alone.

    Parameters
    ----------
    model : nn.Module
        A model whose output has the field ``last_hidden_state``.
    """

    # What rows know it by; another when `forward` computes something else.
    digest_name = "LastHiddenState 1"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the last hidden state for images of shape (n, channels, height, width)."""
        state: torch.Tensor = self.model(pixel_values).last_hidden_state
        return state


def is_huggingface(module: nn.Module) -> bool:
    """Whether a module is a model of the package transformers, which is not imported for this."""
    configured = hasattr(getattr(module, "config", None), "model_type")
    return configured and hasattr(module, "main_input_name")


def build_huggingface(module: nn.Module) -> Network:
    """Make a backbone of a Hugging Face vision model.

    Parameters
    ----------
    module : nn.Module
        A model that takes ``pixel_values``; not changed if it is a copy already. Of a model for a
        task (``ViTForImageClassification``) the base model is taken.

    Returns
    -------
    network : Network
        Its stages are embeddings, each layer of the encoder, and what follows. The model carries
        no preprocessing: images are resized to the size in its configuration, and pixels reach it
        on the scale 0 to 1; where the weights were trained on another, pass `preprocessing`.

    Raises
    ------
    BackboneError
        If the model takes no images.
    """
    if module.main_input_name != "pixel_values":
        raise BackboneError(
            f"backbone: {type(module).__name__} takes {module.main_input_name!r}; a backbone takes "
            "'pixel_values'. Of a model of images and text, pass the vision part."
        )
    base = getattr(module, str(getattr(module, "base_model_prefix", "")), module)
    own = LastHiddenState(freeze(base))
    stages, blocks = groupings(own.eval(), _opened(own))
    return Network(
        name=type(base).__name__.lower(),
        module=own,
        preprocess=_recipe(base.config),
        stages=stages,
        blocks=blocks,
        origin={"source": "module", "class": f"{type(base).__module__}.{type(base).__qualname__}"},
        prefix_tokens=_prefix_tokens(base),
    )


def _opened(network: nn.Module) -> list[str]:
    """Return the models and the encoders inside them: what holds lists, and the lists."""
    lists = [path for path, part in network.named_modules() if isinstance(part, nn.ModuleList)]
    depth = min((path.count(".") for path in lists), default=0)
    outermost = [path for path in lists if path.count(".") == depth]
    parents = [path.rpartition(".")[0] for path in outermost]
    return ["model", *parents, *outermost]


def _recipe(config: Any) -> Preprocess:
    size = getattr(config, "image_size", None)
    if isinstance(size, Mapping):
        size = (size["height"], size["width"])
    elif isinstance(size, int):
        size = (size, size)
    channels = getattr(config, "num_channels", 3)
    return Preprocess(
        resize=None if size is None else (size[0], size[1]),
        interpolation="bicubic",
        channels=1 if channels == 1 else 3,
    )


def _prefix_tokens(model: nn.Module) -> int:
    """Count the tokens before the patches, by the parameters that they start from."""
    return sum(
        1 if tensor.ndim == 1 else tensor.shape[-2]
        for name, tensor in model.named_parameters()
        if name.rpartition(".")[2] in _PREFIX_TOKENS
    )
