"""Models of timm (PyTorch Image Models) as backbones: the only file that uses timm.

The stages are timm's: each model defines its ordered groups of parameters. Weights are read by
safetensors, or by torch with ``weights_only=True``, without executing code.
"""

import math
import ssl
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, getproxies, urlopen

from torch import nn

from ..._messages import cause, short, shown
from ..._optional import import_optional
from ..._preprocess import Preprocess
from ...exceptions import UnknownBackboneError, WeightsError
from .._image_size import fixed_size
from .._network import Grouping, Network, freeze
from ..cutting._granularity import groupings, has_weights, unknown_name
from ..cutting._input_channels import input_channels
from ._weights import StateDict, exists, fits, load_state, read_state_dict

TIMM_PREFIX = "timm/"

# Timeout for the first answer of the hub, which usually takes tenths of a second.
_PATIENCE_SECONDS = 5.0

# Containers whose children are the stages, for the few models without groups.
_OPENED = ("stages", "blocks", "transformers", "layers", "features")


def timm_names() -> list[str]:
    """Return the names of timm's models with the prefix ``"timm/"``, sorted.

    Raises
    ------
    MissingDependencyError
        If timm is not installed.
    """
    return [f"{TIMM_PREFIX}{name}" for name in sorted(_timm().list_models())]


def timm_entrypoint(name: str) -> Any:
    """Return timm's function that builds a model; None if the name is unknown."""
    timm = _timm()
    architecture = name.removeprefix(TIMM_PREFIX).partition(".")[0]
    return timm.model_entrypoint(architecture) if timm.is_model(architecture) else None


def build_timm(name: str, weights: str | None) -> Network:
    """Build one of timm's models without its head.

    Parameters
    ----------
    name : str
        ``"timm/NAME"`` or ``"timm/NAME.TAG"``, where the tag names pretrained weights.
    weights : str or None
        ``"DEFAULT"`` for the weights of the tag, or of timm's first tag; the path of a ``.pth`` or
        ``.safetensors`` file; None for random weights.

    Returns
    -------
    network : Network
        The network without its classifier, its preprocessing and its stages.

    Raises
    ------
    MissingDependencyError
        If timm is not installed.
    UnknownBackboneError
        If timm has no such model or tag; the message lists the nearest names.
    WeightsError
        If the weights do not exist, do not fit, or cannot be downloaded.
    """
    timm = _timm()
    bare = name.removeprefix(TIMM_PREFIX)
    _check_name(timm, bare)
    file = _weights_file(name, weights)
    module = _download(timm, bare) if weights == "DEFAULT" else timm.create_model(bare)
    recipe = _recipe(timm.data.resolve_model_data_config(module))
    head = _remove_head(module)
    if file is not None:
        _load_file(module, file, head)
    tag = _config(module).get("tag") if weights == "DEFAULT" else None
    return _network(timm, module, name, recipe, str(tag or weights))


def is_timm(module: nn.Module) -> bool:
    """Whether a module is one of timm's models."""
    library = type(module).__module__.partition(".")[0]
    return library == "timm" and hasattr(module, "reset_classifier")


def build_timm_object(module: nn.Module) -> Network:
    """Build a network from one of timm's models, without its head.

    Parameters
    ----------
    module : nn.Module
        The model, changed in place.

    Returns
    -------
    network : Network
        The network, with the preprocessing of the model's `pretrained_cfg`.
    """
    timm = _timm()
    recipe = _recipe(timm.data.resolve_model_data_config(module))
    # This is the preprocessing of the published weights; the model may have another image size or
    # number of channels.
    size = fixed_size(module)
    if size is not None and size != recipe.crop:
        recipe = recipe.with_image_size(size)
    recipe = recipe.with_channels(input_channels(freeze(module), recipe.crop, is_stem=True))
    config = _config(module)
    name = str(config.get("architecture") or type(module).__name__.lower())
    if config.get("tag"):
        name = f"{name}.{config['tag']}"
    _remove_head(module)
    return _network(timm, module, TIMM_PREFIX + name, recipe)


