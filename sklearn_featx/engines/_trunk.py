"""Normalization, network and pooling as one module: what an engine runs."""

import copy
from collections.abc import Sequence

import torch
from torch import fx, nn

from ._fused_layers import fuse_layers
from ._sections import Sectioned


class Whole(nn.Module):
    """From a batch of pixels or numbers to a list of results, in float32.

    Parameters
    ----------
    normalize : nn.Module or None
        What is done to a batch before the network, in float32.
    network : nn.Module
        Returns one tensor or a tuple of tensors.
    pools : sequence of nn.Module
        What is done to each of its results.
    dtype : torch.dtype
        Type in which the network computes.
    """

    def __init__(
        self,
        normalize: nn.Module | None,
        network: nn.Module,
        pools: Sequence[nn.Module],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.normalize = nn.Identity() if normalize is None else copy.deepcopy(normalize)
        self.network = network
        self.pools = nn.ModuleList(pools)
        self.dtype = dtype

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        x = self.normalize(batch)
        if x.is_floating_point():
            x = x.to(self.dtype)
        outputs = self.network(x)
        found = outputs if isinstance(outputs, tuple) else (outputs,)
        # Vectors of 16 bits would lose what a mean over many positions gains.
        return [pool(output.float()) for pool, output in zip(self.pools, found, strict=True)]


def optimize(whole: Whole, device: torch.device) -> Whole:
    """Make a module fast, in place: on a CPU by fused layers, and by sections if it is traced."""
    if device.type == "cpu":
        fuse_layers(whole, whole.dtype)
        if isinstance(whole.network, fx.GraphModule):
            whole.network = Sectioned(whole.network)
    return whole
