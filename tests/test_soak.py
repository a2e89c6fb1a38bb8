"""A long life: many transforms, from many threads and processes, leave nothing behind."""

import gc
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.store import FeatureStore

STATUS, DESCRIPTORS = Path("/proc/self/statm"), Path("/proc/self/fd")

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="reads /proc")


def resident_mib():
    gc.collect()
    return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def check_growth(extractor, images, n_transforms):
    """Transform 1 to 4 images again and again, new ones among known ones; compare with the start.

    The first tenth is the start: caches of connections and of compiled passes fill in it.
    """
    rng = np.random.default_rng(0)
    start = None
    for i in range(n_transforms):
        some = images[rng.integers(0, len(images), 1 + i % 4)]
        if i % 50 == 0:
            some = rng.integers(0, 256, some.shape, dtype=np.uint8)
        extractor.transform(some)
        if i == n_transforms // 10:
            start = resident_mib(), len(list(DESCRIPTORS.iterdir())), threading.active_count()
    grown = resident_mib() - start[0]
    print(f"{n_transforms} transforms: {grown:+.1f} MiB")  # noqa: T201 # the figure of the bar
    assert grown < 16
    assert len(list(DESCRIPTORS.iterdir())) <= start[1]
    assert threading.active_count() <= start[2]


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_1000_transforms_leave_memory_and_open_files_flat(cached, digits, small_net, tmp_path):
    cache = FeatureStore(tmp_path / "store") if cached else False
    check_growth(PretrainedFeatureExtractor(small_net, cache=cache), digits[0], 1_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cached", [False, True])
def test_50000_transforms_leave_memory_and_open_files_flat(cached, digits, small_net, tmp_path):
    cache = FeatureStore(tmp_path / "store") if cached else False
    check_growth(PretrainedFeatureExtractor(small_net, cache=cache), digits[0], 50_000)


def subsets(seed, images, n_subsets):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, len(images), rng.integers(1, 9)) for _ in range(n_subsets)]


def work(extractor, images, seed, n_transforms):
    """Transform subsets, many of them asked for by others at the same time."""
    return [extractor.transform(images[rows]) for rows in subsets(seed, images, n_transforms)]


def check_workers(pool, backbone, images, folder, n_transforms):
    """Each of 4 workers gets the rows that one alone computes, and all the very same bits."""
    alone = PretrainedFeatureExtractor(backbone, image_size=32, cache=False)
    wanted = alone.transform(images)
    extractor = clone(alone).set_params(cache=FeatureStore(folder))
    jobs = [pool.submit(work, extractor, images, seed, n_transforms) for seed in range(4)]
    results = [job.result() for job in jobs]
    stored = extractor.transform(images)
    np.testing.assert_allclose(stored, wanted, rtol=1e-4, atol=1e-5)
    for seed, given in enumerate(results):
        for rows, found in zip(subsets(seed, images, n_transforms), given, strict=True):
            np.testing.assert_array_equal(found, stored[rows])
    assert extractor.cache.verify().n_removed == 0


@pytest.fixture
def many(digits):
    """300 images, no two alike."""
    images = np.tile(digits[0], (5, 1, 1))
    images[:, 0, 0] = np.arange(len(images)) % 256
    images[:, 0, 1] = np.arange(len(images)) // 256
    return images


def test_4_threads_on_one_store_get_the_same_rows(small_net, many, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        check_workers(pool, small_net, many, tmp_path / "store", 50)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_4_threads_on_one_store_5000_transforms_each(small_net, many, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        check_workers(pool, small_net, many, tmp_path / "store", 5_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_4_processes_on_one_store_5000_transforms_each(many, tmp_path):
    # The packaged network: other processes know it by its name.
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        check_workers(pool, "efficientnet_lite0", many, tmp_path / "store", 5_000)
