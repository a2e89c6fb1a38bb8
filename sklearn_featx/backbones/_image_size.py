"""Image size of vision transformers: interpolation of learned positions for another size."""

import copy
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from torch import nn

from .._messages import cause
from ..exceptions import BackboneError
from ._network import Network, freeze
from .sources._torchvision import is_vision_transformer


def fixed_size(module: nn.Module) -> tuple[int, int] | None:
    """Return the image size that a network was built for and that can be changed, or None."""
    if is_vision_transformer(module):
        vit: Any = module
        return vit.image_size, vit.image_size
    if not hasattr(module, "set_input_size"):
        return None
    embed: Any = getattr(module, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    return None if size is None else (int(size[0]), int(size[1]))


def for_image_size(network: Network, size: tuple[int, int]) -> Network:
    """Return a network for images of another (height, width), or the same if it takes any size.

    Raises
    ------
    BackboneError
        If its positions cannot be interpolated for this size.
    """
    built_for = fixed_size(network.module)
    if built_for in (None, size):
        return network
    assert built_for is not None
    try:
        return replace(network, module=freeze(_resized(network.module, size)))
    except Exception as error:
        # Models of timm and torchvision reject sizes by errors of any type.
        raise BackboneError(
            f"image_size={size}: backbone {network.name!r} takes {built_for[0]} x {built_for[1]} "
            f"pixels, and its positions cannot be interpolated ({cause(error)}). Pass a multiple "
            "of its patches, or None."
        ) from error


def _resized(module: nn.Module, size: tuple[int, int]) -> nn.Module:
    own: Any = copy.deepcopy(module)
    if is_vision_transformer(own):
        from torchvision.models.vision_transformer import interpolate_embeddings

        if size[0] != size[1] or size[0] % own.patch_size:
            raise ValueError(f"squares of {own.patch_size} pixels times a whole number")
        state = OrderedDict(own.state_dict())
        name = "encoder.pos_embedding"
        new = interpolate_embeddings(size[0], own.patch_size, state)[name]
        own.encoder.pos_embedding = nn.Parameter(new)
        own.image_size, own.seq_length = size[0], new.shape[1]
    else:
        _refuse_parts_of_patches(own.patch_embed, size)
        own.set_input_size(img_size=size)
    resized: nn.Module = own
    return resized


def _refuse_parts_of_patches(embed: Any, size: tuple[int, int]) -> None:
    """Raise an error if timm would not see the pixels at the margin, which fill no patch."""
    patch = getattr(embed, "patch_size", 1)
    sides = patch if isinstance(patch, tuple | list) else (patch, patch)
    is_padded = getattr(embed, "dynamic_img_pad", False)
    if not is_padded and any(n % side for n, side in zip(size, sides, strict=True)):
        raise ValueError(f"whole patches of {sides[0]} x {sides[1]} pixels")
