"""Run frozen stages on batches, fast. Imports torch; knows nothing of images or backbones."""

from ._device import resolve_device
from ._torch import TorchEngine

__all__ = ["TorchEngine", "resolve_device"]
