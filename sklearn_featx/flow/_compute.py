"""Computation of rows: images are read and pass through the frozen network, in batches.

Rows that were computed before an error or an interrupt are yielded before it is raised. All callers
in a process share the engine of a network.
"""

import itertools
import math
import operator
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._messages import cause, short, shown
from .._parallel import ForkSafeLock, answer_in_children
from .._typing import AnyArray
from ..backbones import Backbone, complex_features, no_rows
from ..engines import ComplexResultError, Engine, count_threads, make_engine, type_name
from ..exceptions import BackboneError, FeatxError, ImageError
from ..images import Choose, ImageCollection, choose_all, iterate_batches
from ._recipe import Recipe
from ._settings import Settings
from ._workers import Computed, compute_batches, read_and_compute, without_computing

# Number of preprocessed images in a batch without a network, where the number matters little.
_ROWS_PER_COPY = 32
# Rows yielded at once. A pass has few rows, and each write is a transaction.
_ROWS_PER_RESULT = 32
# Number of engines that are kept. Each has the weights of its trunk, and an accelerator needs its
# memory for batches.
_MOST_ENGINES, _MOST_ON_ACCELERATOR = 8, 2

Run = Callable[[AnyArray], list[AnyArray]]


class Result(NamedTuple):
    """Rows of some images.

    Parameters
    ----------
    rows : list of int
        Positions of readable images.
    taps : list of ndarray of shape (len(rows), ...)
        Their rows of each tap, float32; preprocessed images are usually uint8. Empty if `rows` is
        empty.
    failures : list of ImageError
        Unreadable images, each with its row.
    """

    rows: list[int]
    taps: list[AnyArray]
    failures: list[ImageError]


def computed(
    images: ImageCollection,
    positions: Sequence[int],
    recipe: Recipe,
    settings: Settings,
    choose: Choose = choose_all,
) -> Generator[Result]:
    """Compute rows in groups; one set of workers serves the whole call.

    Parameters
    ----------
    images : ImageCollection
        The images.
    positions : sequence of int
        Positions of the images to compute, in this order.
    recipe : Recipe
        The recipe of the rows.
    settings : Settings
        Settings of the computation.
    choose : callable, default=choose_all
        Chooses among some positions, in the thread that reads them next.

    Yields
    ------
    result : Result
        Each chosen image occurs once, as a row or as a failure.
    """
    with (
        images.reading_ahead(positions, with_states=choose is not choose_all),
        closing(_passes(images, positions, recipe, settings, choose)) as passes,
    ):
        yield from _gathered(passes)


def _gathered(passes: Iterator[Result]) -> Iterator[Result]:
    """Join passes into groups of rows, in order and without loss."""
    gathered: list[Result] = []
    while True:
        try:
            result = next(passes, None)
        except BaseException:
            # Rows that were computed before an error or an interrupt are kept.
            if gathered:
                yield _joined(gathered)
            raise
        if result is None:
            break
        if gathered and _shapes(gathered[-1]) != _shapes(result):
            yield _joined(gathered)
            gathered = []
        gathered.append(result)
        if sum(len(part.rows) for part in gathered) >= _ROWS_PER_RESULT:
            yield _joined(gathered)
            gathered = []
    if gathered:
        yield _joined(gathered)


def _shapes(result: Result) -> list[tuple[int, ...]]:
    return [tap.shape[1:] for tap in result.taps]


def _joined(results: Sequence[Result]) -> Result:
    taps = zip(*(result.taps for result in results), strict=True)
    return Result(
        [row for result in results for row in result.rows],
        [np.concatenate(parts) for parts in taps],
        [failure for result in results for failure in result.failures],
    )


def _passes(
    images: ImageCollection,
    positions: Sequence[int],
    recipe: Recipe,
    settings: Settings,
    choose: Choose,
) -> Generator[Result]:
    """Compute rows; one result for each pass through the network."""
    checked = recipe.network_taps and type_name(recipe.arithmetic.dtype) == "float16"
    # A network of one's own is tested with the size of its input, which a function as preprocessing
    # tells only by its first result.
    untested = bool(recipe.network_taps) and recipe.backbone.network.is_custom
    # The traceback of an error would keep an open generator, and its threads, alive.
    with closing(_batches(images, positions, recipe, settings, choose)) as batches:
        for batch, results in batches:
            if not batch.rows:
                if batch.failures:
                    yield Result([], [], batch.failures)
                continue
            if untested:
                recipe.output_shapes(recipe.shape_of_row(batch.data))
                untested = False
            if checked:
                _check_finite(batch.rows, results, images)
            of_network = iter(results)
            taps = [batch.data if tap.layer == 0 else next(of_network) for tap in recipe.taps]
            yield Result(batch.rows, taps, batch.failures)


