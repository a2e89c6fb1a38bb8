"""Cutting of an untraceable network at its parts, if they run in sequence.

The sequence is observed. An example batch runs through the network, and every call of a module is
recorded: from the result back to the image, the input of each part must be the same object as the
output of the previous part. The chain of parts is then computed for another example, and is only
used if its result equals that of the network exactly.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .._network import Network

_EXAMPLE_SIZE = (224, 224)


class Step(nn.Module):
    """A part of a network with one input and one output tensor, called as the network calls it.

    Parameters
    ----------
    module : nn.Module
        The part.
    args : tuple
        Additional positional arguments, which are constant.
    kwargs : dict
        Keyword arguments, which are constant.
    """

    # Part of the rows' keys. Change it if `forward` computes something else.
    digest_name = "Step 1"

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.args = args
        self.kwargs = dict(kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Call the part and return its first tensor."""
        output: torch.Tensor = _first_tensor(self.module(x, *self.args, **self.kwargs))
        return output

    def extra_repr(self) -> str:
        """Return the constant arguments as text."""
        return f"args={self.args!r}, kwargs={self.kwargs!r}"


def stages_by_order(network: Network) -> list[tuple[str, nn.Module]]:
    """Return the parts of a network as stages, or the whole network as one stage.

    Returns
    -------
    parts : list of (str, nn.Module)
        Names and modules, from input to output. Parts without weights belong to the previous
        stage, or to the first one.
    """
    steps = _observed_steps(network)
    if steps is None:
        return [("network", network.module)]
    groups: list[tuple[str, list[nn.Module]]] = []
    for path, step in steps:
        if path in network.stages and (not groups or _any_parameters(groups[-1][1])):
            groups.append((path, [step]))
        elif groups:
            groups[-1][1].append(step)
        else:
            groups.append((path, [step]))
    stages = [nn.Sequential(*parts).eval() for _, parts in groups]
    if _shares_parameters(stages):
        return [("network", network.module)]
    _adopt_unused(network.module, stages)
    return [(name, stage) for (name, _), stage in zip(groups, stages, strict=True)]


class _Call(NamedTuple):
    path: str
    given: torch.Tensor
    returned: torch.Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _observed_steps(network: Network) -> list[tuple[str, Step]] | None:
    """Return the calls that lead from the image to the result, or None if they are no sequence."""
    examples = [_example(network, seed) for seed in (0, 1)]
    try:
        calls, result = _observe(network, examples[0])
        chain = _chain(calls, examples[0], result)
        if chain is None or len(chain) < 2 or len({call.path for call in chain}) < len(chain):
            return None
        parts = [
            (c.path, Step(network.module.get_submodule(c.path), c.args, c.kwargs)) for c in chain
        ]
        with torch.no_grad():
            value = examples[1].clone()
            for _, step in parts:
                value = step(value)
            same = torch.equal(value, network.module(examples[1].clone()))
    except Exception:
        # The network's own code runs on an example of an assumed shape, and may raise anything.
        return None
    return parts if same else None


def _observe(network: Network, example: torch.Tensor) -> tuple[list[_Call], Any]:
    """Record the calls of the parts that may be stages: those that are not expanded."""
    opened = _opened(network)
    calls: list[_Call] = []
    handles = [
        module.register_forward_hook(_recorder(calls, path), with_kwargs=True)
        for path, module in network.module.named_modules()
        if path not in opened and path.rpartition(".")[0] in opened
    ]
    try:
        with torch.no_grad():
            result = network.module(example)
    finally:
        for handle in handles:
            handle.remove()
    return calls, result


def _opened(network: Network) -> set[str]:
    """Return the paths of the modules that contain stages."""
    parts = [path.split(".")[:-1] for path in network.stages]
    return {".".join(part[:depth]) for part in parts for depth in range(len(part) + 1)}


def _recorder(calls: list[_Call], path: str) -> Any:
    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if args and isinstance(args[0], torch.Tensor):
            calls.append(_Call(path, args[0], _first_tensor(output), args[1:], kwargs))
        elif not args and isinstance(kwargs.get("pixel_values"), torch.Tensor):
            rest = {key: value for key, value in kwargs.items() if key != "pixel_values"}
            calls.append(_Call(path, kwargs["pixel_values"], _first_tensor(output), (), rest))

    return record


def _chain(calls: list[_Call], first: torch.Tensor, last: Any) -> list[_Call] | None:
    """Return the calls from the image to the result; calls without effect on it are omitted."""
    chain: list[_Call] = []
    value = last
    for call in reversed(calls):
        if call.returned is value:
            if not _constant((call.args, call.kwargs)):
                return None
            chain.insert(0, call)
            value = call.given
    return chain if value is first else None


def _constant(value: Any) -> bool:
    """Whether arguments contain neither tensors nor numbers, which may depend on the image."""
    if isinstance(value, tuple | list):
        return all(_constant(item) for item in value)
    if isinstance(value, Mapping):
        return all(_constant(item) for item in value.values())
    return value is None or isinstance(value, bool | str)


def _first_tensor(output: Any) -> Any:
    """Return a tensor, the last hidden state of a record, or the first item of a tuple."""
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "last_hidden_state"):
        return output.last_hidden_state
    return output[0] if isinstance(output, tuple) and output else output


def _adopt_unused(network: nn.Module, stages: Sequence[nn.Sequential]) -> None:
    """Assign parameters outside the chain to its last part, so that every one has a stage."""
    owned = {id(parameter) for stage in stages for parameter in stage.parameters()}
    unused = [p for p in network.parameters() if id(p) not in owned]
    if unused:
        # An attribute of the last step, because a Sequential would call another child.
        stages[-1][-1].unused = nn.ParameterList(unused).requires_grad_(False)


def _shares_parameters(stages: Sequence[nn.Module]) -> bool:
    owned = [id(parameter) for stage in stages for parameter in stage.parameters()]
    return len(owned) != len(set(owned))


def _any_parameters(modules: list[nn.Module]) -> bool:
    return any(next(module.parameters(), None) is not None for module in modules)


def _example(network: Network, seed: int) -> torch.Tensor:
    size = network.preprocess.output_size or _EXAMPLE_SIZE
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, network.preprocess.channels, *size, generator=generator)
