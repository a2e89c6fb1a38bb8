"""Randomness that leaves no trace: seeds come from `random_state`, torch's global state comes back.

Everything random of this sub-package (a head's first weights, dropout) runs inside `seeded`; the
order of rows is drawn from a generator of its own. Python's and NumPy's generators are not used.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(random_state: int, stream: int) -> int:
    """Give each use of one `random_state` a seed of its own.

    Parameters
    ----------
    random_state : int
        The seed that the user gave, at least 0.
    stream : int
        Number of the use, at least 0.

    Returns
    -------
    seed : int
        In [0, 2**63), the same on every machine.
    """
    words = np.random.SeedSequence((random_state, stream)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def seed_torch(seed: int, device: str | torch.device) -> None:
    """Seed torch's global generators of the CPU and of one device, and no other.

    `torch.manual_seed` would reseed every device of the machine, also those of other work.

    Parameters
    ----------
    seed : int
        The seed.
    device : str or torch.device
        The device beside the CPU.
    """
    torch.default_generator.manual_seed(seed)
    device = torch.device(device)
    if device.type != "cpu":
        state = torch.Generator(device).manual_seed(seed).get_state()
        torch.get_device_module(device).set_rng_state(state, device)


@contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Run a block on seeded generators and put torch's global state back afterwards.

    Parameters
    ----------
    seed : int
        Seed of torch's generators in the block.
    device : str or torch.device, default="cpu"
        The device that the block uses; the CPU's generator is always seeded and restored.

    Yields
    ------
    None
        Nothing: the block runs.
    """
    device = torch.device(device)
    if device.type == "cpu":
        kept = torch.random.fork_rng(devices=[])
    else:
        kept = torch.random.fork_rng([device], device_type=device.type)
    with kept:
        seed_torch(seed, device)
        yield
