"""Number of channels of a network's input, from its first convolution."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

# Height and width of the images that search for the first convolution: some networks take one size.
_SIDES = (64, 224, 32)
_MOST_CANDIDATES = 6


class _Reached(NamedTuple):
    """The first convolution that an image reaches: its channels, and those that it gets."""

    wanted: int
    given: int


class _Stop(Exception):  # noqa: N818 (no error)
    def __init__(self, reached: _Reached) -> None:
        super().__init__()
        self.reached = reached


def reads_pictures(backbone: Any) -> bool:
    """Whether a backbone is a network whose first convolution is for gray or color pictures.

    Parameters
    ----------
    backbone : object
        The parameter of an estimator. False for names and functions: their network is not known.
    """
    if not isinstance(backbone, nn.Module):
        return False
    first = _first_convolution(backbone)
    return first is None or _is_for_pictures(first)


def _is_for_pictures(convolution: nn.Conv2d) -> bool:
    # 0: a lazy layer, which takes what comes first.
    return convolution.in_channels in (0, 1, 3)


def _first_convolution(module: nn.Module) -> nn.Conv2d | None:
    return next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)


def input_channels(
    module: nn.Module, size: tuple[int, int] | None = None, *, is_stem: bool = False
) -> int:
    """Return the number of channels of a network's input.

    Parameters
    ----------
    module : nn.Module
        A frozen network.
    size : (int, int), default=None
        Height and width of its images; None: unknown.
    is_stem : bool, default=False
        Whether the first of its convolutions takes the image, as in the networks of libraries.

    Returns
    -------
    n_channels : int
        The first number, from 3 on, with which the first convolution gets as many channels as it
        takes. 3 if there is no convolution, or if no number is found; 1 if it takes 1.
    """
    first = _first_convolution(module)
    if first is None:
        return 3
    if is_stem and _is_for_pictures(first):
        return first.in_channels
    # The order of modules is not that of computation, and pixels may be rearranged before them.
    sizes = [(side, side) for side in _SIDES] if size is None else [size]
    # 3 first: a convolution of one channel may get the mean of the colors.
    candidates = [3, first.in_channels]
    for n_channels in candidates:
        images = (torch.zeros(1, n_channels, *sides, device="cpu") for sides in sizes)
        found = (_first_reached(module, image) for image in images)
        reached = next((each for each in found if each is not None), None)
        if reached is not None and reached.wanted == reached.given:
            return n_channels
        if reached is not None and len(candidates) < _MOST_CANDIDATES:
            candidates += _likely(n_channels, reached)
    return first.in_channels if is_stem or _is_for_pictures(first) else 3


def _likely(n_channels: int, reached: _Reached) -> list[int]:
    """Return numbers of channels that the first convolution may have meant."""
    multiplied, rest = divmod(n_channels * reached.wanted, reached.given)
    added = n_channels + reached.wanted - reached.given
    return ([] if rest else [multiplied]) + ([added] if added > 0 else [])


def _first_reached(module: nn.Module, image: torch.Tensor) -> _Reached | None:
    """Send an image through a network up to its first convolution; None if it ends before."""
    try:
        with torch.no_grad(), _stopping(module):
            module(image)
    except _Stop as stop:
        return stop.reached
    except Exception:
        # The user's code runs here, on an image of an assumed shape, and may raise anything.
        return None
    return None


@contextmanager
def _stopping(module: nn.Module) -> Iterator[None]:
    """Context manager: a convolution stops the computation."""

    def stop(layer: Any, inputs: tuple[Any, ...]) -> None:
        raise _Stop(_Reached(layer.in_channels, inputs[0].shape[-3]))

    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    hooks = [part.register_forward_pre_hook(stop) for part in convolutions]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
