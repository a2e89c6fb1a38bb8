"""Registry of backbones: construction by name or module, once per process.

Only this module keeps networks: estimators hold names, and clones and threads share a network.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from .._digest import may_change_unseen, stat_signature
from .._graphs import plain_new_tensors
from .._messages import cause, shown, user_level, warn_once
from .._parallel import ForkSafeLock, generator_lock
from .._preprocess import checked_size
from .._typing import Granularity, Weights
from ..exceptions import (
    BackboneError,
    FeatxError,
    RandomWeightsWarning,
    UnknownBackboneError,
    WeightsError,
)
from ._backbone import Backbone
from ._digests import digest_factory, digest_module
from ._global_hooks import refuse_global_hooks
from ._image_size import fixed_size, for_image_size
from ._network import Network, freeze
from .cutting._granularity import groupings, unknown_name
from .sources._custom import build_custom
from .sources._packaged import PACKAGED, SamePad2d, build_packaged
from .sources._timm import TIMM_PREFIX, build_timm, timm_entrypoint
from .sources._torchvision import (
    build_torchvision,
    head_path,
    quantized_names,
    remove_head,
    torchvision_names,
)
from .sources._weights import sha256_of_file

Value = TypeVar("Value")

# Sufficient for a search over backbones; a network may have some GB.
_MAX_KEPT = 8


class _Memo:
    """The most recently used values by key; each is built once, from any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = ForkSafeLock()

    def get(self, key: Hashable, build: Callable[[], Value]) -> Value:
        with self._lock:
            if key not in self._values:
                self._values[key] = build()
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)
            value: Value = self._values[key]
            return value


_networks = _Memo(_MAX_KEPT)
_backbones = _Memo(_MAX_KEPT)


def backbone_names() -> list[str]:
    """List the backbones that need no additional package: the packaged ones and torchvision's.

    Returns
    -------
    names : list of str
        The packaged backbones, whose weights need no download, followed by torchvision's.

    Examples
    --------
    >>> from sklearn_featx import backbone_names
    >>> backbone_names()[0]
    'efficientnet_lite0'
    >>> "resnet18" in backbone_names()
    True
    """
    return [*PACKAGED, *torchvision_names()]


@plain_new_tensors()
def get_backbone(
    backbone: str | nn.Module | Callable[[], nn.Module],
    weights: Weights = "DEFAULT",
    granularity: Granularity = "stage",
    *,
    image_size: int | Sequence[int] | None = None,
    warn: bool = True,
) -> Backbone:
    """Return a backbone, which is built at most once per process.

    Parameters
    ----------
    backbone : str, nn.Module or callable
        A name of `backbone_names`, a network, or a function that builds one. The function is
        called again if its code, or a value that it reads, has changed, and in every call if this
        is uncertain, as with files. It draws PyTorch's random numbers from a fixed seed.
    weights : str, path or None, default="DEFAULT"
        Name of weights, weights file, or None for random weights. Not used for a network.
    granularity : {"stage", "block"} or list of str, default="stage"
        The size of a stage.
    image_size : int or (int, int), default=None
        Size of the images. A network with positions for a fixed size is interpolated.
    warn : bool, default=True
        Whether to warn of random weights.

    Returns
    -------
    backbone : Backbone
        The backbone, which is frozen and shared by all callers.

    Raises
    ------
    UnknownBackboneError
        If no backbone has this name; the message lists the nearest names.
    WeightsError
        If the weights do not exist, do not fit, or cannot be downloaded.
    UnknownLayerError
        If `granularity` contains an unknown name.
    BackboneError
        If a hook is registered on all modules of the process.
    """
    _check_types(backbone, weights, granularity)
    refuse_global_hooks()
    key, build = _source(_uncompiled(backbone), weights)
    if warn and isinstance(backbone, str) and weights is None:
        warn_once(
            f"backbone {shown(backbone)} is used with random weights (weights=None).",
            RandomWeightsWarning,
            stacklevel=user_level(),
        )
    size = None if image_size is None else checked_size(image_size)
    if key is None:
        # Without a certain digest, another network may have the same key.
        unnamed = build()
        return Backbone(unnamed if size is None else for_image_size(unnamed, size), granularity)
    network = _networks.get(key, build)
    if size is not None and fixed_size(network.module) not in (None, size):
        key, whole = (key, size), network
        network = _networks.get(key, lambda: for_image_size(whole, size))
    named = tuple(granularity) if isinstance(granularity, list) else granularity
    return _backbones.get((key, named), lambda: Backbone(network, granularity))


