"""Backbones from a user's own module: copied, never changed, told apart by content."""

import copy
import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from .._digest import combine, digest
from .._preprocess import Preprocess
from ._granularity import top_level
from ._network import Network, freeze
from ._weights import digest_tensor


def build_custom(module: nn.Module) -> Network:
    """Make a backbone of a copy of a user's module; nothing of it is removed.

    Parameters
    ----------
    module : nn.Module
        Any network that takes one tensor and returns one tensor.

    Returns
    -------
    network : Network
        Its stages are the module's top-level children. Pixels reach it on the scale 0 to 1; it
        sees greyscale images when its first convolution has one input channel.
    """
    own = freeze(copy.deepcopy(module))
    return Network(
        name=type(module).__name__.lower(),
        module=own,
        preprocess=Preprocess(channels=_input_channels(own)),
        stages=tuple(top_level(own)),
        origin={"source": "module", "class": _qualified(type(module))},
    )


def digest_module(module: nn.Module) -> str:
    """Digest of a module's code, settings, parameters and buffers.

    Two modules with one digest compute the same function. Modes and gradients do not count.
    """
    return combine(part for name, child in module.named_modules() for part in _parts(name, child))


def _parts(name: str, module: nn.Module) -> Iterator[str]:
    yield digest(name, _qualified(type(module)), _code_digest(type(module).forward))
    for key, value in sorted(vars(module).items()):
        if key != "training" and not key.startswith(("_backward", "_forward", "_state_dict", "_load")):
            if key not in ("_parameters", "_buffers", "_modules", "_is_full_backward_hook"):
                yield digest(key, _setting(value))
    for key, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            yield digest(key)
            yield digest_tensor(tensor)


def _setting(value: Any) -> str:
    """A plain attribute as text that is equal in every process."""
    if isinstance(value, FunctionType | MethodType | type | functools.partial) or callable(value):
        return _callable_text(value)
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_setting(item) for item in value]
        return f"{type(value).__name__}({', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{_setting(k)}: {_setting(v)}' for k, v in value.items())})"
    if hasattr(value, "detach"):
        return digest_tensor(value)
    text = repr(value)
    # The default repr shows an address, which differs in every process.
    return text if " at 0x" not in text else _qualified(type(value))


def _callable_text(function: Any) -> str:
    if isinstance(function, functools.partial):
        bound = (_setting(function.args), _setting(dict(function.keywords)))
        return f"partial({_callable_text(function.func)}, {bound})"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}:{_code_digest(function)}"


def _code_digest(function: Any) -> str:
    """Digest of a function's compiled code: a class edited in a notebook keeps its name."""
    code = getattr(function, "__code__", None)
    return "" if code is None else _digest_code(code)


def _digest_code(code: CodeType) -> str:
    constants = [
        _digest_code(constant) if isinstance(constant, CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    return digest(code.co_code, repr(code.co_names), *constants)


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _input_channels(module: nn.Module) -> int:
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3
