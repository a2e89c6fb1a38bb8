"""What is done to an image until it is a row: backbone, taps, preprocessing, device."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from .. import __version__
from .._digest import combine, digest
from .._preprocess import Preprocess
from .._typing import AnyArray, Pooling, Precision
from ..backbones import Backbone
from ..engines import EngineName, arithmetic_facts, resolve_device, resolve_precision
from ..images import (
    ImageCollection,
    digest_reading,
    iterate_batches,
    prepare_callable,
    prepare_geometry,
)
from ..store import Storage
from ._failures import refuse_none_readable


class Tap(NamedTuple):
    """A place where activations leave the network.

    Parameters
    ----------
    layer : str or int
        Name of a module, operation or stage; or the number of stages before it: 0 is the
        preprocessed image itself.
    pooling : str or None, default=None
        How they become vectors; None: as they are.
    """

    layer: str | int
    pooling: Pooling | None = None


class Arithmetic(NamedTuple):
    """What runs a network.

    Parameters
    ----------
    device : torch.device
        Where, with its number.
    dtype : torch.dtype
        In which type.
    engine : {"torch", "compiled", "openvino"}
        By which engine.
    """

    device: Any
    dtype: Any
    engine: EngineName


@dataclass(frozen=True)
class Recipe:
    """What is done to an image until it is a row.

    Parameters
    ----------
    backbone : Backbone
        The network.
    taps : tuple of Tap
        Where rows are taken, all in one pass.
    preprocess : Preprocess or callable
        The geometry, or a function from image to tensor.
    device : str, default="auto"
        Where to compute.
    precision : {"float32", "bfloat16", "float16", "auto"}, default="float32"
        In which type.
    engine : {"torch", "compiled", "openvino"}, default="torch"
        What runs the network.
    """

    backbone: Backbone
    taps: tuple[Tap, ...]
    preprocess: Preprocess | Callable[[Any], Any]
    device: str = "auto"
    precision: Precision = "float32"
    engine: EngineName = "torch"

    @property
    def network_taps(self) -> tuple[Tap, ...]:
        """The taps inside the network."""
        return tuple(tap for tap in self.taps if tap.layer != 0)

    @property
    def trunk(self) -> Any:
        """The part of the network that computes its taps, a module that returns a tuple."""
        layers = [tap.layer for tap in self.network_taps]
        return self.backbone.tapped(layers, float_levels=self.takes_levels)

    @property
    def takes_levels(self) -> bool:
        """Whether images of floating point that enter the network are levels from 0 to 255.

        What a user's function returns in floating point is prepared already.
        """
        return isinstance(self.preprocess, Preprocess)

    @property
    def pools(self) -> list[Any]:
        """Pooling of each tap inside the network."""
        return [self.backbone.pool(tap.pooling) for tap in self.network_taps]

    @property
    def deterministic(self) -> bool:
        """Whether an image always gives the same row; what a user's function does is not known."""
        return isinstance(self.preprocess, Preprocess)

    def only(self, taps: Sequence[Tap]) -> Self:
        """Return the recipe for some of its taps."""
        return replace(self, taps=tuple(taps))

    def digest(self, tap: Tap) -> str:
        """Digest of everything that a tap's rows depend on, besides the image.

        Parameters
        ----------
        tap : Tap
            One of the taps.
        """
        assert isinstance(self.preprocess, Preprocess)
        parts = ["row-2", __version__, digest_reading(), self.preprocess.digest]
        if tap.layer != 0:
            parts += [
                self.backbone.digest(tap.layer),
                self.backbone.pool(tap.pooling).digest,
                digest(*self.backbone.packages),
                digest(*arithmetic_facts(*self.arithmetic)),
            ]
        return combine(parts)

    @property
    def arithmetic(self) -> Arithmetic:
        """What computes, and how: the same for all names of one device or type."""
        device = resolve_device(self.device)
        return Arithmetic(device, resolve_precision(self.precision, device), self.engine)

    @property
    def pass_key(self) -> tuple[int, str, str]:
        """Equal for recipes whose rows one pass over the images can give, whatever their taps."""
        return id(self.backbone), repr(self.preprocess), repr(self.arithmetic)

    def describe(self, tap: Tap) -> str:
        """Describe a tap's rows in words."""
        return f"{self.backbone.name}, layer {tap.layer}, pooling {tap.pooling}"

    def prepare(self, images: ImageCollection) -> Callable[[AnyArray], AnyArray]:
        """Return the function from a loaded image to what enters the network."""
        if not isinstance(self.preprocess, Preprocess):
            return prepare_callable(self.preprocess)
        return _unchanged if images.kind == "values" else prepare_geometry(self.preprocess)

    def input_shape(
        self, images: ImageCollection, skip_unreadable: bool = False
    ) -> tuple[int, ...]:
        """Shape of what enters the network's first stage for one image, batch axis left out.

        Reads the first image, or the first that can be read, when the recipe leaves the size to
        the images.
        """
        return self.stated_input_shape(images) or self._first_shape(images, skip_unreadable)

    def stated_input_shape(self, images: ImageCollection) -> tuple[int, ...] | None:
        """Shape of what enters the network for one image; None where the images decide."""
        if not isinstance(self.preprocess, Preprocess):
            return None
        if images.kind == "values":
            return images.item_shape
        size = self.preprocess.output_size
        return None if size is None else (self.preprocess.channels, *size)

    def row_shapes(self, images: ImageCollection) -> list[tuple[int, ...]] | None:
        """Shape of a row of each tap; None where the images would have to be read to know."""
        input_shape = self.stated_input_shape(images)
        return None if input_shape is None else self.shapes_from(input_shape)

    def shapes_from(self, input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shape of a row of each tap, from that of what enters the network."""
        inside = iter(self.output_shapes(input_shape) if self.network_taps else ())
        return [input_shape if tap.layer == 0 else next(inside) for tap in self.taps]

    def row_bytes(self, shapes: Sequence[Sequence[int]], storage: Storage = "float32") -> list[int]:
        """Bytes of one row of each tap.

        Parameters
        ----------
        shapes : sequence of tuple of int
            Shape of a row of each tap.
        storage : {"float32", "float16", "bfloat16"}, default="float32"
            How a store keeps floating point.
        """
        return [
            math.prod(shape) * _item_bytes(tap, shape, storage)
            for tap, shape in zip(self.taps, shapes, strict=True)
        ]

    def output_shapes(self, input_shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Shape of a row of each tap inside the network, without computing it."""
        layers = [tap.layer for tap in self.network_taps]
        shapes = self.backbone.layer_shapes(layers, input_shape)
        return [pool.output_shape(s) for pool, s in zip(self.pools, shapes, strict=True)]

    def _first_shape(self, images: ImageCollection, skip_unreadable: bool) -> tuple[int, ...]:
        batches = iterate_batches(
            images,
            range(len(images) if skip_unreadable else 1),
            self.prepare(images),
            batch_size=1,
            n_threads=0,
            on_error="nan" if skip_unreadable else "raise",
        )
        failures = []
        for _, data, failed in batches:
            failures += failed
            if len(data):
                break
        else:
            refuse_none_readable(len(images), failures)
        if data.dtype == np.uint8 or (self.takes_levels and data.ndim == 4):
            return (data.shape[3], data.shape[1], data.shape[2])
        return data.shape[1:]


def choose_preprocess(
    backbone: Backbone,
    preprocessing: Literal["fast"] | Callable[[Any], Any] | None,
    image_size: int | Sequence[int] | None,
) -> Preprocess | Callable[[Any], Any]:
    """Return the user's function, or the backbone's own recipe at the given size."""
    if callable(preprocessing):
        return preprocessing
    own = backbone.preprocess
    if image_size is not None:
        own = own.with_image_size(image_size)
    return replace(own, fast=preprocessing == "fast")


def _item_bytes(tap: Tap, shape: Sequence[int], storage: Storage) -> int:
    # A preprocessed picture has three axes, and mostly levels of 8 bits.
    if tap.layer == 0 and len(shape) == 3:
        return 1
    return 4 if storage == "float32" else 2


def _unchanged(item: AnyArray) -> AnyArray:
    return item
