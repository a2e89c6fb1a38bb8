"""Type aliases that several modules use."""

import os
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
# From 0 (black) to 255 (white): uint8 if all levels are whole numbers, float32 otherwise.
Levels: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
AnyArray: TypeAlias = npt.NDArray[Any]
Pooling: TypeAlias = Literal["avg", "max", "avgmax", "gem", "grid2", "grid3", "cls", "flatten"]
BagPooling: TypeAlias = Literal["mean", "max", "min", "std"]
Granularity: TypeAlias = Literal["stage", "block"] | list[str]
UnfreezeDepth: TypeAlias = int | Literal["all"] | tuple[int, int]
Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "auto"]
EngineChoice: TypeAlias = Literal["torch", "openvino"]
OnError: TypeAlias = Literal["raise", "nan"]
Weights: TypeAlias = str | os.PathLike[str] | None
