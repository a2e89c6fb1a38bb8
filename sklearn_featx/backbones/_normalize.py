"""Normalization of pixels: scale, mean and standard deviation."""

from collections.abc import Sequence

import torch
from torch import nn

from .._graphs import plain_new_tensors


class Normalize(nn.Module):
    """Normalize levels (n, height, width, channels) to float32 (n, channels, height, width).

    Levels are from 0 to 255: uint8, or float32 if images have more than 8 bits. Any other tensor
    was prepared by the user and is returned unchanged.

    Parameters
    ----------
    mean, std : sequence of float or None
        Value per channel, for pixels from 0 to 1. None: 0 and 1.
    float_levels : bool, default=False
        Whether floating-point tensors with four axes are levels, not prepared tensors.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    @plain_new_tensors()
    def __init__(
        self,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        *,
        float_levels: bool = False,
    ) -> None:
        super().__init__()
        self.float_levels = float_levels
        center = torch.tensor([0.0] if mean is None else list(mean), dtype=torch.float64)
        spread = torch.tensor([1.0] if std is None else list(std), dtype=torch.float64)
        # (x / 255 - mean) / std as one multiplication and one addition.
        for name, value in (("scale", 1 / (255 * spread)), ("shift", -center / spread)):
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize a batch of pixels."""
        if x.dtype is not torch.uint8 and not (self.float_levels and x.ndim == 4):
            return x
        n_channels, width = x.shape[3], x.shape[2]
        # Whole lines of pixels: inner loops over three channels would not be vectorized.
        scale = self.scale.expand(n_channels).repeat(width)
        shift = self.shift.expand(n_channels).repeat(width)
        # The batch itself must not change.
        lines = x.to(torch.float32, copy=not torch.compiler.is_compiling()).flatten(2)
        if torch.compiler.is_compiling():
            # Compilers reuse memory themselves, and older ones cannot export in-place operations.
            lines = lines * scale + shift
        else:
            lines.mul_(scale).add_(shift)
        # Permuting (n, h, w, c) gives a channels_last tensor without a copy.
        return lines.view(x.shape).permute(0, 3, 1, 2)
