"""Recipes: everything that is done to an image until it is a row, and the digest of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from .. import __version__
from .._digest import digest
from .._preprocess import CropMode, Preprocess
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
from ._user_function import UserFunction


class Tap(NamedTuple):
    """A layer with a pooling, at which rows leave the network.

    Parameters
    ----------
    layer : str or int
        Name of a module, operation or stage; or the number of stages before the tap: 0 is the
        preprocessed image.
    pooling : str or None, default=None
        Conversion of the activations to vectors; None: no conversion.
    """

    layer: str | int
    pooling: Pooling | None = None


class Arithmetic(NamedTuple):
    """Device, dtype and engine of a computation.

    Parameters
    ----------
    device : torch.device
        The device, with its number.
    dtype : torch.dtype
        Type of weights and activations.
    engine : {"torch", "compiled", "openvino"}
        The engine.
    """

    device: Any
    dtype: Any
    engine: EngineName


@dataclass(frozen=True)
class Recipe:
    """Everything that is done to an image until it is a row.

    Parameters
    ----------
    backbone : Backbone
        The network.
    taps : tuple of Tap
        The taps, which one pass computes together.
    preprocess : Preprocess or UserFunction
        The geometry, or a function from image to tensor.
    device : str, default="auto"
        The device.
    precision : {"float32", "bfloat16", "float16", "auto"}, default="float32"
        Type of weights and activations.
    engine : {"torch", "compiled", "openvino"}, default="torch"
        The engine.
    trains_on_bags : bool, default=False
        Whether activations that are not pooled to vectors stay those of the images of a bag: the
        trained part pools them.
    """

    backbone: Backbone
    taps: tuple[Tap, ...]
    preprocess: Preprocess | UserFunction
    device: str = "auto"
    precision: Precision = "float32"
    engine: EngineName = "torch"
    trains_on_bags: bool = False

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
        """Whether floating point images that enter the network are levels from 0 to 255.

        Floating point results of a user's function are already normalized.
        """
        return isinstance(self.preprocess, Preprocess)

    @property
    def pools(self) -> list[Any]:
        """Pooling of each tap inside the network."""
        return [self.backbone.pool(tap.pooling) for tap in self.network_taps]

    @property
    def deterministic(self) -> bool:
        """Whether images may be read in any order; a user's function may have side effects."""
        return isinstance(self.preprocess, Preprocess)

    @property
    def unnamed(self) -> str | None:
        """Why rows have no certain digest; None if they have one."""
        if isinstance(self.preprocess, UserFunction) and self.preprocess.unnamed:
            return self.preprocess.unnamed
        if self.network_taps and self.backbone.unnamed:
            return f"the network's computation has no digest: {self.backbone.unnamed[0]}"
        return None

    def keeps_images_at(self, tap: Tap) -> bool:
        """Whether a tap's rows are those of the images of a bag, not of the bag."""
        return self.trains_on_bags and tap.pooling is None

    def only(self, taps: Sequence[Tap]) -> Self:
        """Return the recipe for some of its taps."""
        return replace(self, taps=tuple(taps))

    def digest(self, tap: Tap) -> str:
        """Return the digest of everything but the image that a tap's rows depend on.

        Parameters
        ----------
        tap : Tap
            One of the taps.
        """
        parts = ["row-2", __version__, digest_reading(), self.preprocess.digest]
        if tap.layer != 0:
            parts += [
                self.backbone.digest(tap.layer),
                self.backbone.pool(tap.pooling).digest,
                digest(*self.backbone.packages),
                digest(*arithmetic_facts(*self.arithmetic)),
            ]
        return digest(*parts)

    @property
    def arithmetic(self) -> Arithmetic:
        """Device, dtype and engine; equal for all names of a device or dtype."""
        device = resolve_device(self.device)
        return Arithmetic(device, resolve_precision(self.precision, device), self.engine)

    @property
    def pass_key(self) -> tuple[int, str, str]:
        """Key of the recipes that one pass over the images can serve, with any taps."""
        seen = repr(self.preprocess) if self.unnamed else self.preprocess.digest
        return id(self.backbone), seen, repr(self.arithmetic)

    def describe(self, tap: Tap) -> str:
        """Describe a tap for people."""
        return f"{self.backbone.name}, layer {tap.layer}, pooling {tap.pooling}"

    def prepare(self, images: ImageCollection) -> Callable[[AnyArray], AnyArray]:
        """Return the function from a loaded image to the network's input."""
        if not isinstance(self.preprocess, Preprocess):
            return prepare_callable(self.preprocess)
        return _unchanged if images.kind == "values" else prepare_geometry(self.preprocess)

    def input_shape(
        self, images: ImageCollection, skip_unreadable: bool = False
    ) -> tuple[int, ...]:
        """Shape of the network's input for one image, without the batch axis.

        If the size depends on the images, the first image is read, or the first readable one.
        """
        return self.stated_input_shape(images) or self._first_shape(images, skip_unreadable)

    def stated_input_shape(self, images: ImageCollection) -> tuple[int, ...] | None:
        """Shape of the network's input for one image; None if it depends on the images."""
        if not isinstance(self.preprocess, Preprocess):
            return None
        if images.kind == "values":
            return images.item_shape
        size = self.preprocess.output_size
        return None if size is None else (self.preprocess.channels, *size)

    def row_shapes(self, images: ImageCollection) -> list[tuple[int, ...]] | None:
        """Shape of a row of each tap; None if it depends on the images."""
        input_shape = self.stated_input_shape(images)
        return None if input_shape is None else self.shapes_from(input_shape)

    def shapes_from(self, input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shape of a row of each tap, from the shape of the network's input."""
        inside = iter(self.output_shapes(input_shape) if self.network_taps else ())
        return [input_shape if tap.layer == 0 else next(inside) for tap in self.taps]

    def row_bytes(self, shapes: Sequence[Sequence[int]], storage: Storage = "float32") -> list[int]:
        """Return the number of bytes of one row of each tap.

        Parameters
        ----------
        shapes : sequence of tuple of int
            Shape of a row of each tap.
        storage : {"float32", "float16", "bfloat16"}, default="float32"
            The storage dtype of float32 rows.
        """
        return [
            math.prod(shape) * _item_bytes(tap, shape, storage)
            for tap, shape in zip(self.taps, shapes, strict=True)
        ]

    def output_shapes(self, input_shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Shape of a row of each tap in the network; no row is computed."""
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
        return self.shape_of_row(data)

    def shape_of_row(self, data: AnyArray) -> tuple[int, ...]:
        """Shape of the network's input for one row of prepared images."""
        if data.dtype == np.uint8 or (self.takes_levels and data.ndim == 4):
            return (data.shape[3], data.shape[1], data.shape[2])
        return data.shape[1:]


def choose_preprocess(
    backbone: Backbone,
    preprocessing: Literal["fast"] | Callable[[Any], Any] | None,
    image_size: int | Sequence[int] | None,
    crop_mode: CropMode = "center",
) -> Preprocess | UserFunction:
    """Return the user's function, or the backbone's preprocessing at the given size."""
    if callable(preprocessing):
        return UserFunction(preprocessing)
    own = backbone.preprocess
    if image_size is not None:
        own = own.with_image_size(image_size)
    return replace(own.with_crop_mode(crop_mode), fast=preprocessing == "fast")


def _item_bytes(tap: Tap, shape: Sequence[int], storage: Storage) -> int:
    # A preprocessed image has three axes, and usually levels of 8 bits.
    if tap.layer == 0 and len(shape) == 3:
        return 1
    return 4 if storage == "float32" else 2


def _unchanged(item: AnyArray) -> AnyArray:
    return item
