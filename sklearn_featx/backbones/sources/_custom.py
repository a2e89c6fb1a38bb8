"""Users' modules as backbones: the module is copied and never changed."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..._messages import cause, shown
from ..._preprocess import Preprocess
from ...exceptions import BackboneError
from .._network import Network, freeze
from .._torchvision_objects import build_torchvision_object, is_torchvision
from ..cutting._granularity import groupings
from ..cutting._input_channels import input_channels
from ._huggingface import build_huggingface, is_huggingface
from ._timm import build_timm_object, is_timm

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_WRAPPERS = ("DataParallel", "DistributedDataParallel", "OptimizedModule")

# Models of libraries whose heads and preprocessing are known.
_KNOWN: tuple[tuple[Callable[[nn.Module], bool], Callable[[nn.Module], Network]], ...] = (
    (is_huggingface, build_huggingface),
    (is_timm, build_timm_object),
    (is_torchvision, build_torchvision_object),
)


def build_custom(module: nn.Module, *, borrowed: bool = True) -> Network:
    """Build a network from a copy of a user's module.

    Only a model of timm or torchvision loses its head, like the model of the same name.

    Parameters
    ----------
    module : nn.Module
        A network with one input and one output tensor.
    borrowed : bool, default=True
        Whether the module belongs to the user and must be copied; otherwise, a module that cannot
        be copied is used itself.

    Returns
    -------
    network : Network
        The stages are the module's top-level children. The pixels are from 0 to 1, with the
        channels of the first convolution that an image reaches. A model of Hugging Face's
        transformers is used up to its last hidden state.

    Raises
    ------
    BackboneError
        If the module cannot be copied, is TorchScript, or normalizes by the statistics of a batch.
    """
    module = _unwrapped(module)
    _refuse_scripts(module)
    own = _copied(module, borrowed=borrowed)
    _refuse_lazy(own)
    for is_known, build in _KNOWN:
        if is_known(own):
            return build(own)
    freeze(own)
    _refuse_batch_statistics(own)
    stages, blocks = groupings(own)
    return Network(
        name=type(module).__name__.lower(),
        module=own,
        preprocess=Preprocess(channels=input_channels(own)),
        stages=stages,
        blocks=blocks,
        is_custom=True,
    )


def _refuse_scripts(module: nn.Module) -> None:
    """Reject TorchScript, which can be neither cut nor rewritten."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            place = f"the layer {shown(name)}" if name else "the network"
            raise BackboneError(
                f"backbone: {place} is TorchScript, which cannot be cut into stages. Pass the "
                "nn.Module from which it was made, or torch.export.load(file).module()."
            )


def _refuse_lazy(module: nn.Module) -> None:
    """Reject a network with layers that get their weights at the first call."""
    for name, part in module.named_modules():
        own = (*part._parameters.values(), *part._buffers.values())
        if any(is_lazy(tensor) for tensor in own):
            raise BackboneError(
                f"backbone: the layer {shown(name)} ({type(part).__name__}) has no weights before "
                "its first call. Call the network once, network(torch.zeros(1, 3, 224, 224)) for "
                "images of this size, and pass it then."
            )


def _refuse_batch_statistics(module: nn.Module) -> None:
    """Reject a network whose features of an image depend on the other images of its batch."""
    for name, part in module.named_modules():
        if isinstance(part, _BATCH_NORMS) and part.running_mean is None:
            raise BackboneError(
                f"backbone: the layer {shown(name)} normalizes by the statistics of each batch "
                "(track_running_stats=False), so features would depend on the images beside an "
                "image. Replace it, for example by nn.GroupNorm."
            )


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the network inside the wrappers of `torch.compile` and of data-parallel training."""
    while type(module).__name__ in _WRAPPERS and type(module).__module__.startswith("torch."):
        inner: Any = module._modules.get("_orig_mod") or module._modules.get("module")
        module = inner
    return module


def _copied(module: nn.Module, *, borrowed: bool) -> nn.Module:
    try:
        # Shapes are determined on the CPU; each engine and each tail moves to its own device.
        return copy.deepcopy(module).cpu()
    except Exception as error:
        # Copying runs the code of all objects in the module, some of which cannot be copied (locks,
        # generators, tensors of a graph).
        if not borrowed:
            return module
        raise BackboneError(
            f"backbone: the {type(module).__name__} cannot be copied ({cause(error)}), and the "
            "original is never used, so that it does not change. Pass a function that builds it."
        ) from error
