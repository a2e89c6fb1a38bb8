"""New tensors: on the CPU and open to gradients, whatever the caller has set around the call."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def plain_new_tensors() -> Iterator[None]:
    """Open a block, or decorate a function, in which new tensors are plain ones on the CPU.

    A script may have set a GPU as the default device, or call within `torch.inference_mode`.
    Networks are built, traced and tried on the CPU, and go to their own device afterwards; they are
    kept for the process, and one that was made in inference mode could never be trained.
    """
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        yield
