"""Wrong arguments are refused by name and value, before rows are computed or found in a cache."""

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_featx import (
    FineTuneClassifier,
    ImageReader,
    PretrainedFeatureExtractor,
    backbone_stages,
    heat_maps,
    label_issues,
    nearest_images,
)
from sklearn_featx.exceptions import InputError


@pytest.fixture(scope="module")
def model(digits):
    X, y = digits[0][:20], digits[1][:20]
    extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32)
    return make_pipeline(extractor, LogisticRegression(max_iter=1000)).fit(X, y), X, y


def test_no_threads_are_refused_where_all_rows_are_cached(small_net, digits):
    extractor = PretrainedFeatureExtractor(small_net, cache=True)
    extractor.fit_transform(digits[0][:4])
    with pytest.raises(ValueError, match=r"'n_jobs' parameter .* Got 0 instead"):
        extractor.set_params(n_jobs=0).transform(digits[0][:4])


def test_a_bag_pooling_is_named_once(digits):
    extractor = PretrainedFeatureExtractor(reader=ImageReader(bag_pooling="mean+max+mean"))
    with pytest.raises(InputError, match=r"bag_pooling='mean\+max\+mean': 'mean' occurs twice"):
        extractor.fit(digits[0][:2])


def test_the_label_of_a_class_weight_that_y_lacks_is_named(small_net, digits):
    classifier = FineTuneClassifier(small_net, unfreeze_depth=0, C=1.0, class_weight={9: 2.0})
    wanted = "class_weight={9: 2.0}: y has no label 9. Its labels are [0, 1]."
    with pytest.raises(ValueError, match=re.escape(wanted)):
        classifier.fit(digits[0][:10], np.arange(10) % 2)


@pytest.mark.parametrize("shape", [(3, -1, 4), (3, "a", 4)])
def test_the_shape_of_backbone_stages_is_named(small_net, shape):
    with pytest.raises(ValueError, match=re.escape(f"input_shape={shape}: expected whole")):
        backbone_stages(small_net, input_shape=shape)


@pytest.mark.parametrize("count", [0, -1, 1.5, "many"])
def test_counts_of_inspection_are_named(model, count):
    fitted, X, _ = model
    with pytest.raises(ValueError, match=f"n_samples={count!r}: expected"):
        heat_maps(fitted, X[:2], method="shapley", n_samples=count)
    with pytest.raises(ValueError, match=f"n_neighbors={count!r}: expected"):
        nearest_images(fitted, X[:2], X, n_neighbors=count)


def test_lengths_that_differ_are_named():
    pytest.importorskip("cleanlab")
    with pytest.raises(ValueError, match="probabilities has 3 entries, and y has 4"):
        label_issues([0, 1, 0, 1], np.full((3, 2), 0.5))
