"""The module that an engine computes: normalization, network and pooling."""

import copy
from collections.abc import Sequence

import torch
from torch import fx, nn

from ._fused_layers import fuse_layers
from ._sections import Sectioned


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
        # Pooling in 16 bits would lose the precision that a mean over many positions gains.
        return [pool(output.float()) for pool, output in zip(self.pools, found, strict=True)]


def optimize(whole: Whole, device: torch.device) -> Whole:
    """Optimize a module, in place: on a CPU by fused layers, and by sections if it is traced."""
    if device.type == "cpu":
        fuse_layers(whole, whole.dtype)
        if isinstance(whole.network, fx.GraphModule):
            whole.network = Sectioned(whole.network)
    return whole
