"""How a network runs on a CPU without PyTorch's compiler: layers of oneDNN, some rows at a time."""

import torch
from torch import fx

from ._micro_batches import MicroBatched
from ._onednn import fuse_layers
from ._sections import Sectioned
from ._whole import Whole


def eager_for(whole: Whole, device: torch.device) -> Whole:
    """Make the most of a network without the compiler.

    Parameters
    ----------
    whole : Whole
        What an engine runs, the caller's own copy; it is changed.
    device : torch.device
        Where it is.

    Returns
    -------
    eager : Whole
        The same module.
    """
    if device.type == "cpu":
        fuse_layers(whole)
        network = whole.network
        whole.network = (
            Sectioned(network) if isinstance(network, fx.GraphModule) else MicroBatched(network)
        )
    return whole