def _network(
    timm: ModuleType,
    module: nn.Module,
    name: str,
    recipe: Preprocess,
    weights: str = "of the module",
) -> Network:
    stages, blocks = (_groups(timm, freeze(module), coarse=coarse) for coarse in (True, False))
    return Network(
        name=name,
        module=module,
        preprocess=recipe,
        stages=stages,
        blocks=blocks,
        weights=weights,
        leaf_modules=tuple(timm.layers.get_notrace_modules()),
        autowrap_functions=tuple(filter(callable, timm.layers.get_notrace_functions())),
        channels_last=str(getattr(module, "output_fmt", "NCHW")) == "NHWC",
        prefix_tokens=int(getattr(module, "num_prefix_tokens", 0)),
    )


def _timm() -> ModuleType:
    purpose = f"A backbone whose name begins with {TIMM_PREFIX!r}"
    timm = import_optional("timm", extra="timm", purpose=purpose)
    import_optional("timm.data", extra="timm", purpose=purpose)
    return timm


def _check_name(timm: ModuleType, bare: str) -> None:
    architecture, _, tag = bare.partition(".")
    if not timm.is_model(architecture):
        nearest = unknown_name("backbone", TIMM_PREFIX + bare, timm_names())
        raise UnknownBackboneError(nearest)
    tagged = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and bare not in tagged:
        known = [TIMM_PREFIX + known for known in tagged]
        raise UnknownBackboneError(unknown_name("backbone", TIMM_PREFIX + bare, known))


def _weights_file(name: str, weights: str | None) -> Path | None:
    if weights is None or weights == "DEFAULT":
        return None
    path = Path(weights).expanduser()
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors") or exists(path):
        return path
    raise WeightsError(
        f"weights={shown(weights)}: {shown(name)} takes 'DEFAULT', None, or a file that ends in "
        ".pth or .safetensors. Other weights of timm are part of the name: 'timm/NAME.TAG'."
    )


def _download(timm: ModuleType, bare: str) -> nn.Module:
    try:
        _require_hub(timm, bare)
        module: nn.Module = timm.create_model(bare, pretrained=True)
    except Exception as error:
        # The errors have no common base class: OSError, HTTPError, ValueError.
        raise WeightsError(_no_download(timm, bare, error)) from error
    return module


def _require_hub(timm: ModuleType, bare: str) -> None:
    """Raise an `OSError` if the hub is needed but unreachable: its client would retry for long.

    The function tries one connection. The hub's own client decides uncertain cases: certificates,
    proxies that urllib does not support, files in another cache.
    """
    config = timm.get_pretrained_cfg(bare)
    hub_id = getattr(config, "hf_hub_id", None)
    if not hub_id or getproxies().get("all"):
        return
    hub = import_optional("huggingface_hub", extra="timm", purpose="A download from timm's hub")
    if hub.constants.HF_HUB_OFFLINE or _is_kept(
        hub, hub_id, getattr(config, "hf_hub_filename", None)
    ):
        return
    try:
        urlopen(Request(hub.constants.ENDPOINT, method="HEAD"), timeout=_PATIENCE_SECONDS).close()  # noqa: S310 (the hub's own address)
    except HTTPError:
        # The hub has answered.
        return
    except URLError as error:
        if isinstance(error.reason, OSError) and not isinstance(error.reason, ssl.SSLError):
            raise error.reason from error


def _is_kept(hub: ModuleType, hub_id: str, file: str | None) -> bool:
    """Whether a weights file has been downloaded before."""
    repository, _, revision = str(hub_id).partition("@")
    names = [file] if file else ["model.safetensors", "pytorch_model.bin"]
    return any(
        isinstance(hub.try_to_load_from_cache(repository, name, revision=revision or None), str)
        for name in names
    )


