"""The dry run: its counts are those of the real run, and it computes and writes nothing."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline

from sklearn_featx import (
    FineTuneClassifier,
    ImageReader,
    PretrainedFeatureExtractor,
    plan_search,
    precompute,
)
from sklearn_featx.store import FeatureStore


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def tuner(backbone, **parameters):
    settings = {"max_epochs": 1, "random_state": 0, "C": 1.0, "image_size": 16}
    return FineTuneClassifier(backbone, **settings | parameters)


def pipeline(backbone, **parameters):
    extractor = PretrainedFeatureExtractor(backbone, **parameters)
    return Pipeline([("images", extractor), ("clf", RidgeClassifier())])


SEARCHES = {
    "depths": lambda net, cache: GridSearchCV(
        tuner(net, cache=cache), {"unfreeze_depth": [0, 1, 2, 3], "lr": [1e-3, 1e-2]}, cv=3
    ),
    "deepest first": lambda net, cache: GridSearchCV(
        tuner(net, cache=cache), {"unfreeze_depth": [2, 1]}, cv=3
    ),
    "one depth, train scores": lambda net, cache: GridSearchCV(
        tuner(net, cache=cache), {"unfreeze_depth": [1]}, cv=3, return_train_score=True
    ),
    "no refit": lambda net, cache: GridSearchCV(
        tuner(net, cache=cache), {"lr": [1e-3, 1e-2]}, cv=KFold(2), refit=False
    ),
    "a pipeline": lambda net, cache: GridSearchCV(
        pipeline(net, cache=cache), {"clf__alpha": [0.1, 1, 10]}, cv=3
    ),
    "layers": lambda net, cache: GridSearchCV(
        pipeline(net, cache=cache), {"images__layer": ["stem", "top"]}, cv=3
    ),
    "random": lambda net, cache: RandomizedSearchCV(
        pipeline(net, cache=cache), {"clf__alpha": loguniform(0.1, 10)}, n_iter=2, cv=2,
        random_state=0,
    ),
    "an extractor": lambda net, cache: PretrainedFeatureExtractor(net, cache=cache),
    "a tuner": lambda net, cache: tuner(net, cache=cache, unfreeze_depth=2),
}  # fmt: skip


@pytest.mark.parametrize("name", SEARCHES)
class TestPasses:
    def test_counts_are_those_of_the_run(self, name, small_net, digits, store, trunk_rows):
        search = SEARCHES[name](small_net, store)
        before = plan_search(search, *digits, timed=False)
        assert trunk_rows == []
        if isinstance(search, PretrainedFeatureExtractor):
            search.fit_transform(*digits)
        else:
            search.fit(*digits)
        assert sum(trunk_rows) == before.n_passes > 0
        again = plan_search(search, *digits, timed=False)
        assert (again.n_passes, again.n_bytes) == (0, 0)
        assert again.n_passes_without_cache == before.n_passes_without_cache

    def test_counts_without_cache_are_those_of_the_run(self, name, small_net, digits, trunk_rows):
        search = SEARCHES[name](small_net, False)
        before = plan_search(search, *digits, timed=False)
        if isinstance(search, PretrainedFeatureExtractor):
            search.fit_transform(*digits)
        else:
            search.fit(*digits)
        assert before.n_bytes == 0
        assert sum(trunk_rows) == before.n_passes == before.n_passes_without_cache


def test_nothing_is_written_or_changed(small_net, digits, tmp_path):
    search = SEARCHES["depths"](small_net, FeatureStore(tmp_path / "store"))
    plan_search(search, *digits)
    assert not (tmp_path / "store").exists()
    assert not hasattr(search, "best_params_")


def test_disk_space_is_that_of_the_rows(small_net, digits, tmp_path):
    for storage, n_bytes in (("float32", 4), ("float16", 2)):
        cache = FeatureStore(tmp_path / storage, storage=storage)
        planned = plan_search(
            PretrainedFeatureExtractor(small_net, cache=cache), digits[0], timed=False
        )
        assert planned.n_bytes == len(digits[0]) * 32 * n_bytes


def test_what_is_known_is_not_counted(small_net, digits, store):
    extractor = PretrainedFeatureExtractor(small_net, cache=store)
    extractor.transform(digits[0][:40])
    assert plan_search(extractor, digits[0], timed=False).n_passes == 20


def test_cross_validation_of_an_estimator(small_net, digits, trunk_rows):
    pipe = pipeline(small_net, cache=False)
    planned = plan_search(pipe, *digits, cv=3, timed=False)
    cross_val_score(pipe, *digits, cv=3)
    assert planned.n_passes == sum(trunk_rows) == 3 * 60


class TestDuplicates:
    @pytest.fixture
    def doubled(self, digits):
        images, labels = digits
        return np.concatenate([images[:30], images[:10]]), np.concatenate(
            [labels[:30], labels[:10]]
        )

    def test_they_are_found_and_kept_together(self, small_net, doubled, store):
        clf = tuner(small_net, cache=store)
        search = GridSearchCV(clf, {"unfreeze_depth": [0]}, cv=KFold(2))
        planned = plan_search(search, *doubled, timed=False)
        assert (planned.n_images, planned.n_distinct, planned.n_passes) == (40, 30, 30)
        np.testing.assert_array_equal(planned.groups, [*range(30), *range(10)])
        assert "at once: images with copies: 10. " in planned.warning
        search.set_params(cv=GroupKFold(2))
        assert plan_search(search, *doubled, timed=False).warning is None
        search.fit(*doubled, groups=planned.groups)

    def test_files_of_equal_content(self, small_net, digit_files, tmp_path):
        paths, _ = digit_files
        copied = tmp_path / "copy.png"
        copied.write_bytes(Path(paths[0]).read_bytes())
        planned = plan_search(PretrainedFeatureExtractor(small_net), [*paths, copied], timed=False)
        assert planned.groups[-1] == planned.groups[0]
        assert planned.warning is None


class TestWords:
    def test_all_is_said(self, small_net, digits, store):
        images = np.concatenate([digits[0], digits[0][:1]])
        extractor = PretrainedFeatureExtractor(small_net, image_size=16, cache=store)
        planned = plan_search(extractor, images, cv=KFold(2))
        text = str(planned)
        assert "61 images, 60 distinct" in text
        assert "60 passes (122 without cache); a pass is one image" in text
        assert "  60 for smallnet, layer mean" in text
        assert "smallnet, layer mean: cached, 61 rows of 0.1 KiB" in text
        assert "an estimate" in text
        assert "at once: images with copies: 1. " in text
        assert planned.minutes > 0

    def test_decisions_have_their_reasons(self, small_net, digits):
        planned = plan_search(
            PretrainedFeatureExtractor(small_net, cache=False), digits[0], timed=False
        )
        assert planned.decisions == ("smallnet, layer mean: not cached, cache=False",)
        assert planned.minutes is None


class TestErrors:
    @pytest.mark.parametrize(
        "other",
        [LogisticRegression(), make_pipeline(LogisticRegression()), Pipeline([("a", None)])],
    )
    def test_nothing_of_ours(self, other, digits):
        with pytest.raises(TypeError, match="no estimator of sklearn_featx"):
            plan_search(other, *digits)

    def test_folds_that_can_be_used_once(self, small_net, digits):
        folds = iter(KFold(2).split(digits[0]))
        search = GridSearchCV(tuner(small_net), {"lr": [1e-3]}, cv=folds)
        with pytest.raises(TypeError, match="iterator"):
            plan_search(search, *digits)
        assert len(list(folds)) == 2


def test_images_of_bags_are_counted_one_by_one(small_net, digit_files, tmp_path):
    paths = digit_files[0]
    bags = [paths[i : i + 3] for i in range(0, 30, 3)] + [paths[:1]]
    extractor = PretrainedFeatureExtractor(
        small_net, cache=tmp_path / "rows", reader=ImageReader(bag_pooling="mean")
    )
    before = plan_search(extractor, bags, timed=False)
    assert (before.n_images, before.n_distinct) == (31, 30)
    assert (before.n_passes, before.n_passes_without_cache) == (30, 31)
    assert len(before.groups) == 11
    precompute(extractor, bags)
    after = plan_search(extractor, bags, timed=False)
    assert (after.n_passes, after.n_bytes) == (0, 0)
    # Another pooling of the bags reads the same rows.
    extractor.set_params(reader__bag_pooling="max+std")
    assert plan_search(extractor, bags).n_passes == 0
