"""Global hooks: hooks on all modules of the process, which no digest includes."""

from typing import Any

from torch.nn.modules import module as _modules

from .._messages import shown
from ..exceptions import BackboneError

# PyTorch has no public interface for them.
_KINDS = ("_global_forward_pre_hooks", "_global_forward_hooks")


def refuse_global_hooks() -> None:
    """Raise an error if a hook may change the results of every network.

    Raises
    ------
    BackboneError
        If a hook that is not PyTorch's own is registered on all modules.
    """
    for kind in _KINDS:
        for hook in list(getattr(_modules, kind, {}).values()):
            if not _is_of_torch(hook):
                raise BackboneError(
                    f"a hook is registered on all modules of the process: {shown(hook)}. What "
                    "networks compute with it has no name. Remove it, or register it on the "
                    "network, module.register_forward_hook(...)."
                )


def _is_of_torch(hook: Any) -> bool:
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return str(module).partition(".")[0] == "torch"
