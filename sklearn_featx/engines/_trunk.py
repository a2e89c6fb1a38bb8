"""The module that an engine computes: normalization, network and pooling."""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx, nn

from ._fused_layers import fuse_layers
from ._sections import Sectioned


class ComplexResultError(TypeError):
    """A result of the network is complex: its imaginary part would be lost.

    Parameters
    ----------
    position : int
        Position of the result.
    dtype : torch.dtype
        Its dtype.
    """

    def __init__(self, position: int, dtype: torch.dtype) -> None:
        self.position = position
        self.dtype = dtype
        super().__init__(f"result {position} of the network is complex ({dtype})")


class Whole(nn.Module):
    """Computation of a batch of pixels or numbers, with a list of float32 results.

    Parameters
    ----------
    normalize : nn.Module or None
        The normalization of a batch before the network, in float32.
    network : nn.Module
        The network, which returns one tensor or a tuple of tensors.
    pools : sequence of nn.Module
        The pooling of each of its results.
    dtype : torch.dtype
        Dtype in which the network computes.
    channels_last : bool, default=True
        Whether feature maps may have the channels_last memory format.
    """

    def __init__(
        self,
        normalize: nn.Module | None,
        network: nn.Module,
        pools: Sequence[nn.Module],
        dtype: torch.dtype,
        *,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.normalize = nn.Identity() if normalize is None else copy.deepcopy(normalize)
        self.network = network
        self.pools = nn.ModuleList(_Pooled(i, pool) for i, pool in enumerate(pools))
        self.dtype = dtype
        self.channels_last = channels_last

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        x = self.normalize(batch)
        if x.is_floating_point():
            x = x.to(self.dtype)
        if not self.channels_last:
            # A copy: maps of one channel are contiguous with the strides of channels_last, too.
            x = x.clone(memory_format=torch.contiguous_format)
        outputs = self.network(x)
        found = outputs if isinstance(outputs, tuple) else (outputs,)
        return [pool(output) for pool, output in zip(self.pools, found, strict=True)]


class _Pooled(nn.Module):
    """A pooling in float32: in 16 bits it would lose the precision that a mean gains."""

    def __init__(self, position: int, pool: nn.Module) -> None:
        super().__init__()
        self.position = position
        self.pool = pool

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        if activations.is_complex():
            raise ComplexResultError(self.position, activations.dtype)
        pooled: torch.Tensor = self.pool(activations.float())
        return pooled


def optimize(whole: Whole, device: torch.device) -> Whole:
    """Optimize a module, in place: on a CPU by fused layers, and by sections if it is traced."""
    if device.type == "cpu":
        # The results of fused layers are channels_last.
        if whole.channels_last:
            fuse_layers(whole, whole.dtype)
        if isinstance(whole.network, fx.GraphModule):
            _pool_in_the_network(whole, whole.network)
            whole.network = Sectioned(whole.network)
    return whole


def _pool_in_the_network(whole: Whole, network: fx.GraphModule) -> None:
    """Pool each result where it is computed: there its maps are in the cache, and end."""
    graph, output = network.graph, network.graph.output_node()
    results = []
    for i, (node, pool) in enumerate(zip(_results(output), whole.pools, strict=True)):
        name = f"featx_pool_{i}"
        network.add_submodule(name, pool)
        # A copy protects a result from operations in place; a copy of the vector is cheaper.
        copies = node.op == "call_method" and node.target == "clone"
        with graph.inserting_after(node):
            result = graph.call_module(name, node.args[:1] if copies else (node,))
        if copies:
            with graph.inserting_after(result):
                result = graph.call_method("clone", (result,))
        results.append(result)
    before, output.args = output.all_input_nodes, (tuple(results),)
    for node in before:
        if not node.users:
            graph.erase_node(node)
    network.recompile()
    whole.pools = nn.ModuleList(nn.Identity() for _ in results)


def _results(output: fx.Node) -> tuple[fx.Node, ...]:
    (results,) = output.args
    return (results,) if isinstance(results, fx.Node) else tuple(cast("Any", results))
