"""Granularity: the choice of modules as stages, and the end of each stage in the chain.

A stage is a set of parameters, named by their module. It has at least one weight: modules with only
normalization parameters, operations without parameters, and single tensors such as a class token
join the stage that is running when they are used.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from operator import itemgetter

from torch import nn

from ..._messages import listed, shown
from ...exceptions import UnknownLayerError
from .._network import Grouping
from ._chain import Chain

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def groupings(network: nn.Module, opened: Collection[str] = ()) -> tuple[Grouping, Grouping]:
    """Return stages and blocks of a network, derived from its module tree.

    Parameters
    ----------
    network : nn.Module
        A network without head.
    opened : collection of str, default=()
        Paths of containers whose children are the stages.

    Returns
    -------
    stages, blocks : dict of str to tuple of str
        Module paths, and the names of the parameters under each.
    """
    paths = top_level(network, opened)
    return by_path(network, paths), by_path(network, blocks(network, paths))


def by_path(network: nn.Module, paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of the parameters under each module path."""
    names = [name for name, _ in network.named_parameters()]
    return {path: tuple(name for name in names if name.startswith(f"{path}.")) for path in paths}


def has_weights(network: nn.Module, names: Iterable[str]) -> bool:
    """Whether any of these parameters belongs to a layer other than normalization."""
    holders = {name.rpartition(".")[0] for name in names}
    return any(not _normalizes(network.get_submodule(path)) for path in holders)


def top_level(network: nn.Module, opened: Collection[str] = ()) -> list[str]:
    """Return the paths of the top-level modules with weights; those in `opened` are expanded.

    If one child contains all weights, it is expanded, whatever its name.
    """
    paths = _children(network, "")
    while any(path in opened for path in paths) or len(paths) == 1:
        unfolded = [
            child
            for path in paths
            for child in (_children(network, path) if path in opened or len(paths) == 1 else [path])
        ]
        if not unfolded or unfolded == paths:
            break
        paths = unfolded
    return paths


def blocks(network: nn.Module, stages: Sequence[str]) -> list[str]:
    """Return the paths of the blocks: the outermost modules in the stages' containers."""
    found: list[str] = []
    for path in stages:
        inner = _container_inside(network, path)
        found.extend([path] if inner is None else blocks(network, _children(network, inner)))
    return found


def stage_ends(chain: Chain, stages: Grouping) -> dict[str, int]:
    """Return the end of each stage at which the chain can be cut.

    Parameters
    ----------
    chain : Chain
        A traced network.
    stages : dict of str to tuple of str
        Name of each stage to the names of its parameters.

    Returns
    -------
    ends : dict of str to int
        Maps the first stage *after* a cut to the position of the cut: the last split point before
        the first operation of this stage.
    """
    spans = _spans(chain, stages)
    names = [chain.trace.names[node] for node in chain.nodes]
    ends: dict[str, int] = {}
    running_last = -1
    for path, following in pairwise(spans):
        running_last = max(running_last, spans[path][1])
        # A module may begin with operations without parameters, such as a permutation.
        inside = range(running_last + 1, spans[following][0])
        start = next((i for i in inside if _is_inside(names[i], following)), spans[following][0])
        between = range(start - 1, running_last - 1, -1)
        position = next((i for i in between if i in chain.crossing), None)
        if position is not None:
            ends[following] = position
    return _without_shared(chain, ends)


