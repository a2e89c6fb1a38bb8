"""Users' functions: rows are cached as long as no call changes a value that outlives it."""

import contextlib
import random
import threading
import warnings

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import FeatureStore, FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.exceptions import StoreWarning
from sklearn_featx.flow import UserFunction, _user_function

MEAN = np.float32([1, 2, 3])
STATE = np.zeros(1, np.float32)


def centered(picture):
    return (np.asarray(picture) - MEAN).transpose(2, 0, 1)


def counting(picture):
    STATE[0] += 1
    return centered(picture) * STATE


def toggling(picture):
    # Two calls restore the value.
    np.subtract(1, STATE, STATE)
    return centered(picture) * STATE


def special(picture):
    if np.asarray(picture)[0, 0, 0] == 255:
        STATE[0] += 1
    return centered(picture) + STATE


def restoring(picture):
    STATE[0] += 1
    result = centered(picture) * STATE
    STATE[0] -= 1
    return result


@pytest.fixture
def images(monkeypatch):
    monkeypatch.setitem(globals(), "STATE", np.zeros(1, np.float32))
    return np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


@pytest.fixture(scope="module")
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))


def extracted(net, function, images, store, **parameters):
    extractor = PretrainedFeatureExtractor(net, preprocessing=function, cache=store, **parameters)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        rows = extractor.fit_transform(images)
    return rows, [str(w.message) for w in record if issubclass(w.category, StoreWarning)]


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("function", [centered, restoring])
def test_functions_that_change_nothing_are_cached(net, images, store, function, n_jobs):
    rows, warned = extracted(net, function, images, store, n_jobs=n_jobs)
    assert store.info().n_rows == len(images)
    assert not warned
    np.testing.assert_array_equal(rows, extracted(net, function, images, False)[0])


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("function", [counting, toggling])
def test_functions_that_change_a_value_are_not(net, images, store, function, n_jobs):
    _, warned = extracted(net, function, images, store, n_jobs=n_jobs)
    assert store.info().n_rows == 0
    (text,) = warned
    assert "rows are not cached, preprocessing is a function that changes a value" in text


def test_one_warning_for_each_call_of_an_estimator(net, images, store):
    classifier = FineTuneClassifier(net, preprocessing=counting, cache=store, max_epochs=1)
    with pytest.warns(StoreWarning, match="changes a value") as record:
        classifier.fit(images, [0, 1] * 3)
    assert len(record) == 1
    with pytest.warns(StoreWarning, match="changes a value") as record:
        classifier.predict(images)
    assert len(record) == 1
    assert not extracted(net, counting, images, True)[1], "no store was named"


def test_rows_before_a_change_are_those_of_their_key(net, images, store):
    images[:, 0, 0, 0] = 0
    images[4, 0, 0, 0] = 255
    before, _ = extracted(net, special, images[:3], store)
    extracted(net, special, images, store)
    STATE[0] = 0
    found, _ = extracted(net, special, images[:3], store)
    np.testing.assert_array_equal(found, before)
    STATE[0] = 0
    # The image that changes the value, and those after it, are computed each time.
    last, warned = extracted(net, special, images[3:], store)
    assert warned
    STATE[0] = 0
    np.testing.assert_array_equal(last, extracted(net, special, images[3:], False)[0])


@pytest.mark.parametrize("function", [centered, restoring])
def test_calls_that_may_restore_a_value_do_not_overlap(images, monkeypatch, function):
    entered = []

    @contextlib.contextmanager
    def alone():
        entered.append(True)
        yield

    monkeypatch.setattr(_user_function, "_alone", alone())
    called = UserFunction(function)
    assert called.unnamed is None
    called(images[0])
    assert called.unnamed is None
    assert bool(entered) == (function is restoring)


def test_an_error_of_the_function_after_a_change(images):
    called = UserFunction(counting)
    assert called.unnamed is None
    with pytest.raises(ValueError, match="axes"):
        called(images[0, 0, 0])
    assert "changes a value" in called.unnamed


def test_a_function_that_may_be_random_is_called_by_one_thread_in_order(net, monkeypatch):
    for owner, name in ((torch, "get_num_threads"), (joblib, "cpu_count")):
        monkeypatch.setattr(owner, name, lambda: 4)
    threads, called = set(), []

    def noisy(picture):
        threads.add(threading.get_ident())
        called.append(np.asarray(picture)[0, 0, 0])
        return centered(picture) + np.float32(random.random())

    X = np.repeat(np.arange(24, dtype=np.uint8), 8 * 8 * 3).reshape(24, 8, 8, 3)
    extractor = PretrainedFeatureExtractor(net, preprocessing=noisy, batch_size=2, cache=False)
    extractor.transform(X)
    assert called[-24:] == list(range(24))
    assert len(threads) == 1
