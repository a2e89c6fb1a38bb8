"""Precomputed rows are all that a search needs: one pass of the images, none in the workers."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor, precompute
from sklearn_featx.flow import _compute
from sklearn_featx.store import FeatureStore


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def search_over(backbone, store, depths, **parameters):
    tuner = FineTuneClassifier(
        backbone, max_epochs=1, random_state=0, C=1.0, image_size=16, cache=store
    )
    return GridSearchCV(tuner, {"unfreeze_depth": depths}, cv=3, refit=False, **parameters)


def engines_of_this_process(estimator, X, y):
    return sum(len(engines) for engines in _compute._engines.values())


@pytest.mark.parametrize("depths", [[0, 1, 2, 3], [2, 1], [0]])
def test_all_depths_take_one_pass_of_the_images(small_net, digits, store, trunk_rows, depths):
    search = search_over(small_net, store, depths)
    precompute(search, digits[0])
    assert sum(trunk_rows) == len(digits[0])
    trunk_rows.clear()
    search.fit(*digits)
    assert trunk_rows == []


@pytest.mark.parametrize(("depth", "n_folds"), [(1, 2), (1, 3), (1, 5), (0, 3), (2, 3), ("all", 3)])
def test_a_search_at_one_depth_takes_one_pass_of_the_images(
    small_net, digits, store, trunk_rows, depth, n_folds
):
    """A held-out image is an image of training in the other folds: one pass serves both."""
    search = search_over(small_net, store, [depth])
    search.set_params(cv=n_folds, refit=True)
    search.fit(digits[0][:30], digits[1][:30])
    assert sum(trunk_rows) == 30


def test_layers_of_an_extractor_take_one_pass(small_net, digits, store, trunk_rows):
    pipeline = Pipeline(
        [
            ("images", PretrainedFeatureExtractor(small_net, cache=store)),
            ("clf", LogisticRegression()),
        ]
    )
    search = GridSearchCV(pipeline, {"images__layer": ["stem", "top"]}, cv=2, refit=False)
    precompute(search, digits[0])
    assert sum(trunk_rows) == len(digits[0])
    trunk_rows.clear()
    search.fit(*digits)
    assert trunk_rows == []


def test_another_image_size_is_another_pass(small_net, digits, store, trunk_rows):
    search = search_over(small_net, store, [1])
    search.param_grid = {"image_size": [16, 24]}
    precompute(search, digits[0])
    assert sum(trunk_rows) == 2 * len(digits[0])
    trunk_rows.clear()
    search.fit(*digits)
    assert trunk_rows == []


def test_too_much_for_one_pass_is_computed_for_each_candidate(
    small_net, digits, store, trunk_rows, monkeypatch
):
    from sklearn_featx.flow._cache import Decision
    from sklearn_featx.model_selection import _precompute

    monkeypatch.setattr(_precompute, "decide", lambda *_: Decision(False, "too much"))
    search = search_over(small_net, store, [1, 2])
    precompute(search, digits[0])
    trunk_rows.clear()
    search.fit(*digits)
    assert trunk_rows == []


@pytest.mark.slow
def test_workers_read_and_make_no_engine(digits, store):
    """Without an engine, no worker puts a trunk on the device."""
    from joblib.externals.loky import get_reusable_executor

    X, y = digits[0][:30], digits[1][:30]
    search = search_over(
        "efficientnet_lite0", store, [0, 1], n_jobs=2, scoring=engines_of_this_process
    )
    search.estimator.image_size = 32
    precompute(search, X)
    # New workers have no engines of other tests.
    get_reusable_executor().shutdown(wait=True)
    assert search.fit(X, y).cv_results_["mean_test_score"].max() == 0
    store.clear()
    assert search.fit(X, y).cv_results_["mean_test_score"].max() > 0


def test_without_a_cache_there_is_nothing_to_do(small_net, digits):
    with pytest.raises(ValueError, match=r"precompute: no rows are cached .*cache=False"):
        precompute(search_over(small_net, False, [1]), digits[0])


def test_an_estimator_of_another_package_is_refused(digits):
    with pytest.raises(TypeError, match="precompute: LogisticRegression holds no estimator"):
        precompute(LogisticRegression(), digits[0])
