"""Engines: fast computation of a frozen network on batches, independent of images and backbones."""

from ._arithmetic import arithmetic_facts
from ._device import resolve_device
from ._engine import Engine, EngineName, make_engine
from ._precision import resolve_precision, type_name, warn_if_emulated
from ._threads import Workers, count_threads
from ._trunk import ComplexResultError

__all__ = [
    "ComplexResultError",
    "Engine",
    "EngineName",
    "Workers",
    "arithmetic_facts",
    "count_threads",
    "make_engine",
    "resolve_device",
    "resolve_precision",
    "type_name",
    "warn_if_emulated",
]
