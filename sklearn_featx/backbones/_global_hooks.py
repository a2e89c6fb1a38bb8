"""Global hooks: hooks on all modules of the process, which no digest includes."""

import functools
import logging
from typing import Any

from torch.nn.modules import module as _modules

from .._messages import shown
from ..exceptions import BackboneError

_log = logging.getLogger(__name__)

# PyTorch has no public interface for them: the private table of each kind, and the public function
# that registers a hook in it.
_KINDS = {
    "_global_forward_pre_hooks": "register_module_forward_pre_hook",
    "_global_forward_hooks": "register_module_forward_hook",
}


def refuse_global_hooks() -> None:
    """Raise an error if a hook may change the results of every network.

    Raises
    ------
    BackboneError
        If a hook that is not PyTorch's own is registered on all modules.
    """
    if not passes_self_test():
        return
    for kind in _KINDS:
        for hook in list(getattr(_modules, kind).values()):
            if not _is_of_torch(hook):
                raise BackboneError(
                    f"a hook is registered on all modules of the process: {shown(hook)}. What "
                    "networks compute with it has no name. Remove it, or register it on the "
                    "network, module.register_forward_hook(...)."
                )


@functools.cache
def passes_self_test() -> bool:
    """Whether a hook that is registered by PyTorch's public functions is found in its tables.

    Otherwise a line in the debug log says so, and global hooks are not refused.
    """
    try:
        missing = [kind for kind, register in _KINDS.items() if not _finds(kind, register)]
    except Exception as error:
        # Private tables may change in any way.
        missing = [f"{type(error).__name__}: {error}"]
    if missing:
        _log.debug("Global hooks are not found: %s", ", ".join(missing))
    return not missing


def _finds(kind: str, register: str) -> bool:
    handle = getattr(_modules, register)(_observe)
    try:
        return any(hook is _observe for hook in getattr(_modules, kind).values())
    finally:
        handle.remove()


def _observe(*_: Any) -> None:
    """Change nothing: another thread may compute a network during the self-test."""


def _is_of_torch(hook: Any) -> bool:
    if hook is _observe:
        # Another thread runs the self-test.
        return True
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return str(module).partition(".")[0] == "torch"
