"""Threads that share a fitted estimator get what one thread alone gets."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.training import TailAndHead, make_net, predict_rows, seeded

N_THREADS = 8


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)


def fine_tuner(depth, **parameters):
    """A tail with dropout of blocks, and BatchNorm."""
    settings = {"max_epochs": 1, "random_state": 0, "C": 1.0, "image_size": 32, "cache": False}
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


def check_mixed_calls(depth, images, n_loads, n_calls):
    """Each thread calls another method, or copies the model, or changes what changes no number."""
    some, labels = images[:12], np.arange(12) % 3
    saved = pickle.dumps(fine_tuner(depth).fit(some, labels))
    extractor = PretrainedFeatureExtractor(image_size=32, cache=False).fit(some)

    def calls(model):
        return [
            lambda i: model.predict(images[[i]]),
            lambda i: model.predict_proba(images[[i]]),
            lambda i: extractor.transform(images[[i]]),
            lambda i: model.score(some, labels),
            lambda i: clone(model).get_params()["unfreeze_depth"],
            lambda i: pickle.loads(pickle.dumps(model)).predict_proba(images[[i]]),
            lambda i: model.set_params(n_jobs=1 + i % 2, verbose=0).predict_proba(images[[i]]),
        ]

    alone = calls(pickle.loads(saved))
    wanted = [alone[i % len(alone)](i) for i in range(n_calls)]
    for _ in range(n_loads):
        shared = calls(pickle.loads(saved))
        found = in_threads(lambda i: shared[i % len(shared)](i), range(n_calls))  # noqa: B023
        assert sum(not np.array_equal(*pair) for pair in zip(found, wanted, strict=True)) == 0


def test_mixed_calls(images):
    check_mixed_calls(1, images, 1, 14)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("depth", [1, 2, "all"])
def test_80_mixed_calls_of_each_of_5_fresh_loads(depth, images):
    check_mixed_calls(depth, images, 5, 80)


def test_predictions_while_another_thread_goes_on_training(small_net, digits):
    """Each prediction is that of one of the states between two calls, never of a mixture."""
    some, labels = digits[0][:16], digits[1][:16]
    model = FineTuneClassifier(small_net, max_epochs=1, random_state=0, image_size=16, cache=False)
    twin = clone(model)
    states = []
    for _ in range(4):
        twin.partial_fit(some, labels, classes=[0, 1, 2])
        states.append(twin.predict_proba(some))
    model.partial_fit(some, labels, classes=[0, 1, 2])
    trained = threading.Event()

    def predict(_):
        found = []
        while not trained.is_set():
            found.append(model.predict_proba(some))
        return found

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(predict, i) for i in range(3)]
        for _ in range(3):
            model.partial_fit(some, labels)
        trained.set()
        found = [outputs for job in jobs for outputs in job.result()]
    assert found
    assert all(any(np.array_equal(outputs, state) for state in states) for outputs in found)
    np.testing.assert_array_equal(model.predict_proba(some), states[-1])


def test_fits_in_threads_learn_what_each_learns_alone(small_net, digits):
    """Dropout draws from PyTorch's global generator, which all threads share."""
    some, labels = digits[0][:24], digits[1][:24]

    def fitted(seed):
        model = FineTuneClassifier(
            small_net, max_epochs=3, random_state=seed, C=1.0, image_size=16, cache=False
        )
        return model.fit(some, labels).predict_proba(some)

    before = torch.get_rng_state()
    alone = [fitted(seed) for seed in range(4)]
    found = in_threads(fitted, range(4))
    assert torch.equal(torch.get_rng_state(), before)
    for pair in zip(found, alone, strict=True):
        np.testing.assert_array_equal(*pair)


def test_blocks_in_threads_draw_what_each_draws_alone():
    def draw(seed):
        with seeded(seed):
            return torch.cat([torch.rand(1) for _ in range(50)])

    before = torch.get_rng_state()
    alone = [draw(seed) for seed in range(32)]
    found = in_threads(draw, range(32))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(*pair) for pair in zip(found, alone, strict=True))


class AlwaysDropout(nn.Module):
    """Draws in eval mode, too (Monte Carlo dropout)."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


@pytest.mark.parametrize("draws", [False, True])
def test_only_networks_that_draw_in_eval_mode_take_turns(draws):
    head = nn.Sequential(AlwaysDropout() if draws else nn.Identity(), nn.Linear(6, 3))
    net = make_net(
        lambda: TailAndHead([], head, trained=[], batch_norm="frozen"),
        task="classification",
        lr=0.1,
        backbone_lr_ratio=0.1,
        weight_decay=0.0,
        max_epochs=1,
        batch_size=8,
    ).initialize()
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    before = torch.get_rng_state()
    wanted = predict_rows(net, rows, 8)
    assert net.predicts_at_random_ is draws
    found = in_threads(lambda _: predict_rows(net, rows, 8), range(16))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(np.array_equal(outputs, wanted) for outputs in found)
