"""The one flow of both estimators: images, through a frozen trunk, to rows.

Rows come in the order of the images; a row does not depend on the rows beside it. What a row is,
is said by a `Recipe` alone.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import joblib
import numpy as np

from ._preprocess import Preprocess
from ._progress import Progress
from ._typing import AnyArray, Pooling
from .backbones import Backbone
from .engines import TorchEngine, resolve_device
from .images import ImageCollection, iterate_batches, prepare_callable, prepare_geometry

# Preprocessed images are only collected, not computed with: the number matters little.
_ROWS_PER_COPY = 32


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

    def prepare(self, images: ImageCollection) -> Callable[[AnyArray], AnyArray]:
        """Return the function from a loaded image to what enters the network."""
        if not isinstance(self.preprocess, Preprocess):
            return prepare_callable(self.preprocess)
        return _unchanged if images.kind == "values" else prepare_geometry(self.preprocess)

    def input_shape(self, images: ImageCollection) -> tuple[int, ...]:
        """Shape of what enters the network's first stage for one image, batch axis left out.

        Reads the first image when the recipe leaves the size to the images.
        """
        if images.kind == "values" and images.item_shape is not None:
            first: tuple[int, ...] = images.item_shape
            return first if isinstance(self.preprocess, Preprocess) else self._prepared(images)
        if isinstance(self.preprocess, Preprocess) and self.preprocess.output_size is not None:
            return (self.preprocess.channels, *self.preprocess.output_size)
        return self._prepared(images)

    def output_shapes(self, input_shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Shape of a row of each tap inside the network, without computing it."""
        shapes = self.backbone.shapes(self.trunk, input_shape)
        return [pool.output_shape(s) for pool, s in zip(self.pools, shapes, strict=True)]

    def _prepared(self, images: ImageCollection) -> tuple[int, ...]:
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


def stream(
    images: ImageCollection,
    recipe: Recipe,
    *,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Iterator[tuple[list[int], list[AnyArray]]]:
    """Compute the rows of images, a batch at a time.

    Parameters
    ----------
    images : ImageCollection
        The images.
    recipe : Recipe
        What is done to each.
    batch_size : int, default=None
        Rows in one pass through the network; None leaves it to the engine.
    n_jobs : int, default=None
        Number of threads that read and prepare images; None: one.
    verbose : int, default=0
        1 shows a progress bar.

    Yields
    ------
    rows : list of int
        Positions of the batch's images.
    taps : list of ndarray of shape (len(rows), ...)
        Rows of each tap, float32; preprocessed images as they are, mostly uint8.

    Raises
    ------
    ImageError
        For the first image that cannot be read.
    """
    engine = engine_for(recipe) if recipe.network_taps else None
    batches = iterate_batches(
        images,
        range(len(images)),
        recipe.prepare(images),
        batch_size=batch_size or (engine.batch_size if engine else _ROWS_PER_COPY),
        n_threads=joblib.effective_n_jobs(n_jobs),
    )
    with Progress(len(images), verbose=verbose, description=recipe.backbone.name) as progress:
        for batch in batches:
            computed = iter(engine.run(batch.data) if engine else ())
            yield (
                batch.rows,
                [batch.data if tap.layer == 0 else next(computed) for tap in recipe.taps],
            )
            progress.update(len(batch.rows))


def activations(images: ImageCollection, recipe: Recipe, **settings: Any) -> list[AnyArray]:
    """Compute the rows of images, all in memory.

    Parameters
    ----------
    images, recipe, **settings
        As in `stream`.

    Returns
    -------
    taps : list of ndarray of shape (n_images, ...)
        Rows of each tap, in the order of the images.
    """
    found: list[AnyArray] = []
    for rows, results in stream(images, recipe, **settings):
        if not found:
            found = [np.empty((len(images), *r.shape[1:]), dtype=r.dtype) for r in results]
        for whole, result in zip(found, results, strict=True):
            whole[rows] = result
    return found


_engines: weakref.WeakKeyDictionary[Backbone, dict[Any, TorchEngine]] = weakref.WeakKeyDictionary()
_engines_lock = threading.Lock()


def engine_for(recipe: Recipe) -> TorchEngine:
    """Return the engine that runs a recipe, made at most once per process."""
    device = resolve_device(recipe.device)
    with _engines_lock:
        engines = _engines.setdefault(recipe.backbone, {})
        key = (recipe.network_taps, device)
        if key not in engines:
            engines[key] = TorchEngine(recipe.trunk, recipe.pools, device=device)
        return engines[key]


def _unchanged(item: AnyArray) -> AnyArray:
    return item
