"""Predictions without evidence: what is learned for them, and how they are scored."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import torch
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import FineTuneClassifier, FineTuneRegressor, PretrainedFeatureExtractor
from sklearn_featx.estimators import _finetune_base
from sklearn_featx.estimators._prior import ClassShares
from sklearn_featx.exceptions import DivergenceError, ImageError, ImageWarning

BAD = 7


@pytest.fixture
def X(digit_files):
    """24 files, of which one is unreadable."""
    paths: list = list(digit_files[0][:24])
    paths[BAD] = b"no image"
    return paths


@pytest.fixture
def good(X):
    return without(X)


@pytest.fixture
def y(digits):
    return digits[1][:24]


def without(values):
    left = [i for i in range(len(values)) if i != BAD]
    return [values[i] for i in left] if isinstance(values, list) else values[left]


SETTINGS = {"unfreeze_depth": 0, "image_size": 16, "C": 0.1, "random_state": 0, "n_jobs": 1}


def classifier(net, **parameters):
    return FineTuneClassifier(net, on_error="nan", **SETTINGS | parameters)


def regressor(net, **parameters):
    return FineTuneRegressor(net, on_error="nan", **SETTINGS | parameters)


def quiet(call, *arguments, **keywords):
    """Call with one warning of images, which is expected."""
    with pytest.warns(ImageWarning):
        return call(*arguments, **keywords)


class TestShares:
    def test_are_those_of_a_dummy(self):
        codes, weights = np.array([0, 2, 2, 0, 2]), np.array([1.0, 0.5, 2, 0, 1])
        shares = ClassShares.of(codes, weights, 4)
        dummy = DummyClassifier().fit(codes[:, None], codes, weights)
        np.testing.assert_array_equal(shares.shares[[0, 2]], dummy.class_prior_)
        assert shares.shares[[1, 3]].tolist() == [0, 0]
        assert shares.total == 4.5

    def test_of_parts_are_those_of_the_whole(self):
        codes = np.array([0, 2, 2, 0, 2, 1, 1])
        parts = ClassShares.of(codes[:3], None, 3).joined(ClassShares.of(codes[3:], None, 3))
        np.testing.assert_allclose(parts.shares, ClassShares.of(codes, None, 3).shares)
        assert parts.total == 7

    def test_of_equal_shares_the_first_class_is_the_most_frequent(self):
        # One bit apart by rounding.
        logits = ClassShares(np.array([0.5 - 1e-16, 0.5 + 1e-16]), 3.0).logits(multilabel=False)
        assert logits.argmax() == 0

    def test_of_labels_that_all_or_none_have(self):
        indicator = np.array([[0, 1, 1], [0, 1, 0]])
        logits = ClassShares.of(indicator, None, 3).logits(multilabel=True)
        assert logits.tolist() == [-np.inf, np.inf, 0]


class TestWeights:
    @pytest.mark.parametrize("weighted", [False, True])
    def test_balanced_weights_are_of_readable_images(self, weighted, small_net, X, y):
        weights = np.arange(1.0, 25) if weighted else None
        left = without(weights) if weighted else None
        clf = classifier(small_net, class_weight="balanced")
        quiet(clf.fit, X, y, weights)
        plain = classifier(small_net, class_weight="balanced").fit(without(X), without(y), left)
        for name, values in plain.trained_state_.items():
            np.testing.assert_array_equal(clf.trained_state_[name], values)
        np.testing.assert_array_equal(clf.class_prior_, plain.class_prior_)
        np.testing.assert_allclose(clf.class_prior_, 1 / 3)
        # A tie: the first class.
        assert quiet(clf.predict, [b"no image"]) == [0]

    def test_a_score_leaves_out_the_weight_as_well(self, small_net, X, y):
        clf = quiet(classifier(small_net, C=1e-4).fit, X, y)
        weights = np.arange(1.0, 25)
        expected = accuracy_score(
            without(y), clf.predict(without(X)), sample_weight=without(weights)
        )
        assert 0 < expected < 1
        with pytest.warns(ImageWarning, match="1 of 24 .* left out of the score") as caught:
            score = clf.score(X, y, weights)
        assert score == expected
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert [failure.row for failure in clf.failures_] == [BAD]
        assert quiet(clf.score, X, y.tolist(), weights.tolist()) == expected
        assert quiet(clf.score, X, pd.Series(y, index=range(9, 33)), pd.Series(weights)) == expected

    def test_routed_weights(self, small_net, X, y):
        column = np.array(X, dtype=object)[:, None]
        weights = np.arange(1.0, 25)
        with sklearn.config_context(enable_metadata_routing=True):
            clf = classifier(small_net).set_fit_request(sample_weight=True)
            clf.set_score_request(sample_weight=True)
            with pytest.warns(ImageWarning):
                scores = cross_val_score(
                    clf, column, y, cv=KFold(3), params={"sample_weight": weights}
                )
        for score, (train, test) in zip(scores, KFold(3).split(y), strict=True):
            train, test = (np.setdiff1d(rows, [BAD]) for rows in (train, test))
            plain = classifier(small_net).fit(column[train], y[train], weights[train])
            assert score == plain.score(column[test], y[test], weights[test])

    def test_no_image_left_to_score_gives_the_score_of_the_prior(self, small_net, X, y):
        clf = quiet(classifier(small_net).fit, X, y)
        most = np.bincount(without(y)).argmax()
        with pytest.warns(ImageWarning, match="1 of 1 .*that of the prior"):
            assert clf.score([b"no image"], [most]) == 1
        assert quiet(clf.score, [b"no image"], [most + 1]) == 0
        # The others have no weight.
        only = np.eye(24)[BAD]
        assert quiet(clf.score, X, np.full(24, most), only) == 1

    def test_as_many_labels_as_images(self, small_net, X, y):
        clf = quiet(classifier(small_net).fit, X, y)
        with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[23, 24\]"):
            clf.score(X, y[1:])


class TestLearned:
    def test_a_class_of_which_only_the_unreadable_image_is(self, small_net, X, y):
        labels = np.array(["a", "b", "a"], dtype=object)[y]
        labels[BAD] = "rare"
        clf = quiet(classifier(small_net).fit, X, labels)
        probabilities = quiet(clf.predict_proba, X)
        assert clf.classes_.tolist() == ["a", "b", "rare"]
        assert probabilities[BAD, 2] == 0
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert quiet(clf.predict, X)[BAD] == "a"

    def test_partial_fit_sums_up(self, small_net, X, y):
        clf = classifier(small_net)
        quiet(clf.partial_fit, X[:10], y[:10], classes=[0, 1, 2])
        clf.partial_fit(X[10:], y[10:])
        np.testing.assert_allclose(clf.class_prior_, np.bincount(without(y)) / 23)
        assert clf.weight_sum_ == 23
        before = clf.trained_state_
        with pytest.raises(ImageError, match="None of the 1 images"):
            clf.partial_fit([b"no image"], [1])
        assert clf.trained_state_ is before
        np.testing.assert_allclose(quiet(clf.predict_proba, [b"no image"]), [clf.class_prior_])

    @pytest.mark.parametrize("error", [DivergenceError, ValueError])
    def test_a_partial_fit_that_fails_counts_no_image(self, small_net, good, y, error, monkeypatch):
        def diverge(*arguments):
            raise DivergenceError

        clf = classifier(small_net).partial_fit(good[:10], y[:10], classes=[0, 1, 2])
        before = clf.class_prior_.tolist(), clf.weight_sum_
        expected = quiet(clf.predict_proba, [b"no image"])
        if error is DivergenceError:
            monkeypatch.setattr(_finetune_base, "continue_fit", diverge)
        else:
            clf.set_params(unfreeze_depth=1)
        with pytest.raises(error):
            clf.partial_fit(good[:4], y[:4])
        assert (clf.class_prior_.tolist(), clf.weight_sum_) == before
        clf.set_params(unfreeze_depth=0)
        np.testing.assert_array_equal(quiet(clf.predict_proba, [b"no image"]), expected)

    def test_the_first_partial_fit_of_numbers_leaves_the_target_out(self, small_net, X, y):
        targets = y.astype(float)
        targets[BAD] = 1e6
        reg = quiet(regressor(small_net).partial_fit, X, targets)
        np.testing.assert_allclose(reg.target_mean_, [without(y).mean()])
        np.testing.assert_allclose(quiet(reg.predict, [b"no image"]), without(y).mean())

    def test_several_targets(self, small_net, X, y):
        targets = np.stack([y, -2.0 * y], axis=1)
        reg = quiet(regressor(small_net).fit, X, targets)
        np.testing.assert_allclose(quiet(reg.predict, X)[BAD], without(targets).mean(axis=0))

    def test_sparse_matrix_of_labels(self, small_net, X, y):
        matrix = np.stack([y == 0, y == 1], axis=1).astype(int)
        clf = quiet(classifier(small_net).fit, X, scipy.sparse.csr_matrix(matrix))
        np.testing.assert_allclose(clf.class_prior_, without(matrix).mean(axis=0))
        np.testing.assert_allclose(quiet(clf.predict_proba, [b"no image"]), [clf.class_prior_])
        score = quiet(clf.score, X, scipy.sparse.csr_matrix(matrix))
        assert score == clf.score(without(X), without(matrix))

    @pytest.mark.parametrize("depth", [1, "all"])
    def test_trained_stages(self, depth, small_net, X, y):
        trained = {"unfreeze_depth": depth, "max_epochs": 2}
        clf = quiet(classifier(small_net, **trained).fit, X, y)
        plain = classifier(small_net, **trained).fit(without(X), without(y))
        probabilities = quiet(clf.predict_proba, X)
        np.testing.assert_allclose(
            without(probabilities), plain.predict_proba(without(X)), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(probabilities[BAD], np.bincount(without(y)) / 23)

    def test_copies_answer_alike(self, small_net, X, y):
        clf = quiet(classifier(small_net).fit, X, y)
        expected = quiet(clf.predict_proba, X)
        copy = pickle.loads(pickle.dumps(clf))
        assert copy.failures_ == clf.failures_
        np.testing.assert_array_equal(quiet(copy.predict_proba, X), expected)


class TestOneUpload:
    """One unreadable image alone, in every form in which it may come."""

    @pytest.mark.parametrize(
        "upload",
        [b"", b"no image", None, float("nan"), pd.NA, "gone.png", "http://127.0.0.1:9/c.png"],
    )
    def test_forms(self, upload, small_net, X, y):
        clf = quiet(classifier(small_net).fit, X, y)
        for batch in ([upload], pd.Series([upload]), pd.DataFrame({"upload": [upload]})):
            probabilities = quiet(clf.predict_proba, batch)
            np.testing.assert_allclose(probabilities, [clf.class_prior_])
        with pytest.raises(ImageError):
            clf.set_params(on_error="raise").predict_proba([upload])

    def test_sizes_that_the_images_decide(self, small_net, X, y):
        clf = quiet(classifier(small_net, image_size=None).fit, X, y)
        np.testing.assert_allclose(quiet(clf.predict_proba, X[BAD : BAD + 1]), [clf.class_prior_])

    def test_a_function_as_preprocessing(self, small_net, X, y):
        def prepare(picture):
            return torch.from_numpy(np.asarray(picture) / 255).float()[None]

        clf = classifier(small_net, image_size=None, preprocessing=prepare)
        quiet(clf.fit, X, y)
        np.testing.assert_allclose(quiet(clf.predict_proba, X[BAD : BAD + 1]), [clf.class_prior_])

    def test_in_a_pipeline(self, small_net, X, y):
        rest = make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression())
        extractor = PretrainedFeatureExtractor(small_net, image_size=16, on_error="nan")
        pipe = quiet(make_pipeline(extractor, *rest).fit, X, y)
        # Scaled, the mean is 0: the intercepts alone.
        logits = np.exp(pipe[-1].intercept_)
        probabilities = quiet(pipe.predict_proba, X[BAD : BAD + 1])
        np.testing.assert_allclose(probabilities[0], logits / logits.sum(), rtol=1e-5)

    def test_as_a_frame(self, small_net, X):
        extractor = PretrainedFeatureExtractor(small_net, image_size=16, on_error="nan")
        extractor.set_output(transform="pandas")
        frame = quiet(extractor.fit_transform, pd.DataFrame({"file": X}, index=range(100, 124)))
        assert frame.index.tolist() == list(range(100, 124))
        assert frame.isna().all(axis=1).to_numpy().nonzero()[0].tolist() == [BAD]
        alone = quiet(extractor.transform, X[BAD : BAD + 1])
        assert alone.shape == (1, 32)
        assert alone.isna().all(axis=None)


class TestReported:
    """Problems that users of other libraries reported."""

    def test_beside_numbers_in_a_column_transformer(self, small_net, X, y):
        frame = pd.DataFrame({"path": X, "age": np.arange(24.0)})
        extractor = PretrainedFeatureExtractor(small_net, image_size=16, on_error="nan")
        columns = ColumnTransformer(
            [("image", extractor, ["path"]), ("number", StandardScaler(), ["age"])]
        )
        pipe = make_pipeline(columns, SimpleImputer(), LogisticRegression())
        with pytest.warns(ImageWarning):
            assert np.isfinite(cross_val_score(pipe, frame, y, cv=3)).all()
        quiet(pipe.fit, frame, y)
        assert quiet(pipe.predict, frame[BAD : BAD + 1]).shape == (1,)

    def test_a_search_without_readable_images_says_so(self, small_net, y):
        column = np.array([b"no image"] * 24, dtype=object)[:, None]
        search = GridSearchCV(classifier(small_net), {"C": [0.1, 1]}, cv=2)
        with pytest.raises(ValueError, match="None of the 12 images can be read"):
            search.fit(column, y)

    @pytest.mark.parametrize("scoring", [None, "accuracy", "neg_log_loss"])
    def test_the_best_candidate_is_chosen_not_the_first(self, scoring, small_net, X, y):
        column = np.array(X, dtype=object)[:, None]
        search = GridSearchCV(classifier(small_net), {"C": [1e-6, 1.0]}, cv=3, scoring=scoring)
        with pytest.warns(ImageWarning):
            search.fit(column, y)
        assert search.best_params_ == {"C": 1.0}
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_threads_share_a_fitted_one(self, small_net, X, y):
        clf = quiet(classifier(small_net).fit, X, y)
        expected = quiet(clf.predict_proba, X)
        with pytest.warns(ImageWarning), ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda rows: clf.predict_proba(X[rows]), [slice(0, 24)] * 24))
        for answer in answers:
            np.testing.assert_array_equal(answer, expected)
        assert [failure.row for failure in clf.failures_] == [BAD]

    def test_learning_curve_of_partial_fits(self, small_net, X, y):
        column = np.array(X, dtype=object)[:, None]
        with pytest.warns(ImageWarning):
            _, _, scores = learning_curve(
                classifier(small_net), column, y, cv=KFold(2), train_sizes=[0.5, 1.0],
                exploit_incremental_learning=True,
            )  # fmt: skip
        assert np.isfinite(scores).all()

    def test_warnings_as_errors_leave_the_table(self, small_net, X, y):
        clf = classifier(small_net).fit(without(X), without(y))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageWarning):
                clf.predict(X)
        assert [failure.row for failure in clf.failures_] == [BAD]

    def test_warnings_name_the_line_of_the_user(self, small_net, X, y):
        clf, reg = classifier(small_net), regressor(small_net)
        extractor = PretrainedFeatureExtractor(small_net, image_size=16, on_error="nan")
        calls = [
            lambda: clf.fit(X, y), lambda: clf.predict(X), lambda: clf.predict_proba(X),
            lambda: clf.score(X, y), lambda: clf.partial_fit(X, y), lambda: reg.fit(X, y),
            lambda: reg.predict(X), lambda: extractor.fit_transform(X),
            lambda: extractor.transform(X),
        ]  # fmt: skip
        for call in calls:
            with pytest.warns(ImageWarning) as caught:
                call()
            assert [warning.filename for warning in caught] == [__file__]
