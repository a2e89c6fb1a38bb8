"""Hugging Face vision models as backbones, recognized without importing transformers.

Such a model returns a record of several tensors. The backbone returns the last hidden state: tokens
(n, tokens, channels) or a map (n, channels, height, width). It does not include the model's own
pooling and classification head, which the estimators replace.
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
    """A Hugging Face vision model that returns only its last hidden state.

    Parameters
    ----------
    model : nn.Module
        A model whose output has the field ``last_hidden_state``.
    """

    # Part of the rows' keys. Change it if `forward` computes something else.
    digest_name = "LastHiddenState 1"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the last hidden state for images of shape (n, channels, height, width)."""
        state: torch.Tensor = self.model(pixel_values).last_hidden_state
        return state


def is_huggingface(module: nn.Module) -> bool:
    """Whether a module is a model of the package transformers, without importing it."""
    configured = hasattr(getattr(module, "config", None), "model_type")
    return configured and hasattr(module, "main_input_name")


def build_huggingface(module: nn.Module) -> Network:
    """Build a network from a Hugging Face vision model.

    Parameters
    ----------
    module : nn.Module
        A model that takes ``pixel_values``. A model for a task (``ViTForImageClassification``) is
        replaced by its base model.

    Returns
    -------
    network : Network
        The stages are the embeddings, each layer of the encoder, and the rest. The model does not
        state its preprocessing: images are resized to the size in its configuration, with pixels
        from 0 to 1. Pass `preprocessing` if the weights were trained differently.

    Raises
    ------
    BackboneError
        If the model does not take images.
    """
    if module.main_input_name != "pixel_values":
        raise BackboneError(
            f"backbone: {type(module).__name__} takes {module.main_input_name!r}; a backbone takes "
            "'pixel_values'. For a model of images and text, pass its vision part."
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
        is_custom=True,
        prefix_tokens=_prefix_tokens(base),
    )


def _opened(network: nn.Module) -> list[str]:
    """Return the paths of the outermost module lists and of the modules that contain them."""
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
    return Preprocess(
        resize=None if size is None else (size[0], size[1]),
        interpolation="bicubic",
        channels=int(getattr(config, "num_channels", 3)),
    )


def _prefix_tokens(model: nn.Module) -> int:
    """Return the number of tokens before the patches, from the parameters of these tokens."""
    return sum(
        1 if tensor.ndim == 1 else tensor.shape[-2]
        for name, tensor in model.named_parameters()
        if name.rpartition(".")[2] in _PREFIX_TOKENS
    )
