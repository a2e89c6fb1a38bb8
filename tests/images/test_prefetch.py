import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import PILToTensor

from sklearn_featx._preprocess import Preprocess
from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import (
    ReadOptions,
    as_image_collection,
    iterate_batches,
    prepare_callable,
    prepare_geometry,
)


def same(item):
    return item


def reading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("featx-worker")]


@pytest.fixture
def numbered():
    """Forty images: every pixel of image i is i."""
    return as_image_collection(
        np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 5), np.uint8)
    )


@pytest.mark.parametrize("n_threads", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_rows_come_in_the_order_asked_for(numbered, n_threads, batch_size):
    def slowly(item):
        time.sleep(0.001 * (item[0, 0, 0] % 3))
        return item

    rows = list(np.random.default_rng(1).permutation(40)[:23])
    batches = list(
        iterate_batches(numbered, rows, slowly, batch_size=batch_size, n_threads=n_threads)
    )
    assert [row for batch in batches for row in batch.rows] == rows
    assert all(type(row) is int for batch in batches for row in batch.rows)
    np.testing.assert_array_equal(np.concatenate([b.data[:, 0, 0, 0] for b in batches]), rows)
    assert {len(batch.rows) for batch in batches[:-1]} <= {batch_size}
    assert not reading_threads()


def test_items_in_flight_are_bounded(numbered):
    started = []

    def count(item):
        started.append(1)
        return item

    batches = iterate_batches(numbered, range(40), count, batch_size=2, n_threads=2)
    next(batches)
    time.sleep(0.1)
    assert 2 < len(started) <= 2 + 2 + 2 * 2
    batches.close()


def test_reading_runs_ahead_of_the_consumer(numbered):
    threads = set()

    def note(item):
        threads.add(threading.current_thread().name)
        return item

    list(iterate_batches(numbered, range(40), note, batch_size=4, n_threads=2))
    assert threading.current_thread().name not in threads


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ValueError])
def test_no_thread_is_left_behind(numbered, interrupt):
    with pytest.raises(interrupt):  # noqa: PT012
        for _ in iterate_batches(numbered, range(40), same, batch_size=2, n_threads=3):
            assert reading_threads()
            raise interrupt
    batches = iterate_batches(numbered, range(40), same, batch_size=2, n_threads=3)
    next(batches)
    batches.close()
    assert not reading_threads()


@pytest.fixture
def with_bad(files, tmp_path):
    for i in (2, 4):
        (tmp_path / f"{i}.png").write_bytes(b"damage")
    return as_image_collection(files)


@pytest.mark.parametrize("n_threads", [0, 3])
def test_the_first_bad_row_is_raised(with_bad, files, n_threads):
    batches = iterate_batches(
        with_bad, [0, 4, 1, 2], prepare_geometry(Preprocess((4, 4))), batch_size=4,
        n_threads=n_threads,
    )  # fmt: skip
    with pytest.raises(ImageError, match="row 4") as caught:
        list(batches)
    assert (caught.value.row, caught.value.path) == (4, files[4])
    assert caught.value.__cause__ is not None
    assert not reading_threads()


@pytest.mark.parametrize("n_threads", [0, 3])
def test_bad_rows_are_left_out(with_bad, files, n_threads):
    batches = list(
        iterate_batches(
            with_bad, range(5), prepare_geometry(Preprocess((4, 4))), batch_size=2,
            n_threads=n_threads, on_error="nan",
        )
    )  # fmt: skip
    assert [batch.rows for batch in batches] == [[0, 1], [3], []]
    assert [batch.data.shape for batch in batches] == [(2, 4, 4, 3), (1, 4, 4, 3), (0,)]
    failures = [failure for batch in batches for failure in batch.failures]
    assert [(f.row, f.path) for f in failures] == [(2, files[2]), (4, files[4])]
    assert all(f.__cause__ is None and f.__traceback__ is None for f in failures)


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_shapes_that_differ(files, on_error):
    images = as_image_collection(files)
    with pytest.raises(ImageError, match=r"row 1 .*\(6, 9, 3\).*row 0.*\(6, 8, 3\).*image_size="):
        list(iterate_batches(images, range(5), same, batch_size=5, n_threads=0, on_error=on_error))


