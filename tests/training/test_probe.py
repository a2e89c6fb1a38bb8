"""The probe is scikit-learn's pipeline, folded into one linear layer."""

import threading
from contextlib import ExitStack

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline

from sklearn_featx._parallel import thread_pools
from sklearn_featx.exceptions import FeatxWarning
from sklearn_featx.training import (
    Scaling,
    _logistic,
    fit_linear_probe_classifier,
    fit_linear_probe_multilabel,
    fit_linear_probe_regressor,
)
from sklearn_featx.training._logistic import LogisticProblem


class EvenScaler(TransformerMixin, BaseEstimator):
    """Centers the columns and divides all of them by one number, their root mean variance."""

    def fit(self, X, y=None):
        self.mean_, self.scale_ = X.mean(axis=0), np.sqrt(X.var(axis=0).mean())
        return self

    def transform(self, X):
        return (X - self.mean_) / self.scale_


def make_rows(n_rows, n_features, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_rows, n_features)) * rng.uniform(0.1, 20, n_features) + 3
    codes = np.arange(n_rows) % n_classes
    features[:, 0] += codes * 5
    features[:, -1] = 2.0  # a dead channel
    return features, codes, rng.integers(0, 4, n_rows)


def logits(features, probe):
    weight, bias, _ = probe
    return features @ weight.T + bias


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n_features", [6, 90])  # fewer and more than rows
@pytest.mark.parametrize("C", [0.01, 1.0])
def test_equals_the_pipeline(n_classes, n_features, C):
    features, codes, _ = make_rows(60, n_features, n_classes)
    logistic = LogisticRegression(C=C, tol=1e-10, max_iter=10_000, solver="newton-cg")
    expected = make_pipeline(EvenScaler(), logistic).fit(features, codes)
    probe = fit_linear_probe_classifier(features, codes, n_classes, C=C)
    assert probe[0].shape == (n_classes, n_features)
    probabilities = softmax(logits(features, probe), axis=1)
    np.testing.assert_allclose(probabilities, expected.predict_proba(features), atol=2e-6)


@pytest.mark.parametrize("n_features", [6, 90])
def test_weights_are_repetitions(n_features):
    features, codes, repeats = make_rows(60, n_features, 3)
    weighted = fit_linear_probe_classifier(features, codes, 3, C=1.0, sample_weight=repeats)
    repeated = fit_linear_probe_classifier(
        np.repeat(features, repeats, axis=0), np.repeat(codes, repeats), 3, C=1.0
    )
    np.testing.assert_allclose(
        softmax(logits(features, weighted), axis=1),
        softmax(logits(features, repeated), axis=1),
        atol=1e-5,
    )


def test_rows_without_weight_have_no_influence():
    features, codes, repeats = make_rows(60, 6, 3)
    wild = features.copy()
    wild[repeats == 0] = 1e6
    first, second = (
        fit_linear_probe_classifier(f, codes, 3, C=1.0, sample_weight=repeats)
        for f in (features, wild)
    )
    np.testing.assert_array_equal(first[0], second[0])


def test_a_class_without_rows_is_improbable():
    features, codes, _ = make_rows(60, 6, 3)
    probe = fit_linear_probe_classifier(features, codes * 2, 5, C=1.0)
    probabilities = softmax(logits(features, probe), axis=1)
    assert probe[0].shape == (5, 6)
    assert probabilities[:, [1, 3]].max() < 1e-3
    np.testing.assert_array_equal(probabilities.argmax(1) % 2, 0)
    np.testing.assert_array_equal(probe.bias[[1, 3]], probe.bias[[0, 2, 4]].min() - 10)


def test_a_single_class_is_certain():
    probe = fit_linear_probe_classifier(np.eye(3), [1, 1, 1], 2, C=1.0)
    np.testing.assert_array_equal(logits(np.eye(3), probe).argmax(1), 1)


def test_stopping_short_is_said(monkeypatch):
    monkeypatch.setattr(_logistic, "MAX_STEPS", 1)
    features, codes, _ = make_rows(60, 6, 3)
    with pytest.warns(FeatxWarning, match="did not converge in 1 steps.*C=1"):
        fit_linear_probe_classifier(features, codes, 3, C=1.0)


