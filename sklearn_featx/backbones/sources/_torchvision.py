"""Torchvision's classification models as backbones.

Functions import torchvision themselves: it imports the compiler of PyTorch, which takes a second in
every process, and the packaged backbones need neither.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..._messages import cause, short
from ..._preprocess import Interpolation, Preprocess
from ...exceptions import WeightsError
from .._network import Network, freeze
from ..cutting._granularity import groupings, unknown_name
from ._weights import StateDict, exists, load_state, read_state_dict, sha256_of_file

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

# Containers whose children are the stages.
OPENED = (
    "features",
    "encoder",
    "encoder.layers",
    "blocks",
    "trunk_output",
    "layers",
    "classifier",
)
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_OLD_MLP = re.compile(r"\.mlp\.linear_([12])\.")
_VIT = "torchvision.models.vision_transformer.VisionTransformer"
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification models, sorted."""
    import torchvision

    return sorted(torchvision.models.list_models(module=torchvision.models))


def quantized_names() -> list[str]:
    """Return the names of torchvision's quantized models, which cannot be backbones."""
    import torchvision

    return sorted(torchvision.models.list_models(module=torchvision.models.quantization))


def build_torchvision(name: str, weights: str | None) -> Network:
    """Build one of torchvision's classification models without its head.

    Parameters
    ----------
    name : str
        One of `torchvision_names()`.
    weights : str or None
        ``"DEFAULT"``, a name in the model's weights enum, the path of a ``.pth`` or
        ``.safetensors`` file, or None for random weights. A file that torchvision publishes is
        recognized by its hash and has its own preprocessing; other files have that of
        ``"DEFAULT"``.

    Returns
    -------
    network : Network
        The network, its preprocessing and its stages.

    Raises
    ------
    WeightsError
        If the weights do not exist, do not fit, or cannot be downloaded.
    """
    from torchvision.models import get_model, get_model_weights

    enum = get_model_weights(name)
    entry, file = _resolve(name, enum, weights)
    known = entry
    if file is not None:
        state = modern_keys(read_state_dict(file))
        known = _published(enum, sha256_of_file(file))
    recipe_entry = known if known is not None else enum.DEFAULT
    module = get_model(name, weights=None, **_constructor_arguments(name, recipe_entry))
    head = head_path(module)
    if entry is not None:
        state = modern_keys(_download(entry))
        load_state(module, state, source=str(entry), optional=_AUXILIARY)
    elif file is not None:
        load_state(module, state, source=str(file), ignored=(f"{head}.",), optional=_AUXILIARY)
    remove_head(module, head)
    stages, blocks = groupings(freeze(module), OPENED)
    return Network(
        name=name,
        module=module,
        preprocess=recipe_of(recipe_entry),
        stages=stages,
        blocks=blocks,
        weights=str(weights) if entry is None else entry.name,
        channels_last=name.startswith("swin"),
        prefix_tokens=own_prefix_tokens(module),
    )


def is_vision_transformer(module: nn.Module) -> bool:
    """Whether a module is a vision transformer of torchvision, or of a subclass."""
    return any(f"{kind.__module__}.{kind.__name__}" == _VIT for kind in type(module).__mro__)


def own_prefix_tokens(module: nn.Module) -> int:
    """Return the number of tokens before the patches."""
    return 1 if is_vision_transformer(module) else 0


def modern_keys(state: StateDict) -> dict[str, torch.Tensor]:
    """Replace older names in published files of DenseNets and vision transformers.

    torchvision does the same when it loads them.
    """
    renamed = {}
    for key, value in state.items():
        name = _OLD_DENSE_LAYER.sub(r"\1\2", key)
        renamed[_OLD_MLP.sub(lambda m: f".mlp.{3 * int(m[1]) - 3}.", name)] = value
    return renamed


def head_path(module: nn.Module) -> str:
    """Return the path of the last weight layer, which is the classification head."""
    layers: list[str] = [
        n for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)
    ]
    return layers[-1]


def remove_head(module: nn.Module, path: str) -> None:
    """Replace the head by an identity."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, nn.Identity())


def _resolve(
    name: str, enum: "type[WeightsEnum]", weights: str | None
) -> tuple["WeightsEnum | None", Path | None]:
    if weights is None:
        return None, None
    if weights == "DEFAULT":
        return enum.DEFAULT, None
    if weights in enum.__members__:
        return enum[weights], None
    path = Path(weights).expanduser()
    if path.suffix or exists(path):
        return None, path
    raise WeightsError(
        unknown_name("weights", weights, ["DEFAULT", *enum.__members__])
        + f" Those are the weights of {name!r}; a file ends in .pth or .safetensors."
    )


def _published(enum: "type[WeightsEnum]", sha256: str) -> "WeightsEnum | None":
    """Return the published weights of a file, by the hash at the end of published file names."""
    for entry in enum:
        if sha256.startswith(Path(entry.url).stem.rpartition("-")[2]):
            return entry
    return None


def _constructor_arguments(name: str, entry: "WeightsEnum") -> dict[str, Any]:
    if name in _WITH_AUXILIARY_HEADS:
        # Both were trained on inputs with another scale than torchvision's preset; with this
        # setting, the networks convert them.
        return {"transform_input": True, "aux_logits": False, "init_weights": False}
    if name.startswith("vit"):
        return {"image_size": entry.meta["min_size"][0]}
    return {}


def recipe_of(entry: "WeightsEnum") -> Preprocess:
    """Return the preprocessing that published weights were evaluated with."""
    preset = entry.transforms()
    interpolation: Interpolation = preset.interpolation.value
    return Preprocess(
        resize=preset.resize_size[0],
        crop=(preset.crop_size[0], preset.crop_size[0]),
        interpolation=interpolation,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


_NO_DOWNLOAD = "'efficientnet_lite0' needs no download."


def _on_disk(entry: "WeightsEnum") -> str:
    """Name other weights of the same network that were downloaded earlier."""
    found = [
        other.name for other in type(entry) if other is not entry and _kept_at(other).is_file()
    ]
    return f"On this disk: weights={found[0]!r}." if found else ""


def _kept_at(entry: "WeightsEnum") -> Path:
    return Path(str(torch.hub.get_dir()), "checkpoints", os.path.basename(str(entry.url)))  # noqa: PTH119 # a URL


def _download(entry: "WeightsEnum") -> dict[str, torch.Tensor]:
    target = _kept_at(entry)
    try:
        state: dict[str, torch.Tensor] = entry.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except OSError as error:
        raise WeightsError(
            f"weights: {entry} could not be downloaded ({short(cause(error), 60)}). Put "
            f"{entry.url} into {short(str(target.parent), 60)!r}. {_on_disk(entry) or _NO_DOWNLOAD}"
        ) from error
    except RuntimeError as error:
        raise WeightsError(
            f"weights: {short(str(target))!r} is damaged ({cause(error)}). Delete it and try again."
        ) from error
    return state
