"""The device of new tensors: the CPU, whatever `torch.set_default_device` says."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def new_on_cpu() -> Iterator[None]:
    """Open a block, or decorate a function, in which new tensors are on the CPU.

    A script may have set a GPU as the default. Networks are built, traced and tried on the CPU, and
    go to their own device afterwards.
    """
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
            yield
