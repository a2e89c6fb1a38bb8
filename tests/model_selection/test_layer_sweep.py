"""The layer sweep: one pass for all layers, the same numbers as one layer at a time."""

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import (
    GroupKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)

from sklearn_featx import PretrainedFeatureExtractor, exceptions, layer_sweep
from sklearn_featx.model_selection import _layer_sweep, _nested
from sklearn_featx.model_selection._nested import nested_scores


@pytest.fixture
def estimator():
    return LogisticRegression(max_iter=2000)


def test_every_stage_and_pooling_in_one_pass(small_net, digits, estimator, trunk_rows):
    extractor = PretrainedFeatureExtractor(small_net, cache=False)
    table = layer_sweep(extractor, estimator, *digits, poolings=("avg", "max", "gem"), cv=3)
    assert sum(trunk_rows) == len(digits[0])
    # The last stage ends in a vector, which every pooling leaves as it is.
    assert len(table) == 2 * 3 + 1
    assert {row.layer for row in table} == {"stem", "body", "mean"}
    means = [row.mean_score for row in table]
    assert means == sorted(means, reverse=True)


def test_scores_equal_those_of_one_layer_at_a_time(small_net, digits, estimator):
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    extractor = PretrainedFeatureExtractor(small_net)
    table = layer_sweep(
        extractor, estimator, *digits, layers=["body.0", "stem"], poolings=("max",), cv=folds
    )
    for row in table:
        alone = PretrainedFeatureExtractor(small_net, layer=row.layer, pooling="max")
        features = alone.fit_transform(digits[0])
        assert row.n_features == features.shape[1]
        scores = cross_val_score(estimator, features, digits[1], cv=folds)
        np.testing.assert_allclose([row.mean_score, row.std_score], [scores.mean(), scores.std()])


@pytest.mark.parametrize("estimator", [None, "ridge"])
def test_no_estimator(small_net, digits, estimator):
    with pytest.raises(TypeError, match=r"estimator=.* expected an estimator for the features"):
        layer_sweep(PretrainedFeatureExtractor(small_net), estimator, *digits)


def test_a_layer_with_infinite_features_is_named(small_net, digits):
    with torch.no_grad():
        small_net.top[1].weight.fill_(3e38)
    extractor = PretrainedFeatureExtractor(small_net, cache=False)
    with pytest.warns(exceptions.BackboneWarning) as warned:
        table = layer_sweep(extractor, DummyClassifier(), *digits, poolings=["avg"], cv=2)
    (said,) = warned
    assert "layer 'mean', gives NaN or infinite features for 60 of 60 images" in str(said.message)
    assert said.filename == __file__
    assert len(table) == 3


def test_a_missing_target_is_named_before_a_pass(small_net, digits, estimator, trunk_rows):
    y = digits[1].astype(float)
    y[7] = np.nan
    with pytest.raises(ValueError, match=r"^y: row 7 is nan, and no target may be missing"):
        layer_sweep(PretrainedFeatureExtractor(small_net), estimator, digits[0], y)
    assert trunk_rows == []


def test_unknown_layer(small_net, digits, estimator):
    with pytest.raises(exceptions.UnknownLayerError, match="steam"):
        layer_sweep(PretrainedFeatureExtractor(small_net), estimator, *digits, layers=["steam"])


def test_several_backbones(small_net, small_net_factory, digits, estimator, trunk_rows):
    X, y = digits
    extractors = [
        PretrainedFeatureExtractor(small_net, cache=False),
        PretrainedFeatureExtractor(small_net_factory(seed=1), cache=False, image_size=16),
    ]
    table = layer_sweep(extractors, estimator, X, y, cv=3, nested=False)
    assert sum(trunk_rows) == 2 * len(X)
    assert {row.backbone for row in table} == {"smallnet [0]", "smallnet [1]"}
    alone = layer_sweep(extractors[1], estimator, X, y, cv=3, nested=False)
    assert [row[1:] for row in table if row.backbone == "smallnet [1]"] == [
        row[1:] for row in alone
    ]
    assert alone[0].backbone == "smallnet"


def test_images_that_one_of_them_cannot_read(small_net, digit_files, estimator):
    paths, y = digit_files
    broken = [*paths[:20], b"no image", *paths[20:40]]
    labels = [*y[:20], 0, *y[20:40]]
    extractors = [PretrainedFeatureExtractor(small_net, on_error="nan")] * 2
    with pytest.warns(exceptions.ImageWarning, match="1 of 41 images"):
        table = layer_sweep(extractors, estimator, broken, labels, cv=2, nested=False)
    good = layer_sweep(extractors, estimator, paths[:40], y[:40], cv=2, nested=False)
    assert list(table) == list(good)


