"""Freed memory of feature maps: the C library keeps it for the next maps."""

import functools

import torch

# glibc's dynamic thresholds follow a freed block of at most 32 MiB; see mallopt(3).
_BYTES = 2**25 - 2**16


@functools.cache
def keep_freed_memory() -> None:
    """Allocate and free a block of almost 32 MiB, once per process.

    glibc gives free memory back to the system when there is more than twice the largest block that
    it has mapped and freed. Without a large one, the memory of feature maps is given back in every
    section of a network, and fetched again in the next, a page fault for each 4 KiB. After this,
    glibc keeps 64 MiB. For other C libraries, it is a block like others.
    """
    torch.empty(_BYTES, dtype=torch.uint8, device="cpu")