def _is_inside(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def by_first_use(chain: Chain, stages: Grouping) -> list[str]:
    """Return the stages that the chain uses, in the order of their first operation."""
    return list(_spans(chain, stages))


def named_ends(chain: Chain, names: Sequence[str]) -> dict[str, int]:
    """Return the positions of stage ends that a user has named, from input to output.

    What follows the last one joins its stage if it has no parameters: the end is left out.

    Raises
    ------
    UnknownLayerError
        If a name is unknown or repeated, if more than one value crosses the position, if a
        parameter is read on both sides of it, or if no parameter is read between two of them.
    """
    repeated = next((name for name in names if list(names).count(name) > 1), None)
    if repeated is not None:
        raise UnknownLayerError(f"granularity: {shown(repeated)} is named twice.")
    ends = dict(sorted(_positions_of(chain, names).items(), key=itemgetter(1)))
    reads = [i for i in range(len(chain.nodes)) if chain.parameters_at(i)]
    for (before, start), (name, stop) in pairwise([("", -1), *ends.items()]):
        if not any(start < i <= stop for i in reads):
            place = f"between {shown(before)} and it" if before else "before it"
            raise UnknownLayerError(
                f"granularity: {shown(name)} ends no stage, because there is no parameter {place}. "
                "Leave it out."
            )
    return {name: end for name, end in ends.items() if any(end < i for i in reads)}


def _positions_of(chain: Chain, names: Sequence[str]) -> dict[str, int]:
    """Return the position at which each named module ends; raise an error if it is no cut."""
    positions, spans = chain.named_positions(), _shared_spans(chain)
    ends = {}
    for name in names:
        if name not in positions:
            raise UnknownLayerError(unknown_name("granularity", name, positions))
        if positions[name] not in chain.crossing:
            raise UnknownLayerError(
                f"granularity: the network cannot be cut after {shown(name)}, because a shortcut "
                f"passes it by. It can be cut after {_cuttable_near(chain, positions[name])}."
            )
        shared = _divided(spans, positions[name])
        if shared is not None:
            raise UnknownLayerError(
                f"granularity: the network cannot be cut after {shown(name)}, because the "
                f"parameter {shared!r} is used on both sides, and a stage holds its parameters "
                "alone."
            )
        ends[name] = positions[name]
    return ends


def unknown_name(parameter: str, name: object, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the nearest known names."""
    names = list(known)
    near = get_close_matches(str(name), names, n=3, cutoff=0.5) or names[:8]
    names_in_line = listed(map(repr, near))
    return f"{parameter}: there is no {shown(name)}. Did you mean one of [{names_in_line}]?"


def unknown_layer(layer: str, known: Iterable[str]) -> str:
    """Return the message for an unknown layer."""
    if layer.lower() == "all":
        return f"layer: there is no {shown(layer)}. layer='all' alone stands for all stages."
    return unknown_name("layer", layer, known)


def _children(network: nn.Module, path: str) -> list[str]:
    module = network.get_submodule(path)
    prefix = f"{path}." if path else ""
    return [f"{prefix}{name}" for name, child in module.named_children() if _has_weights(child)]


def _has_weights(module: nn.Module) -> bool:
    """Whether a module has parameters other than those of normalization."""
    return any(
        next(part.parameters(recurse=False), None) is not None
        for part in module.modules()
        if not _normalizes(part)
    )


def _normalizes(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _container_inside(network: nn.Module, path: str) -> str | None:
    """Return a module's path if it is a container, or that of its only container of blocks."""
    module = network.get_submodule(path)
    if isinstance(module, _CONTAINERS):
        return path
    children = _children(network, path)
    if len(children) != 1 or next(module.parameters(recurse=False), None) is not None:
        return None
    inner = [network.get_submodule(child) for child in _children(network, children[0])]
    # A block often keeps its layers in a container, too: `conv` of an inverted residual.
    holds_blocks = all(not isinstance(part, _CONTAINERS) and _children(part, "") for part in inner)
    return children[0] if inner and holds_blocks else None


def _spans(chain: Chain, stages: Grouping) -> dict[str, tuple[int, int]]:
    """First and last position at which each stage's parameters are read, in order of the first."""
    owners = {name: stage for stage, names in stages.items() for name in names}
    spans: dict[str, tuple[int, int]] = {}
    for i in range(len(chain.nodes)):
        # Sorted: the order of a set of strings differs between processes.
        for name in sorted(chain.parameters_at(i) & owners.keys()):
            stage = owners[name]
            spans[stage] = (spans.get(stage, (i, i))[0], i)
    return spans


def _without_shared(chain: Chain, ends: Mapping[str, int]) -> dict[str, int]:
    """Return the ends without those that would divide a parameter between two segments."""
    spans = _shared_spans(chain)
    return {name: end for name, end in ends.items() if _divided(spans, end) is None}


def _shared_spans(chain: Chain) -> dict[str, tuple[int, int]]:
    """Return the first and last reading position of parameters that are read repeatedly."""
    spans: dict[str, tuple[int, int]] = {}
    for i in range(len(chain.nodes)):
        for name in chain.parameters_at(i):
            spans[name] = (spans.get(name, (i, i))[0], i)
    return {name: (first, last) for name, (first, last) in spans.items() if first < last}


def _divided(spans: Mapping[str, tuple[int, int]], position: int) -> str | None:
    """Return a parameter that is read on both sides of a cut."""
    both = (name for name, (first, last) in spans.items() if first <= position < last)
    return next(both, None)


def _cuttable_near(chain: Chain, position: int) -> list[str]:
    nearest = sorted(chain.crossing, key=lambda i: abs(i - position))[:4]
    return [chain.trace.names[chain.crossing[i]] for i in sorted(nearest)]
