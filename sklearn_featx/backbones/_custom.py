"""Backbones from a user's own module: copied, never changed, told apart by content."""

import copy
import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from .._digest import combine, digest
from .._preprocess import Preprocess
from ..exceptions import BackboneError
from ._granularity import groupings
from ._huggingface import build_huggingface, is_huggingface
from ._network import Network, freeze
from ._weights import digest_tensor

# What every module has beside its settings.
_NOT_SETTINGS = ("training", "_parameters", "_buffers", "_modules", "_is_full_backward_hook")
_HOOKS = ("_backward", "_forward", "_state_dict", "_load")
# Trusted to compute the same under the same name. Each version of Python compiles their code anew,
# and what was saved under one is to be known under the next.
_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "sklearn_featx")


def build_custom(module: nn.Module, *, borrowed: bool = True) -> Network:
    """Make a backbone of a copy of a user's module; nothing of it is removed.

    Parameters
    ----------
    module : nn.Module
        Any network that takes one tensor and returns one tensor.
    borrowed : bool, default=True
        Whether it is the user's, so that it must be copied; a new one is copied if it can be.

    Returns
    -------
    network : Network
        Its stages are the module's top-level children. Pixels reach it on the scale 0 to 1; it
        sees greyscale images when its first convolution has one input channel. A model of Hugging
        Face's transformers is a backbone up to its last hidden state.

    Raises
    ------
    BackboneError
        If the module cannot be copied.
    """
    own = _copied(module, borrowed=borrowed)
    if is_huggingface(own):
        return build_huggingface(own)
    freeze(own)
    stages, blocks = groupings(own)
    return Network(
        name=type(module).__name__.lower(),
        module=own,
        preprocess=Preprocess(channels=_input_channels(own)),
        stages=stages,
        blocks=blocks,
        origin={"source": "module", "class": _qualified(type(module))},
    )


def digest_module(module: nn.Module) -> str:
    """Digest of a module's code, settings, parameters and buffers.

    Two modules with one digest compute the same function. Modes and gradients do not count.
    """
    named = module.named_modules()
    return combine(part for name, child in named for part in own_digests(name, child))


def own_digests(name: str, module: nn.Module) -> Iterator[str]:
    """Yield digests of a module's code, settings and tensors, those of its children left out."""
    yield digest(name, _qualified(type(module)), _forward_digest(type(module)))
    for key, value in sorted(vars(module).items()):
        if key not in _NOT_SETTINGS and not key.startswith(_HOOKS):
            yield digest(key, _setting(value))
    for key, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            yield digest(key)
            yield digest_tensor(tensor)


def _copied(module: nn.Module, *, borrowed: bool) -> nn.Module:
    try:
        # Shapes are tried on the CPU; each engine and each tail goes to its device itself.
        return copy.deepcopy(module).cpu()
    except Exception as error:
        if not borrowed:
            return module
        # Whatever a module holds (locks, generators, tensors of a graph) may refuse to be copied.
        raise BackboneError(
            f"backbone: the {type(module).__name__} cannot be copied ({error}), and is not used "
            "itself, so that it stays as it is. Pass a function that builds it instead."
        ) from error


def _setting(value: Any) -> str:
    """Write a plain attribute as text that is equal in every process."""
    if isinstance(value, FunctionType | MethodType | type | functools.partial) or callable(value):
        return _callable_text(value)
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_setting(item) for item in value]
        ordered = sorted(parts) if isinstance(value, set | frozenset) else parts
        return f"{type(value).__name__}({', '.join(ordered)})"
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


def _forward_digest(cls: type[nn.Module]) -> str:
    """Digest of what a class computes; where a library does, what the class says instead."""
    written_in = getattr(cls.forward, "__module__", None) or cls.__module__
    if written_in.partition(".")[0] in _LIBRARIES:
        return getattr(cls, "forward_digest", "")
    return _code_digest(cls.forward)


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
