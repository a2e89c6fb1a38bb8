"""Wrong arguments are refused by name and value, before rows are computed or found in a cache."""

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_featx import (
    EmbeddingDisplay,
    FineTuneClassifier,
    HeatMapDisplay,
    ImageReader,
    MistakesDisplay,
    PretrainedFeatureExtractor,
    backbone_stages,
    heat_maps,
    label_issues,
    nearest_images,
    precompute,
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_mistakes": -1}, "n_mistakes=-1: expected a whole number of at least 0"),
        ({"thumbnail_size": 0}, "thumbnail_size=0: expected a whole number of at least 1"),
        ({"reader": "x"}, "reader='x': expected an ImageReader"),
    ],
)
def test_arguments_of_mistakes_are_named(arguments, message):
    X, y = np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]
    with pytest.raises(ValueError, match=message):
        MistakesDisplay.from_predictions(X, y, y, **arguments)


def test_arguments_of_other_displays_are_named(model):
    fitted, X, _ = model
    with pytest.raises(ValueError, match="thumbnail_size=0: expected a whole number"):
        EmbeddingDisplay.from_estimator(fitted[0], X, thumbnail_size=0)
    display = HeatMapDisplay(heat_maps(fitted, X[:1]), [None])
    for opacity in (3, "x"):
        with pytest.raises(ValueError, match=f"opacity={opacity!r}: expected a number from 0 to 1"):
            display.plot(opacity=opacity)


@pytest.mark.parametrize("verbose", [-1, "x"])
def test_the_progress_of_precompute_is_named(small_net, verbose):
    extractor = PretrainedFeatureExtractor(small_net)
    with pytest.raises(ValueError, match=f"verbose={verbose!r}: expected 0, or 1"):
        precompute(extractor, np.zeros((2, 8, 8), np.uint8), verbose=verbose)


def test_lengths_that_differ_are_named():
    pytest.importorskip("cleanlab")
    with pytest.raises(ValueError, match="probabilities has 3 entries, and y has 4"):
        label_issues([0, 1, 0, 1], np.full((3, 2), 0.5))
