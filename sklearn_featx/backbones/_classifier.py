"""Classification heads of own networks: recognized by name, reported, never removed."""

import warnings
import weakref

from torch import nn

from .._parallel import ForkSafeLock
from ..exceptions import BackboneWarning
from ._backbone import Backbone
from .sources._huggingface import LastHiddenState

_HEADS = ("head", "heads", "fc", "classifier", "logits")
_WRAPPERS = ("module", "model", "net", "network", "backbone")

_reported: weakref.WeakSet[Backbone] = weakref.WeakSet()
_lock = ForkSafeLock()


def classifier_of(module: nn.Module) -> str | None:
    """Return the path of an own network's last layer if it looks like a classification head."""
    if isinstance(module, LastHiddenState):
        return None
    layers = [(p, m) for p, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers or not isinstance(layers[-1][1], nn.Linear):
        return None
    path = layers[-1][0]
    # Behind wrappers and places in a Sequential.
    names = (name for name in path.split(".") if name not in _WRAPPERS and not name.isdigit())
    return path if next(names, None) in _HEADS else None


def warn_of_classifier(backbone: Backbone) -> None:
    """Warn once of an own network whose features are the outputs of a classification head.

    Parameters
    ----------
    backbone : Backbone
        Of any source; those by name have no head.
    """
    if backbone.network.origin.get("source") != "module":
        return
    path = classifier_of(backbone.network.module)
    with _lock:
        if path is None or backbone in _reported:
            return
        _reported.add(backbone)
    head = backbone.network.module.get_submodule(path)
    before = backbone.layer_before(path)
    instead = "the name of the layer before it" if before is None else repr(before)
    warnings.warn(
        f"backbone: the last layer of {backbone.name!r} is {path!r} ({head.in_features} to "
        f"{head.out_features} numbers), by its name a classification head, whose outputs are poor "
        f"features. Pass layer={instead} for what goes into it, or layer={path!r} if it is meant; "
        f"for fine-tuning put nn.Identity() in its place.",
        BackboneWarning,
        stacklevel=3,
    )