def test_columns_of_any_scale_reach_the_optimum():
    # github.com/scikit-learn/scikit-learn/issues/15556 and 18074: L-BFGS ends far from it
    rng = np.random.default_rng(0)
    codes = np.arange(90) % 3
    features = rng.normal(size=(90, 12)) * np.logspace(-4, 4, 12)
    features[:, :3] += 1e-4 * np.eye(3)[codes]
    widths = [4, 4, 4]
    scaled = Scaling.of(features, None, widths).apply(features)
    logistic = LogisticRegression(C=10, tol=1e-10, max_iter=10_000, solver="newton-cg")
    expected = logistic.fit(scaled, codes).predict_proba(scaled)
    probe = fit_linear_probe_classifier(features, codes, 3, C=10, widths=widths)
    probabilities = softmax(logits(features, probe), axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=2e-6)


def test_equal_rows_predict_the_mean_for_other_rows_too():
    """The weighted mean of equal numbers is rounded; the rest must not be scaled to 1."""
    rng = np.random.default_rng(0)
    features, others = np.tile(rng.normal(size=40), (6, 1)).astype(np.float32), np.eye(40)
    weights, targets = rng.uniform(0.5, 2, 6), np.arange(6.0)
    probe = fit_linear_probe_regressor(features, targets, alpha=10.0, sample_weight=weights)
    mean = np.average(targets, weights=weights)
    np.testing.assert_allclose(logits(others, probe), mean, rtol=1e-9)
    probe = fit_linear_probe_classifier(
        features, [0, 1] * 3, 2, C=0.1, sample_weight=weights, widths=[30, 10]
    )
    share = weights[1::2].sum() / weights.sum()
    np.testing.assert_allclose(softmax(logits(others, probe), axis=1)[:, 1], share, rtol=1e-6)