class TestNested:
    def test_the_choice_is_scored_on_rows_that_it_has_not_seen(self, estimator):
        """Labels that nothing can predict: the best of many looks good, its choice does not."""
        rng = np.random.default_rng(0)
        y = rng.permutation(np.repeat([0, 1], 30))
        columns = [rng.normal(size=(60, 2)) for _ in range(40)]
        folds = list(StratifiedKFold(5).split(columns[0], y))
        scores = np.array([cross_val_score(estimator, c, y, cv=folds) for c in columns])
        honest = nested_scores(estimator, columns, y, folds, scores, None)
        assert scores.mean(1).max() > 0.6
        assert honest.mean() < 0.56

    @pytest.mark.parametrize("n_folds", [2, 3, 5])
    def test_it_is_that_of_a_grid_search_over_the_sets(self, estimator, n_folds):
        """One set is far better: it is chosen in each fold."""
        rng = np.random.default_rng(0)
        y = np.repeat([0, 1, 2], 20)
        columns = [rng.normal(size=(60, 3)), np.eye(3)[y] * 5 + rng.normal(size=(60, 3))]
        folds = list(StratifiedKFold(n_folds, shuffle=True, random_state=0).split(y, y))
        scores = np.array([cross_val_score(estimator, c, y, cv=folds) for c in columns])
        honest = nested_scores(estimator, columns, y, folds, scores, None)
        np.testing.assert_array_equal(honest, scores[1])


def test_it_prints_as_a_table(small_net, digits):
    table = layer_sweep(PretrainedFeatureExtractor(small_net), RidgeClassifier(), *digits, cv=3)
    header, *lines = str(table).splitlines()
    assert header.split() == ["backbone", "layer", "pooling", "features", "mean", "score", "std"]
    assert lines[0].split()[:3] == ["smallnet", table[0].layer, table[0].pooling]
    assert lines[-1].startswith(f"nested score of the choice: {table.nested_scores.mean():.4f}")
    markup = table._repr_html_()
    assert markup.count("<tr>") == len(table) + 1
    assert "<p>nested score" in markup
    assert "nested" not in str(table[:2])


class TestGroups:
    GROUPS = np.arange(60) // 6

    @pytest.fixture
    def separated(self, monkeypatch):
        """Numbers of groups that a fit and its score share, of every split that is made."""
        from sklearn_featx.model_selection import _folds

        shared = []
        original = _folds.make_folds

        def spy(cv, estimator, y, groups):
            found = original(cv, estimator, y, groups)
            shared.extend(len(set(groups[a]) & set(groups[b])) for a, b in found)
            return found

        for module in (_layer_sweep, _nested):
            monkeypatch.setattr(module, "make_folds", spy)
        return shared

    @pytest.mark.parametrize("cv", [None, 2, 3, GroupKFold(4)])
    def test_no_fold_separates_them(self, small_net, digits, estimator, separated, cv):
        extractor = PretrainedFeatureExtractor(small_net)
        names = [f"patient {g}" for g in self.GROUPS]
        options = {"layers": ["stem"], "poolings": ["avg"], "cv": cv}
        table = layer_sweep(extractor, estimator, *digits, groups=names, **options)
        assert np.isfinite(table.nested_scores).all()
        # Outer folds, and for two of them three inner ones each.
        n_folds = {None: 5, 2: 2 + 2 * 3, 3: 3}.get(cv, 4)
        assert separated == [0] * n_folds

    def test_scores_are_those_of_group_folds(self, small_net, digits, estimator):
        extractor = PretrainedFeatureExtractor(small_net, layer="stem")
        options = {"layers": ["stem"], "poolings": ["avg"], "nested": False}
        (row,) = layer_sweep(extractor, estimator, *digits, groups=self.GROUPS, cv=3, **options)
        features = extractor.fit_transform(digits[0])
        scores = cross_val_score(
            estimator, features, digits[1], cv=StratifiedGroupKFold(3), groups=self.GROUPS
        )
        np.testing.assert_allclose([row.mean_score, row.std_score], [scores.mean(), scores.std()])
        with pytest.raises(ValueError, match="groups has 2 entries, and X has 60 images"):
            layer_sweep(extractor, estimator, *digits, groups=[1, 2], **options)

    def test_unreadable_images_leave_groups_aligned(
        self, small_net, digit_files, estimator, separated
    ):
        paths, y = digit_files
        broken, labels = [*paths[:3], b"no image", *paths[3:]], [*y[:3], 0, *y[3:]]
        groups = [*self.GROUPS[:3], 99, *self.GROUPS[3:]]
        extractor = PretrainedFeatureExtractor(small_net, on_error="nan")
        options = {"layers": ["stem"], "poolings": ["avg"], "cv": 3}
        with pytest.warns(exceptions.ImageWarning):
            table = layer_sweep(extractor, estimator, broken, labels, groups=groups, **options)
        good = layer_sweep(extractor, estimator, paths, y, groups=self.GROUPS, **options)
        assert list(table) == list(good)
        assert not any(separated)

    def test_one_group_in_training_is_not_separated(self, estimator):
        """Of two groups one is left for each inner choice: the first set is taken."""
        rng = np.random.default_rng(0)
        y, groups = np.arange(20) % 2, np.arange(20) // 10
        columns = [rng.normal(size=(20, 2)) for _ in range(2)]
        folds = list(GroupKFold(2).split(y, groups=groups))
        scores = np.array([cross_val_score(estimator, c, y, cv=folds) for c in columns])
        honest = _nested.nested_scores(estimator, columns, y, folds, scores, None, groups)
        np.testing.assert_array_equal(honest, scores[0])
