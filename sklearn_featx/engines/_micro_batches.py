"""A network that cannot be cut, run on some rows of a batch at a time: as many as are fastest."""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ._trials import FastestWay

# Beside the whole batch. Depthwise convolutions are fastest with few rows, those that weigh all
# channels with more; what a module that was not traced consists of is not known. Few, since a trial
# takes eleven batches for each.
_ROWS_TO_TRY = (16, 4)


class MicroBatched(nn.Module):
    """A network whose batches are divided as measured.

    Parameters
    ----------
    network : nn.Module
        Takes a batch; returns one tensor or a tuple of tensors, rows first.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network
        self._lock = threading.Lock()
        # By the shape of a batch.
        self._fastest: dict[tuple[int, ...], FastestWay] = {}

    def forward(self, x: torch.Tensor) -> Any:
        """Run a batch."""
        shape = tuple(x.shape)
        with self._lock:
            if shape not in self._fastest:
                parts = [partial(self._run, n_rows=n) for n in _ROWS_TO_TRY if n < len(x)]
                self._fastest[shape] = FastestWay(self._network, *parts)
        return self._fastest[shape](x)

    def _run(self, x: torch.Tensor, n_rows: int) -> Any:
        return joined([self._network(rows) for rows in torch.split(x, n_rows)])


def joined(parts: Sequence[Any]) -> Any:
    """Join what a network returned for parts of a batch.

    Parameters
    ----------
    parts : sequence of Tensor, or of tuple of Tensor
        At least one.

    Returns
    -------
    whole : Tensor, or tuple of Tensor
        With the rows of all parts.
    """
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], torch.Tensor):
        return torch.cat(list(parts))
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))
