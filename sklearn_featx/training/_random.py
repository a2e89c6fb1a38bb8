"""Random numbers: seeds derived from `random_state`, without changing torch's global state.

All random numbers of this package (initial weights of a head, dropout) are drawn in `Draws.active`;
the order of rows comes from another generator. Python's and NumPy's generators are not used.

Dropout always draws from torch's global generators, which all threads share. Therefore a lock
serializes these blocks: each thread draws the same numbers as it would alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from .._parallel import generator_lock


def derive_seed(random_state: int, stream: int) -> int:
    """Return the seed of one stream of a `random_state`.

    Parameters
    ----------
    random_state : int
        The user's seed, at least 0.
    stream : int
        Number of the stream, at least 0.

    Returns
    -------
    seed : int
        The seed, in [0, 2**63), the same on every machine.
    """
    words = np.random.SeedSequence((random_state, stream)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


class Draws:
    """A sequence of random numbers that torch's global generators draw in blocks of code.

    Parameters
    ----------
    seed : int
        The seed.
    device : str or torch.device, default="cpu"
        The device of the blocks, in addition to the CPU. No other device is seeded.
    """

    def __init__(self, seed: int, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        self._is_active = False
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Restart from a seed, also in an active block.

        Parameters
        ----------
        seed : int
            The seed.
        """
        devices = [torch.device("cpu")]
        if _is_other(self._device):
            devices.append(self._device)
        generators = [torch.Generator(device).manual_seed(seed) for device in devices]
        self._first = self._states = [generator.get_state() for generator in generators]
        if self._is_active:
            self._put(self._states)

    @property
    def were_used(self) -> bool:
        """Whether a block has drawn random numbers since the seed was set."""
        pairs = zip(self._first, self._states, strict=True)
        return not all(torch.equal(first, now) for first, now in pairs)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context manager: torch draws these numbers in the block, then restores its global state.

        Yields
        ------
        None
            Nothing: the block runs.
        """
        with generator_lock:
            if self._is_active:
                yield
                return
            outside = self._current()
            self._put(self._states)
            self._is_active = True
            try:
                yield
            finally:
                self._is_active = False
                self._states = self._current()
                self._put(outside)

    def _current(self) -> list[torch.Tensor]:
        states = [torch.default_generator.get_state()]
        if _is_other(self._device):
            states.append(torch.get_device_module(self._device).get_rng_state(self._device))
        return states

    def _put(self, states: list[torch.Tensor]) -> None:
        torch.default_generator.set_state(states[0])
        if _is_other(self._device):
            torch.get_device_module(self._device).set_rng_state(states[1], self._device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context manager: torch's generator of the CPU is seeded in the block, then restored.

    Parameters
    ----------
    seed : int
        Seed of the generator in the block.

    Yields
    ------
    None
        Nothing: the block runs.
    """
    with Draws(seed).active():
        yield


def _is_other(device: torch.device) -> bool:
    return device.type != "cpu"