def test_multilabel_is_a_logistic_regression_for_each_label():
    features, codes, _ = make_rows(60, 6, 4)
    labels = np.stack([codes % 2, codes // 2], axis=1)
    logistic = LogisticRegression(tol=1e-10, max_iter=10_000, solver="newton-cg")
    expected = MultiOutputClassifier(logistic).fit(EvenScaler().fit_transform(features), labels)
    weight_bias = fit_linear_probe_multilabel(features, labels, C=1.0)
    probabilities = expected.predict_proba(EvenScaler().fit_transform(features))
    np.testing.assert_allclose(
        expit(logits(features, weight_bias)),
        np.stack([p[:, 1] for p in probabilities], axis=1),
        atol=1e-5,
    )


def test_many_classes_reach_the_optimum():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 8)
    features = rng.normal(size=(40, 60))[codes] + 1.6 * rng.normal(size=(320, 60))
    features = features * np.arange(1, 61) ** -1.0
    features = features @ np.linalg.qr(rng.normal(size=(60, 60)))[0]  # columns are correlated
    logistic = LogisticRegression(tol=1e-10, max_iter=10_000, solver="newton-cg")
    scaled = EvenScaler().fit_transform(features)
    expected = logistic.fit(scaled, codes).predict_proba(scaled)
    probe = fit_linear_probe_classifier(features, codes, 40, C=1.0)
    probabilities = softmax(logits(features, probe), axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=2e-6)


@pytest.mark.parametrize("n_features", [6, 90])
@pytest.mark.parametrize("n_outputs", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_regression_equals_ridge(n_features, n_outputs, weighted):
    features, codes, repeats = make_rows(60, n_features, 3)
    targets = features[:, :2].sum(1) if n_outputs is None else features[:, :n_outputs] + codes[0]
    weights = repeats if weighted else np.ones(60, int)
    many = np.repeat(features, weights, axis=0)
    expected = make_pipeline(EvenScaler(), Ridge(alpha=0.7))
    expected.fit(many, np.repeat(targets, weights, axis=0))
    probe = fit_linear_probe_regressor(features, targets, alpha=0.7, sample_weight=weights)
    assert probe[0].shape == (n_outputs or 1, n_features)
    np.testing.assert_allclose(
        logits(features, probe).reshape(targets.shape), expected.predict(features), rtol=1e-6
    )


class TestThreads:
    """BLAS has one thread while a logistic regression is fitted."""

    @pytest.fixture
    def counts(self):
        """Return the numbers of threads of each BLAS."""

        def found():
            return [
                pool.num_threads for pool in thread_pools().select(user_api="blas").lib_controllers
            ]

        with thread_pools().limit(limits=2, user_api="blas"):
            if set(found()) != {2}:
                pytest.skip("BLAS has one thread here")
            yield found

    def test_one_during_a_fit_and_as_before_after_it(self, counts, monkeypatch):
        during = []

        def spy(*args, **kwargs):
            during.append(counts())
            return minimize(*args, **kwargs)

        monkeypatch.setattr(_logistic, "minimize", spy)
        features, codes, _ = make_rows(30, 6, 3)
        fit_linear_probe_classifier(features, codes, 3, C=1.0)
        assert [set(each) for each in during] == [{1}]
        assert set(counts()) == {2}

    @pytest.mark.parametrize("n_classes", [2, 7])
    def test_parts_of_many_rows_in_threads_have_the_same_solution(
        self, counts, n_classes, monkeypatch
    ):
        monkeypatch.setattr(_logistic, "PRODUCTS_OF_A_THREAD", 1000)
        features, codes, _ = make_rows(301, 9, n_classes)
        rows = features - features.mean(axis=0)
        problem = _logistic.LogisticProblem(rows, codes, np.ones(301))
        parts, names = [], set()
        of_part = problem._loss_of_part

        both = threading.Barrier(2)

        def spy(weight, bias, part):
            parts.append(part)
            if len(names) < 2 and threading.current_thread() is not threading.main_thread():
                # A thread that is free takes the other part too.
                both.wait(10)
            names.add(threading.current_thread().name)
            return of_part(weight, bias, part)

        monkeypatch.setattr(problem, "_loss_of_part", spy)
        in_two = problem.solve(1.0)
        assert set(map(str, parts)) == {"slice(0, 150, None)", "slice(150, 301, None)"}
        assert len(names) == 2
        assert all(name.startswith("featx-worker") for name in names)
        with thread_pools().limit(limits=1, user_api="blas"):
            parts.clear()
            in_one = problem.solve(1.0)
        assert set(map(str, parts)) == {"slice(0, 301, None)"}
        np.testing.assert_allclose(in_two.weight, in_one.weight, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(in_two.bias, in_one.bias, rtol=1e-5, atol=1e-7)

    def test_few_rows_are_no_work_for_a_second_thread(self, counts, monkeypatch):
        monkeypatch.setattr(_logistic, "ThreadPoolExecutor", None)
        features, codes, _ = make_rows(30, 6, 3)
        assert np.isfinite(fit_linear_probe_classifier(features, codes, 3, C=1.0).weight).all()

    def test_folds_are_solved_in_threads_and_the_choice_is_the_same(self, counts, monkeypatch):
        features, codes, _ = make_rows(100, 6, 3)
        during, solve = [], _logistic.LogisticProblem.solve

        def spy(self, *args, **kwargs):
            during.append((threading.current_thread().name, set(counts())))
            return solve(self, *args, **kwargs)

        monkeypatch.setattr(_logistic.LogisticProblem, "solve", spy)
        in_two = fit_linear_probe_classifier(features, codes, 3, C="auto")
        assert set(counts()) == {2}
        *of_folds, last = during
        assert last[0] == threading.main_thread().name
        assert all(name.startswith("featx-worker") and n == {1} for name, n in of_folds)
        with thread_pools().limit(limits=1, user_api="blas"):
            in_one = fit_linear_probe_classifier(features, codes, 3, C="auto")
        assert in_two.C == in_one.C
        np.testing.assert_array_equal(in_two.weight, in_one.weight)

    def test_the_last_of_several_fits_restores_them(self, counts):
        first, second = ExitStack(), ExitStack()
        first.enter_context(_logistic.blas.limited())
        second.enter_context(_logistic.blas.limited())
        first.close()
        assert set(counts()) == {1}
        second.close()
        assert set(counts()) == {2}

    def test_a_fit_that_fails_restores_them(self, counts, monkeypatch):
        def out_of_memory(*args, **kwargs):
            raise MemoryError

        monkeypatch.setattr(_logistic, "minimize", out_of_memory)
        with pytest.raises(MemoryError):
            LogisticProblem(np.eye(2), np.arange(2), np.ones(2)).solve(1.0)
        assert set(counts()) == {2}
