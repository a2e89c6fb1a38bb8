"""What is done to an image until it is a row: backbone, taps, preprocessing, device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from ._digest import combine, digest
from ._preprocess import Preprocess
from ._typing import AnyArray, Pooling
from .backbones import Backbone
from .images import ImageCollection, iterate_batches, prepare_callable, prepare_geometry


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
    """

    backbone: Backbone
    taps: tuple[Tap, ...]
    preprocess: Preprocess | Callable[[Any], Any]
    device: str = "auto"

    @property
    def network_taps(self) -> tuple[Tap, ...]:
        """The taps inside the network."""
        return tuple(tap for tap in self.taps if tap.layer != 0)

    @property
    def trunk(self) -> Any:
        """The part of the network that computes its taps, a module that returns a tuple."""
        return self.backbone.tapped([tap.layer for tap in self.network_taps])

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

    def digest(self, tap: Tap, device_type: str) -> str:
        """Digest of everything that a tap's rows depend on, besides the image.

        Parameters
        ----------
        tap : Tap
            One of the taps.
        device_type : str
            ``"cpu"``, ``"cuda"``...: their roundings differ.
        """
        assert isinstance(self.preprocess, Preprocess)
        parts = ["row-1", self.preprocess.digest]
        if tap.layer != 0:
            parts += [self.backbone.digest(tap.layer), digest(tap.pooling), device_type]
        return combine(parts)

    def describe(self, tap: Tap) -> str:
        """Describe a tap's rows in words."""
        return f"{self.backbone.name}, layer {tap.layer}, pooling {tap.pooling}"

    def prepare(self, images: ImageCollection) -> Callable[[AnyArray], AnyArray]:
        """Return the function from a loaded image to what enters the network."""
        if not isinstance(self.preprocess, Preprocess):
            return prepare_callable(self.preprocess)
        return _unchanged if images.kind == "values" else prepare_geometry(self.preprocess)

    def input_shape(self, images: ImageCollection) -> tuple[int, ...]:
        """Shape of what enters the network's first stage for one image, batch axis left out.

        Reads the first image when the recipe leaves the size to the images.
        """
        return self._stated_input_shape(images) or self._first_shape(images)

    def row_shapes(self, images: ImageCollection) -> list[tuple[int, ...]] | None:
        """Shape of a row of each tap; None where the images would have to be read to know."""
        input_shape = self._stated_input_shape(images)
        if input_shape is None:
            return None
        inside = iter(self.output_shapes(input_shape) if self.network_taps else ())
        return [input_shape if tap.layer == 0 else next(inside) for tap in self.taps]

    def output_shapes(self, input_shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Shape of a row of each tap inside the network, without computing it."""
        layers = [tap.layer for tap in self.network_taps]
        shapes = self.backbone.layer_shapes(layers, input_shape)
        return [pool.output_shape(s) for pool, s in zip(self.pools, shapes, strict=True)]

    def _stated_input_shape(self, images: ImageCollection) -> tuple[int, ...] | None:
        if not isinstance(self.preprocess, Preprocess):
            return None
        if images.kind == "values":
            return images.item_shape
        size = self.preprocess.output_size
        return None if size is None else (self.preprocess.channels, *size)

    def _first_shape(self, images: ImageCollection) -> tuple[int, ...]:
        batches = iterate_batches(images, [0], self.prepare(images), batch_size=1, n_threads=0)
        data = next(iter(batches)).data
        if data.dtype == np.uint8:
            return (data.shape[3], data.shape[1], data.shape[2])
        return data.shape[1:]


def choose_preprocess(
    backbone: Backbone,
    preprocessing: Callable[[Any], Any] | None,
    image_size: int | Sequence[int] | None,
) -> Preprocess | Callable[[Any], Any]:
    """Return the user's function, or the backbone's own recipe at the given size."""
    if preprocessing is not None:
        return preprocessing
    if image_size is None:
        return backbone.preprocess
    return backbone.preprocess.with_image_size(image_size)


def _unchanged(item: AnyArray) -> AnyArray:
    return item