def _check_finite(
    rows: Sequence[int], results: Sequence[AnyArray], images: ImageCollection
) -> None:
    """Raise an error if features are out of the range of float16; other types reach 1e38."""
    for result in results:
        finite = np.isfinite(result.reshape(len(rows), -1)).all(axis=1)
        if not finite.all():
            row = rows[int(np.argmin(finite))]
            raise ImageError(
                "its features are NaN or infinite in precision='float16', which ends at 65504. Use "
                "precision='bfloat16' or 'float32'.",
                row,
                images.path(row),
            )


def _batches(
    images: ImageCollection,
    positions: Sequence[int],
    recipe: Recipe,
    settings: Settings,
    choose: Choose,
) -> Generator[Computed]:
    """Read images and run them through the network, in threads that share the processor."""
    prepare = recipe.prepare(images)
    # A user's function may be random or have side effects: unless `n_jobs` is set, one thread calls
    # it in order.
    ordered = settings.n_jobs is None and not recipe.deterministic
    n_readers = 1 if ordered else count_threads(settings.n_jobs)
    engine = engine_for(recipe) if recipe.network_taps else None
    batch_size = settings.batch_size or _default_batch_size(engine, images, recipe)
    read = partial(
        iterate_batches,
        images,
        positions,
        prepare,
        batch_size=batch_size,
        on_error=settings.on_error,
        choose=choose,
    )
    if engine is None:
        return without_computing(read(n_threads=n_readers))
    run = _naming_errors(engine.run, recipe)
    workers = engine.workers(math.ceil(len(positions) / batch_size), settings.n_jobs)
    if ordered or not engine.computes_where_it_reads:
        return compute_batches(
            read(n_threads=n_readers), run, n_workers=workers.n_workers, start=workers.start
        )
    return read_and_compute(
        images,
        positions,
        prepare,
        run,
        batch_size=batch_size,
        n_workers=workers.n_workers,
        n_threads=workers.n_threads,
        start=workers.start,
        on_error=settings.on_error,
        choose=choose,
    )


def _naming_errors(run: Run, recipe: Recipe) -> Run:
    """Return `run` with errors that name the backbone and the shape of its input."""

    def named(batch: AnyArray) -> list[AnyArray]:
        try:
            results = run(batch)
        except (FeatxError, MemoryError):
            raise
        except ComplexResultError as error:
            layer = recipe.network_taps[error.position].layer
            raise complex_features(recipe.backbone, layer, error.dtype) from None
        except Exception as error:
            # The code of a user's network runs here, which may raise anything.
            raise BackboneError(
                f"backbone {shown(recipe.backbone.name)} failed on rows of shape "
                f"{short(str(batch.shape[1:]))}: {cause(error)}. Check image_size, "
                "device and precision."
            ) from error
        for result in results:
            # Rows would belong to other images.
            if result.shape[:1] != (len(batch),):
                raise no_rows(recipe.backbone, len(batch), result.shape)
        return results

    return named


def _default_batch_size(engine: Engine | None, images: ImageCollection, recipe: Recipe) -> int:
    return engine.batch_size(recipe.stated_input_shape(images)) if engine else _ROWS_PER_COPY


class _Kept(NamedTuple):
    """An engine and the number of its last use."""

    engine: Engine
    use: int


_engines: weakref.WeakKeyDictionary[Backbone, dict[Any, _Kept]] = weakref.WeakKeyDictionary()
_engines_lock = ForkSafeLock()
_uses = itertools.count()


def engine_for(recipe: Recipe) -> Engine:
    """Return the engine of a recipe; the most recently used engines are kept."""
    key = (recipe.arithmetic, recipe.network_taps, recipe.takes_levels)
    answer_in_children()
    with _engines_lock:
        kept = _engines.get(recipe.backbone, {}).get(key)
        if kept is None:
            _make_room(recipe.arithmetic.device)
        engine = _make(recipe) if kept is None else kept.engine
        _engines.setdefault(recipe.backbone, {})[key] = _Kept(engine, next(_uses))
        return engine


def _make(recipe: Recipe) -> Engine:
    device, dtype, name = recipe.arithmetic
    normalize, network = recipe.trunk
    return make_engine(name, network, recipe.pools, normalize=normalize, device=device, dtype=dtype)


def _make_room(device: Any) -> None:
    """Drop the least recently used engines of a device, to make room for one."""
    kept = [
        (engine.use, backbone, key)
        for backbone, engines in _engines.items()
        for key, engine in engines.items()
        if key[0].device == device
    ]
    kept.sort(key=operator.itemgetter(0))
    n_places = _MOST_ENGINES if device.type == "cpu" else _MOST_ON_ACCELERATOR
    for _, backbone, key in kept[: max(0, len(kept) + 1 - n_places)]:
        del _engines[backbone][key]
