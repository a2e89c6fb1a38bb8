"""Classification heads of users' networks: recognized by name, reported, never removed."""

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
    """Return the path of a network's last layer if its name is that of a classification head."""
    if isinstance(module, LastHiddenState):
        return None
    layers = [(p, m) for p, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers or not isinstance(layers[-1][1], nn.Linear):
        return None
    path = layers[-1][0]
    # Names of wrappers and positions in a Sequential are skipped.
    names = (name for name in path.split(".") if name not in _WRAPPERS and not name.isdigit())
    return path if next(names, None) in _HEADS else None


def warn_of_classifier(backbone: Backbone) -> None:
    """Warn once if the features of a user's network are the outputs of a classification head.

    Parameters
    ----------
    backbone : Backbone
        A backbone of any source; backbones by name have no head.
    """
    if not backbone.network.is_custom:
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
        f"features. Pass layer={instead} for its input, or layer={path!r} to confirm this choice; "
        f"for fine-tuning, replace it by nn.Identity().",
        BackboneWarning,
        stacklevel=3,
    )
