"""Users' torchvision models: cut like the models of the same name.

An object does not state its weights. They are recognized if their published file is in torch's
download folder. Otherwise the normalization is ImageNet's, which all classification weights of
torchvision were trained with, and a warning is issued.

torchvision is imported where it is used: see `sources/_torchvision.py`.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .._preprocess import Preprocess
from ..exceptions import BackboneWarning, WeightsError
from ._image_size import fixed_size
from ._network import Network, freeze
from .cutting._granularity import groupings
from .cutting._input_channels import input_channels
from .sources._torchvision import OPENED, modern_keys, own_prefix_tokens, recipe_of
from .sources._weights import read_state_dict

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

# Path of the head in each class. The module at this path is removed, even if a user replaced it.
_HEADS = {
    "AlexNet": "classifier.6", "ConvNeXt": "classifier.2", "DenseNet": "classifier",
    "EfficientNet": "classifier.1", "GoogLeNet": "fc", "Inception3": "fc",
    "MNASNet": "classifier.1", "MaxVit": "classifier.5", "MobileNetV2": "classifier.1",
    "MobileNetV3": "classifier.3",
    "RegNet": "fc", "ResNet": "fc", "ShuffleNetV2": "fc", "SqueezeNet": "classifier.1",
    "SwinTransformer": "head", "VGG": "classifier.6", "VisionTransformer": "heads.head",
}  # fmt: skip
_AUXILIARY = ("aux1", "aux2", "AuxLogits")
_IMAGENET = Preprocess(
    resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def is_torchvision(module: nn.Module) -> bool:
    """Whether a module is one of torchvision's classification models, not of a subclass."""
    kind = type(module)
    home = kind.__module__.startswith("torchvision.models.")
    return home and kind.__name__ in _HEADS and bool(_names(module))


def build_torchvision_object(module: nn.Module) -> Network:
    """Build a network from one of torchvision's classification models.

    Parameters
    ----------
    module : nn.Module
        The model, changed in place: its head and its auxiliary heads are removed.

    Returns
    -------
    network : Network
        The network, with the same stages as by name, and the preprocessing of its weights if they
        are recognized.
    """
    freeze(module)
    _remove_auxiliary(module)
    remove_at(module, _HEADS[type(module).__name__])
    name, entry = _recognized(module)
    if entry is None:
        _warn_of_normalization(module)
    stages, blocks = groupings(module, OPENED)
    return Network(
        name=name or type(module).__name__.lower(),
        module=module,
        preprocess=_preprocess(module, entry),
        stages=stages,
        blocks=blocks,
        channels_last=type(module).__name__ == "SwinTransformer",
        prefix_tokens=own_prefix_tokens(module),
    )


def _preprocess(module: nn.Module, entry: "WeightsEnum | None") -> Preprocess:
    recipe = _IMAGENET if entry is None else recipe_of(entry)
    size = fixed_size(module)
    if size is not None and size != recipe.crop:
        recipe = recipe.with_image_size(size)
    return recipe.with_channels(input_channels(module, recipe.crop, is_stem=True))


def remove_at(module: nn.Module, path: str) -> None:
    """Replace the module at a path, or at the existing part of the path, by an identity."""
    parent, _, name = path.rpartition(".")
    holder = module.get_submodule(parent)
    if isinstance(holder, nn.Identity):
        return
    if not hasattr(holder, name):
        # The user has replaced the containers of the head by one layer.
        remove_at(module, parent)
    elif not isinstance(getattr(holder, name), nn.Identity):
        setattr(holder, name, nn.Identity())


def _remove_auxiliary(module: nn.Module) -> None:
    if hasattr(module, "aux_logits"):
        for name in (*_AUXILIARY, "aux_logits"):
            if hasattr(module, name):
                setattr(module, name, False if name == "aux_logits" else None)


def _names(module: nn.Module) -> list[str]:
    """Return the names of the models that the file of a module's class defines."""
    import torchvision
    from torchvision.models import get_model_builder, list_models

    names = list_models(module=torchvision.models)
    return [n for n in names if get_model_builder(n).__module__ == type(module).__module__]


def _recognized(module: nn.Module) -> tuple[str | None, "WeightsEnum | None"]:
    """Return the name and the weights of a headless model, found among the downloaded files."""
    own = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    for name, entry, path in _downloaded(module):
        try:
            state = modern_keys(read_state_dict(path))
        except WeightsError:
            continue
        if all(k in state and torch.equal(v.cpu(), state[k]) for k, v in own.items()):
            return name, entry
    return None, None


def _downloaded(module: nn.Module) -> Iterator[tuple[str, "WeightsEnum", Path]]:
    """Yield the published files of a module's class that torch has downloaded."""
    from torchvision.models import get_model_weights

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in _names(module):
        for entry in get_model_weights(name):
            path = folder / os.path.basename(entry.url)  # noqa: PTH119 # a URL
            if path.is_file():
                yield name, entry, path


def _warn_of_normalization(module: nn.Module) -> None:
    mean, std = _IMAGENET.mean, _IMAGENET.std
    warnings.warn(
        f"backbone: the weights of this {type(module).__name__} match no published file in "
        f"torchvision's download folder. Images are normalized as for ImageNet (mean={mean}, "
        f"std={std}). If the network was trained differently, pass preprocessing=function, from a "
        "PIL image to a tensor.",
        BackboneWarning,
        stacklevel=2,
    )
