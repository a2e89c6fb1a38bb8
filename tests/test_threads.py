"""Threads that share a fitted estimator get what one thread alone gets."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sklearn_featx import FineTuneClassifier

N_THREADS = 8


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)


def fine_tuner(depth, **parameters):
    """A tail with dropout of blocks, and BatchNorm."""
    settings = {"max_epochs": 1, "random_state": 0, "C": 1.0, "image_size": 32, "cache": None}
    return FineTuneClassifier(unfreeze_depth=depth, n_jobs=1, **settings | parameters)


def in_threads(job, items):
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(job, items))


def check_predictions(depth, images, n_loads, n_images):
    """One image at a time, in threads, from loads that no thread has used before."""
    saved = pickle.dumps(fine_tuner(depth).fit(images[:12], np.arange(12) % 3))
    alone = pickle.loads(saved)
    wanted = [alone.predict_proba(images[[i]]) for i in range(n_images)]
    for _ in range(n_loads):
        shared = pickle.loads(saved)
        found = in_threads(lambda i: shared.predict_proba(images[[i]]), range(n_images))  # noqa: B023
        assert sum(not np.array_equal(*pair) for pair in zip(found, wanted, strict=True)) == 0


@pytest.mark.parametrize("depth", [1, 2, "all"])
def test_predictions_of_fresh_loads(depth, images):
    check_predictions(depth, images, 1, 24)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("depth", [1, 2, "all"])
def test_80_predictions_of_each_of_20_fresh_loads(depth, images):
    check_predictions(depth, images, 20, 80)