def _no_download(timm: ModuleType, bare: str, error: Exception) -> str:
    config = timm.get_pretrained_cfg(bare)
    known = config.to_dict() if config is not None else {}
    hub_id, url = known.get("hf_hub_id"), known.get("url")
    if not hub_id and not url:
        tagged = [TIMM_PREFIX + n for n in timm.list_models(pretrained=True)]
        nearest = unknown_name("pretrained", TIMM_PREFIX + bare, tagged)
        return f"weights: timm has none of {bare!r} ({nearest}). Use weights=None or a file."
    file = known.get("hf_hub_filename") or "model.safetensors"
    place = f"the file {file!r} of https://huggingface.co/{hub_id}" if hub_id else str(url)
    return (
        f"weights: those of 'timm/{bare}' could not be downloaded ({short(cause(error), 60)}). "
        f"Fetch {place} and pass weights='PATH', or use 'efficientnet_lite0'."
    )


def _config(module: nn.Module) -> dict[str, Any]:
    config: Any = module.pretrained_cfg
    return config.to_dict() if hasattr(config, "to_dict") else dict(config or {})


def _remove_head(module: nn.Module) -> tuple[str, ...]:
    """Remove the classifier but not the pooling; return the names of the removed parameters."""
    before = list(module.state_dict())
    if hasattr(module, "reset_classifier"):
        reset: Any = module.reset_classifier
        reset(0)
    remaining = module.state_dict().keys()
    return tuple(name for name in before if name not in remaining)


def _load_file(module: nn.Module, file: Path, head: tuple[str, ...]) -> None:
    """Load a file without its classifier, with timm's names or those of the publisher."""
    state: StateDict = read_state_dict(file)
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if convert is not None and not fits(module, state, optional=head):
        # timm converts the names of publishers; `load_state` reports files that do not fit.
        try:
            state = convert(dict(state), module)
        except (KeyError, ValueError, RuntimeError, AttributeError, TypeError):
            state = read_state_dict(file)
    load_state(module, state, source=str(file), optional=head)


def _recipe(data: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing of timm's evaluation: resize to size / crop_pct, center crop."""
    channels, height, width = data["input_size"]
    scaled = tuple(math.floor(side / data["crop_pct"]) for side in (height, width))
    # Only "center" keeps the proportions. "border" would pad, which is not supported: the image is
    # squashed instead.
    proportional = data["crop_mode"] == "center" and height == width
    return Preprocess(
        resize=scaled[0] if proportional else (scaled[0], scaled[1]),
        crop=(height, width),
        interpolation="bilinear" if data["interpolation"] == "random" else data["interpolation"],
        channels=channels,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _groups(timm: ModuleType, module: nn.Module, *, coarse: bool) -> Grouping:
    """Return the model's own groups of parameters, named by the modules that each contains.

    Groups without weights and single tensors are omitted: they join the stage that uses them.
    (CaiT's stem contains the class token, which is used after the last block.)
    """
    if not hasattr(module, "group_matcher"):
        return groupings(module, _OPENED)[0 if coarse else 1]
    groups = timm.models.group_parameters(module, _matcher(module, coarse=coarse))
    totals = Counter(path for name, _ in module.named_parameters() for path in _above(name))
    found = {}
    for names in groups.values():
        parts = _whole_modules(module, names, totals)
        if parts:
            found["+".join(parts)] = tuple(name for held in parts.values() for name in held)
    return found


def _matcher(module: nn.Module, *, coarse: bool) -> Any:
    matcher: Any = module.group_matcher
    try:
        return matcher(coarse=coarse)
    except AssertionError:
        # A few models define only fine groups and raise an AssertionError for coarse ones.
        return matcher(coarse=False)


def _whole_modules(
    module: nn.Module, names: Sequence[str], totals: Counter[str]
) -> dict[str, list[str]]:
    """Return the largest modules with weights whose parameters are all among `names`."""
    inside = Counter(path for name in names for path in _above(name))
    members: dict[str, list[str]] = {}
    for name in names:
        whole = next((path for path in _above(name) if inside[path] == totals[path]), None)
        if whole is not None:
            members.setdefault(whole, []).append(name)
    return {path: held for path, held in members.items() if has_weights(module, held)}


def _above(name: str) -> list[str]:
    """Return the paths of the modules that contain a parameter, outermost first."""
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]
