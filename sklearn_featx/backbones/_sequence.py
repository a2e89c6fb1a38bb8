"""Cut a network that torch.fx cannot follow: at its top-level parts, when they run in sequence.

Whether they do is observed, not assumed: one example image is sent through, and each part must
take exactly what the part before it returned, the last part's result being the network's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ._network import Network

_EXAMPLE_SIZE = (224, 224)


def stages_by_order(network: Network) -> list[tuple[str, nn.Module]]:
    """Top-level parts of a network as its stages, or the whole network as one.

    Returns
    -------
    parts : list of (str, nn.Module)
        Names and modules, from input to output; parts without weights are inside the stage before.
    """
    calls = _observe(network)
    if calls is None or not _is_sequence(calls):
        return [("network", network.module)]
    parts: list[tuple[str, list[nn.Module]]] = []
    for path in calls.paths:
        module = network.module.get_submodule(path)
        owns_weights = path in network.stages
        if owns_weights and (not parts or _any_weights(parts[-1][1])):
            parts.append((path, [module]))
        elif parts:
            parts[-1][1].append(module)
        else:
            parts.append((path, [module]))
    return [(name, nn.Sequential(*modules).eval()) for name, modules in parts]


class _Calls:
    """The top-level calls of one run, with what went in and came out."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.first: Any = None
        self.last: Any = None


def _observe(network: Network) -> _Calls | None:
    calls = _Calls()
    handles = [
        child.register_forward_hook(_recorder(calls, name))
        for name, child in network.module.named_children()
    ]
    try:
        example = torch.zeros(1, network.preprocess.channels, *_size(network))
        with torch.inference_mode():
            calls.first, calls.last = example, network.module(example)
    except Exception:
        # The example is a guess at what the network takes; where it is wrong, nothing is known.
        return None
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _recorder(calls: _Calls, name: str) -> Any:
    def record(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls.paths.append(name)
        calls.inputs.append(inputs[0] if len(inputs) == 1 else inputs)
        calls.outputs.append(output)

    return record


def _is_sequence(calls: _Calls) -> bool:
    """Whether each call took what the call before returned, compared as objects."""
    sources = [calls.first, *calls.outputs]
    taken = [*calls.inputs, calls.last]
    once = len(set(calls.paths)) == len(calls.paths) > 1
    return once and all(a is b for a, b in zip(sources, taken, strict=True))


def _any_weights(modules: Sequence[nn.Module]) -> bool:
    return any(next(module.parameters(), None) is not None for module in modules)


def _size(network: Network) -> tuple[int, int]:
    return network.preprocess.output_size or _EXAMPLE_SIZE
