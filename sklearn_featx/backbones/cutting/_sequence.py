"""Cut a network that torch.fx cannot follow: at its parts, when they run one after the other.

Whether they do is observed, not assumed. An example batch is sent through and every call of a
module recorded; from the result back to the image, each value must be what one part returned and
the next part took, the same object. Then the chain of parts is run on another example, and counts
only if it returns exactly what the network returns.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .._network import Network

_EXAMPLE_SIZE = (224, 224)


class Step(nn.Module):
    """A part of a network, called as the network calls it: one tensor in, one tensor out.

    Parameters
    ----------
    module : nn.Module
        The part.
    args : tuple
        Further positional arguments: constants.
    kwargs : dict
        Keyword arguments: constants.
    """

    # What rows know it by; another when `forward` computes something else.
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
        """Say with which constants the part is called."""
        return f"args={self.args!r}, kwargs={self.kwargs!r}"


def stages_by_order(network: Network) -> list[tuple[str, nn.Module]]:
    """Parts of a network as its stages, or the whole network as one.

    Returns
    -------
    parts : list of (str, nn.Module)
        Names and modules, from input to output; parts without weights are in the stage before, the
        first parts in the first stage.
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
    """Return the calls that lead from the image to the result, if each leads to one other."""
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
        # The example is a guess at what the network takes; where it is wrong, nothing is known.
        return None
    return parts if same else None


def _observe(network: Network, example: torch.Tensor) -> tuple[list[_Call], Any]:
    """Record the calls of the parts that may be stages: those not opened for their children."""
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
    """Paths of the modules around the stages: each is cut, none is a stage."""
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
    """Walk from the result back to the image; calls that the result does not need are left out."""
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
    """Whether arguments are the same for every image of every size: no tensors, no numbers."""
    if isinstance(value, tuple | list):
        return all(_constant(item) for item in value)
    if isinstance(value, Mapping):
        return all(_constant(item) for item in value.values())
    return value is None or isinstance(value, bool | str)


def _first_tensor(output: Any) -> Any:
    """Return a tensor as it is; of a record its last hidden state, of a tuple its first item."""
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "last_hidden_state"):
        return output.last_hidden_state
    return output[0] if isinstance(output, tuple) and output else output


def _adopt_unused(network: nn.Module, stages: Sequence[nn.Sequential]) -> None:
    """Keep parameters outside the chain with its last part: stages hold every parameter."""
    owned = {id(parameter) for stage in stages for parameter in stage.parameters()}
    unused = [p for p in network.parameters() if id(p) not in owned]
    if unused:
        # In the last step, not beside it: a Sequential would call it.
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
