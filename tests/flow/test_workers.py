import threading

import numpy as np
import pytest

from sklearn_featx.exceptions import ImageError
from sklearn_featx.flow._workers import read_and_compute
from sklearn_featx.images import as_image_collection


@pytest.fixture
def numbered():
    """Twelve images: every pixel of image i is i."""
    return as_image_collection(
        np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 5), np.uint8)
    )


def means(data):
    return [data.mean((1, 2, 3))]


@pytest.mark.parametrize(("n_workers", "n_threads"), [(1, 1), (2, 2), (1, 3), (2, 5)])
def test_results_are_in_order_whoever_reads(numbered, n_workers, n_threads):
    rows = list(np.random.default_rng(0).permutation(12)[:11])
    computed = list(
        read_and_compute(
            numbered,
            rows,
            lambda item: item,
            means,
            batch_size=4,
            n_workers=n_workers,
            n_threads=n_threads,
        )
    )
    assert [len(batch.rows) for batch, _ in computed] == [4, 4, 3]
    assert [row for batch, _ in computed for row in batch.rows] == rows
    np.testing.assert_array_equal(np.concatenate([result for _, (result,) in computed]), rows)


def test_a_worker_reads_in_all_its_threads(numbered):
    both = threading.Barrier(2)

    def meet(item):
        both.wait(timeout=10)
        return item

    ((batch, _),) = read_and_compute(
        numbered, range(4), meet, means, batch_size=4, n_workers=1, n_threads=2
    )
    assert batch.rows == [0, 1, 2, 3]


def test_the_last_batch_is_read_in_all_threads(numbered):
    both = threading.Barrier(2)

    def meet(item):
        if item[0, 0, 0] >= 8:
            both.wait(timeout=10)
        return item

    *_, (batch, _) = read_and_compute(
        numbered, range(12), meet, means, batch_size=4, n_workers=2, n_threads=2
    )
    assert batch.rows == [8, 9, 10, 11]


def test_a_worker_with_one_thread_reads_where_it_computes(numbered):
    readers, computers = set(), set()

    def read(item):
        readers.add(threading.current_thread())
        return item

    def compute(data):
        computers.add(threading.current_thread())
        return means(data)

    list(
        read_and_compute(numbered, range(12), read, compute, batch_size=2, n_workers=2, n_threads=2)
    )
    assert readers == computers


def test_a_bad_image_ends_all_threads(numbered):
    def fail(item):
        if item[0, 0, 0] == 5:
            raise ImageError("broken")
        return item

    with pytest.raises(ImageError, match="broken") as caught:
        list(
            read_and_compute(
                numbered, range(12), fail, means, batch_size=4, n_workers=2, n_threads=4
            )
        )
    assert caught.value.row == 5
    assert not [t for t in threading.enumerate() if t.name.startswith("featx-worker")]
