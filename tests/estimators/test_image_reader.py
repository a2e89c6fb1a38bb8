"""The reader: an ordinary nested parameter."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
)
from sklearn_featx.exceptions import SavedStateError

ESTIMATORS = [PretrainedFeatureExtractor, FineTuneClassifier, FineTuneRegressor]


@pytest.mark.parametrize("cls", ESTIMATORS)
class TestParameter:
    def test_nested_parameters(self, cls):
        reader = ImageReader(value_range=(0, 16))
        estimator = cls(reader=reader)
        assert estimator.get_params()["reader__value_range"] == (0, 16)
        assert "reader__value_range" not in estimator.get_params(deep=False)
        estimator.set_params(reader__image_shape=(8, 8))
        assert reader.image_shape == (8, 8)
        with pytest.raises(ValueError, match="Invalid parameter 'nothing' for estimator Image"):
            estimator.set_params(reader__nothing=1)

    def test_a_nested_parameter_makes_the_reader(self, cls):
        estimator = cls().set_params(reader__value_range=(0, 16))
        assert estimator.reader.value_range == (0, 16)
        assert cls().reader is None

    def test_clones_have_readers_of_their_own(self, cls):
        estimator = cls(reader=ImageReader(value_range=(0, 16)))
        copied = clone(estimator)
        assert copied.reader is not estimator.reader
        assert copied.get_params()["reader__value_range"] == (0, 16)

    def test_tags_and_repr(self, cls):
        estimator = cls(reader=ImageReader(image_shape=(8, 8)))
        assert estimator.__sklearn_tags__().input_tags.two_d_array
        assert not cls().__sklearn_tags__().input_tags.two_d_array
        assert "ImageReader(image_shape=(8, 8))" in repr(estimator)
        assert "ImageReader" in estimator._repr_html_()

    def test_a_saved_reader_is_checked(self, cls):
        estimator = cls(reader=ImageReader(value_range=(0, 16)))
        data = pickle.dumps(estimator)
        assert pickle.loads(data).reader.value_range == (0, 16)
        damaged = data.replace(b"K\x00K\x10", b"K\x00K\x11")
        assert damaged != data
        with pytest.raises(SavedStateError, match="ImageReader"):
            pickle.loads(damaged)


@pytest.mark.parametrize("reader", [None, ImageReader(image_shape=(8, 8))])
def test_a_search_over_the_reader(small_net, digits, reader):
    clf = FineTuneClassifier(small_net, unfreeze_depth=0, C=1.0, reader=reader)
    # Every level to the middle gray: all images are the same.
    grid = {"reader__value_range": [(0, 1), (-1e6, 1e6)]}
    images, labels = digits
    search = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(images / 255, labels)
    good, flat = search.cv_results_["mean_test_score"]
    assert good > flat
    assert search.best_estimator_.reader.value_range == (0, 1)
    assert clf.reader is reader


def test_the_range_is_part_of_a_rows_key(small_net, digits, tmp_path):
    X = digits[0][:2] / 255
    extractor = PretrainedFeatureExtractor(small_net, cache=str(tmp_path))
    rows = extractor.transform(X)
    other = extractor.set_params(reader__value_range=(0, 2)).transform(X)
    assert not np.array_equal(rows, other)
