"""Attributes and buffers of a network: restored after a trial run.

A forward may keep results in attributes: tables by size, a workspace, a counter.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Prefix of torch.fx's names for the constants of a graph.
_CONSTANT = "_tensor_constant"
_CONTAINERS = (dict, OrderedDict, list, set)


@contextmanager
def attributes_kept(module: nn.Module) -> Iterator[None]:
    """Context manager: all modules have the same attributes afterwards; only constants are added.

    Parameters
    ----------
    module : nn.Module
        The network.
    """
    before = [(part, _copied(vars(part))) for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes in before:
            _restore(vars(part), attributes)


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Context manager: all buffers have the same values afterwards.

    Parameters
    ----------
    module : nn.Module
        The network.

    Yields
    ------
    changed : list of Tensor
        After the block, the buffers that it has changed.
    """
    before = [(buffer, buffer.clone(), _version(buffer)) for buffer in module.buffers()]
    changed: list[torch.Tensor] = []
    try:
        yield changed
    finally:
        with torch.no_grad():
            for buffer, old, version in before:
                if _version(buffer) != version:
                    changed.append(buffer)
                    buffer.copy_(old)


def _version(tensor: torch.Tensor) -> int:
    # Tensors of the inference mode have no count of their changes.
    return 0 if tensor.is_inference() else tensor._version


def _copied(attributes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return each attribute with a copy of its items, if it has any."""
    return {
        name: (value, value.copy() if type(value) in _CONTAINERS else None)
        for name, value in attributes.items()
    }


def _restore(now: dict[str, Any], before: dict[str, tuple[Any, Any]]) -> None:
    for name in now.keys() - before.keys():
        if not name.startswith(_CONSTANT):
            del now[name]
    for name, (value, items) in before.items():
        if now.get(name, before) is not value:
            now[name] = value
        # Only what has changed: another thread may read the network.
        if items is not None and not _same(value, items):
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(items)


def _same(container: Any, items: Any) -> bool:
    """Whether a container has the same objects as before."""
    if isinstance(container, dict):
        return list(container) == list(items) and _same(
            list(container.values()), list(items.values())
        )
    if isinstance(container, set):
        return bool(container == items)
    return len(container) == len(items) and all(
        a is b for a, b in zip(container, items, strict=True)
    )