def _check_types(backbone: Any, weights: Any, granularity: Any) -> None:
    """Check the types, as the estimators' parameter constraints do, for the public functions."""
    if not (isinstance(backbone, str | nn.Module) or callable(backbone)):
        raise BackboneError(
            f"backbone={shown(backbone)}: expected a name, a module, or a function that builds one."
        )
    if not isinstance(weights, str | os.PathLike | None):
        raise WeightsError(f"weights={shown(weights)}: expected 'DEFAULT', a name, a file or None.")
    named = isinstance(granularity, list) and all(isinstance(name, str) for name in granularity)
    if not (named or granularity in ("stage", "block")):
        raise BackboneError(
            f"granularity={shown(granularity)}: expected 'stage', 'block' or a list of names."
        )


def _source(
    backbone: str | nn.Module | Callable[[], nn.Module], weights: Weights
) -> tuple[Hashable, Callable[[], Network]]:
    """Return the key of a network, or None, and the function that builds it."""
    if isinstance(backbone, nn.Module):
        return _module_key(backbone), lambda: build_custom(backbone)
    if not isinstance(backbone, str):
        code = digest_factory(backbone)
        if not code.unnamed:
            return ("factory", code.text), lambda: build_custom(_built(backbone), borrowed=False)
        module = _built(backbone)
        return _module_key(module), lambda: build_custom(module, borrowed=False)
    chosen = None if weights is None else str(weights)
    build = _builder(backbone)
    # A user's model may be registered again with timm, under the same name.
    registered = timm_entrypoint(backbone) if build is build_timm else None
    named = (backbone, registered, *_weights_key(chosen))
    return named, lambda: _in_float32(build(backbone, chosen))


def _in_float32(network: Network) -> Network:
    """Cast a network that was built by name, in whatever `torch.set_default_dtype` says."""
    network.module.float()
    return network


def _uncompiled(backbone: Any) -> Any:
    """Return the original of a module from `torch.compile`, since engines compile it themselves."""
    # TorchScript's container of modules has no `get`.
    parts = getattr(backbone, "_modules", {})
    inner = parts["_orig_mod"] if "_orig_mod" in parts else None  # noqa: SIM401
    return backbone if inner is None else inner


def _module_key(module: nn.Module) -> Hashable:
    named = digest_module(module)
    return None if named.unnamed else ("module", named.text)


def _builder(name: str) -> Callable[[str, str | None], Network]:
    """Return the function that builds a backbone by its name."""
    if name.startswith(TIMM_PREFIX):
        return build_timm
    _check_name(name)
    return _packaged_network if name in PACKAGED else build_torchvision


def _packaged_network(name: str, weights: str | None) -> Network:
    module = freeze(build_packaged(name, weights))
    remove_head(module, head_path(module))
    stages, blocks = groupings(module, opened=("blocks",))
    return Network(
        name=name,
        module=module,
        preprocess=PACKAGED[name].preprocess,
        stages=stages,
        blocks=blocks,
        weights=str(weights),
        leaf_modules=(SamePad2d,),
    )


_RULE = "A callable backbone takes no argument and returns an nn.Module."


@contextmanager
def _naming_the_factory(factory: Callable[[], nn.Module]) -> Iterator[None]:
    try:
        yield
    except FeatxError:
        raise
    except Exception as error:
        # The user's function runs here, which may raise anything.
        raise BackboneError(f"backbone={shown(factory)} raised {cause(error)}. {_RULE}") from error


def _built(factory: Callable[[], nn.Module]) -> nn.Module:
    # With a fixed seed, every process builds the same network and finds the cached rows.
    with generator_lock, _naming_the_factory(factory):
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(0)
        try:
            module: Any = factory()
        finally:
            torch.set_rng_state(before)
    if not isinstance(module, nn.Module):
        raise BackboneError(f"backbone={shown(factory)} returned {type(module).__name__}. {_RULE}")
    return module


def _weights_key(weights: str | None) -> tuple[Hashable, ...]:
    """Return the key of weights: for a file its path and state, and the digest of a new file."""
    if weights is None:
        return (weights,)
    file = Path(weights).expanduser().absolute()
    if not _is_file(file):
        return (weights,)
    state = stat_signature(file)
    return (str(file), *state, sha256_of_file(file) if may_change_unseen(state) else "")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # The path is too long or contains a null byte.
        return False


def _check_name(name: str) -> None:
    if name in PACKAGED:
        # The other names are torchvision's, whose import takes a second.
        return
    if name in quantized_names() and name not in torchvision_names():
        raise BackboneError(
            f"backbone={name!r} is a quantized network: it has no floating-point weights to train "
            f"or to fold. Use {name.removeprefix('quantized_')!r} instead."
        )
    if name not in backbone_names():
        hint = " A file of weights is passed as weights." if _names_weights(name) else ""
        raise UnknownBackboneError(unknown_name("backbone", name, backbone_names()) + hint)


def _names_weights(name: str) -> bool:
    return name.lower().endswith((".pth", ".pt", ".bin", ".ckpt", ".safetensors"))