def test_errors_of_our_own_are_not_hidden(numbered):
    def broken(item):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(iterate_batches(numbered, range(4), broken, batch_size=2, n_threads=2))
    assert not reading_threads()


def test_values_need_no_threads():
    values = as_image_collection(np.arange(12.0).reshape(4, 3), ReadOptions(image_shape=(1, -1)))
    batches = iterate_batches(values, [3, 1], same, batch_size=2, n_threads=4)
    batch = next(batches)
    assert not reading_threads()
    np.testing.assert_array_equal(batch.data, [[9, 10, 11], [3, 4, 5]])
    assert batch.data.dtype == np.float32


def test_no_rows_no_batches(numbered):
    assert list(iterate_batches(numbered, [], same, batch_size=2, n_threads=2)) == []


PIXELS = np.full((4, 5, 3), 51, np.uint8)


@pytest.mark.parametrize(
    ("function", "dtype", "shape"),
    [
        (lambda picture: picture, np.uint8, (4, 5, 3)),
        (lambda picture: picture.convert("L"), np.uint8, (4, 5, 1)),
        (np.asarray, np.uint8, (4, 5, 3)),
        (lambda picture: np.asarray(picture.convert("L")), np.uint8, (4, 5, 1)),
        (PILToTensor(), np.uint8, (4, 5, 3)),
        (lambda picture: np.asarray(picture) / 255, np.float32, (4, 5, 3)),
        (lambda picture: torch.from_numpy(np.array(picture)) / 255, np.float32, (4, 5, 3)),
        (lambda picture: torch.ones(3, 2, 2, dtype=torch.bfloat16), np.float32, (3, 2, 2)),
        (lambda picture: torch.ones(3, 2, 2, requires_grad=True), np.float32, (3, 2, 2)),
    ],
)
def test_what_a_callable_may_return(function, dtype, shape):
    prepared = prepare_callable(function)(PIXELS)
    assert isinstance(prepared, np.ndarray)
    assert (prepared.dtype, prepared.shape) == (dtype, shape)


def test_a_callable_gets_a_picture_or_numbers():
    got = []

    def note(item):
        got.append(item)
        return np.zeros(1)

    for item in (PIXELS, PIXELS[:, :, :1], np.zeros(3, np.float32)):
        prepare_callable(note)(item)
    assert [getattr(item, "mode", None) for item in got] == ["RGB", "L", None]
    assert all(isinstance(item, Image.Image) for item in got[:2])


def test_what_a_callable_raises_names_the_row(files):
    def fail(picture):
        if picture.width > 9:
            raise KeyError("nose")
        return np.zeros(3)

    images = as_image_collection(files)
    batches = iterate_batches(images, range(5), prepare_callable(fail), batch_size=5, n_threads=2)
    with pytest.raises(
        ImageError, match=r"row 2 .*preprocessing raised KeyError: 'nose'"
    ) as caught:
        list(batches)
    assert caught.value.path == files[2]
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "returned",
    [None, "text", {"pixel_values": 1}, np.array("x"), 3.0, np.zeros(60, np.uint8)],
)
def test_what_a_callable_may_not_return(returned):
    with pytest.raises(ImageError, match="preprocessing returned"):
        prepare_callable(lambda picture: returned)(PIXELS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_a_function_returns_is_finite(value):
    prepare = prepare_callable(lambda image: np.full((3, 4, 4), value, np.float32))
    with pytest.raises(ImageError, match="preprocessing returned NaN or infinity"):
        prepare(np.zeros((4, 4, 3), np.uint8))
