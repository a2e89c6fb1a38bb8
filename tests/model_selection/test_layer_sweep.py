"""The layer sweep: one pass for all layers, the same numbers as one layer at a time."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from sklearn_featx import PretrainedFeatureExtractor, exceptions, layer_sweep


@pytest.fixture
def estimator():
    return LogisticRegression(max_iter=2000)


def test_every_stage_and_pooling_in_one_pass(small_net, digits, estimator, trunk_rows):
    extractor = PretrainedFeatureExtractor(small_net, cache=False)
    table = layer_sweep(extractor, estimator, *digits, poolings=("avg", "max", "gem"), cv=3)
    assert sum(trunk_rows) == len(digits[0])
    # The last stage ends in a vector, which every pooling leaves as it is.
    assert len(table) == 2 * 3 + 1
    assert {row.layer for row in table} == {"stem", "body", "top"}
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


def test_unknown_layer(small_net, digits, estimator):
    with pytest.raises(exceptions.UnknownLayerError, match="steam"):
        layer_sweep(PretrainedFeatureExtractor(small_net), estimator, *digits, layers=["steam"])
