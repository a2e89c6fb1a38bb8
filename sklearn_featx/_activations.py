"""The one flow of both estimators: images, through a frozen trunk, to rows.

Rows come in the order of the images; a row does not depend on the rows beside it. What a row is,
is said by a `Recipe` alone.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np

from ._preprocess import Preprocess
from ._progress import Progress
from ._typing import AnyArray, Pooling
from .backbones import Backbone
from .engines import TorchEngine, resolve_device
from .images import ImageCollection, iterate_batches, prepare_callable, prepare_geometry

# What an engine that is not run yet would choose.
_ROWS_PER_COPY = 32


@dataclass(frozen=True)
class Recipe:
    """What is done to an image until it is a row.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layers : tuple of str
        Layers whose activations are wanted; none: the preprocessed images themselves.
    pooling : str or None
        How activations become vectors; None: as they are.
    preprocess : Preprocess or callable
        The geometry, or a function from image to tensor.
    device : str, default="auto"
        Where to compute.
    """

    backbone: Backbone
    layers: tuple[str, ...]
    pooling: Pooling | None
    preprocess: Preprocess | Callable[[Any], Any]
    device: str = "auto"

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
        """Shape of a row of each layer, without computing it."""
        module = self.backbone.tapped(self.layers)
        pool = self.backbone.pool(self.pooling)
        return [pool.output_shape(s) for s in self.backbone.shapes(module, input_shape)]

    def _prepared(self, images: ImageCollection) -> tuple[int, ...]:
        batches = iterate_batches(images, [0], self.prepare(images), batch_size=1, n_threads=0)
        data = next(iter(batches)).data
        if data.dtype == np.uint8:
            return (data.shape[3], data.shape[1], data.shape[2])
        return data.shape[1:]


@dataclass
class Activations:
    """Rows of a set of images.

    Parameters
    ----------
    layers : list of ndarray of shape (n_images, ...)
        One array for each layer of the recipe; float32, or uint8 when no layer was asked for.
    """

    layers: list[AnyArray] = field(default_factory=list)

    def put(self, rows: Sequence[int], results: Sequence[AnyArray], n_rows: int) -> None:
        """Store a batch's results at their rows."""
        if not self.layers:
            self.layers = [np.empty((n_rows, *r.shape[1:]), dtype=r.dtype) for r in results]
        for layer, result in zip(self.layers, results, strict=True):
            layer[rows] = result


def activations(
    images: ImageCollection,
    recipe: Recipe,
    *,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> list[AnyArray]:
    """Compute the rows of images.

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

    Returns
    -------
    layers : list of ndarray of shape (n_images, ...)
        One array for each layer of the recipe, float32; the preprocessed images when it names none.

    Raises
    ------
    ImageError
        For the first image that cannot be read.
    """
    engine = engine_for(recipe) if recipe.layers else None
    found = Activations()
    batches = iterate_batches(
        images,
        range(len(images)),
        recipe.prepare(images),
        batch_size=batch_size or (engine.batch_size if engine else _ROWS_PER_COPY),
        n_threads=joblib.effective_n_jobs(n_jobs),
    )
    with Progress(len(images), verbose=verbose, description=recipe.backbone.name) as progress:
        for batch in batches:
            results = engine.run(batch.data) if engine else [batch.data]
            found.put(batch.rows, results, len(images))
            progress.update(len(batch.rows))
    return found.layers


_engines: weakref.WeakKeyDictionary[Backbone, dict[Any, TorchEngine]] = weakref.WeakKeyDictionary()
_engines_lock = threading.Lock()


def engine_for(recipe: Recipe) -> TorchEngine:
    """Return the engine that runs a recipe, made at most once per process."""
    device = resolve_device(recipe.device)
    key = (recipe.layers, recipe.pooling, device)
    with _engines_lock:
        engines = _engines.setdefault(recipe.backbone, {})
        if key not in engines:
            pool = recipe.backbone.pool(recipe.pooling)
            module = recipe.backbone.tapped(recipe.layers)
            engines[key] = TorchEngine(module, [pool] * len(recipe.layers), device=device)
        return engines[key]


def _unchanged(item: AnyArray) -> AnyArray:
    return item
