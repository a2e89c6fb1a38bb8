"""Maps on finer grids: sums are kept, and only maps that are not exact are smoothed."""

import numpy as np
import pytest
from scipy.ndimage import convolve1d
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_featx import HeatMapDisplay, ImageReader, PretrainedFeatureExtractor, heat_maps
from sklearn_featx.inspection._resample import interpolated, smoothed, spread_out

SHAPES = [(1, 1), (1, 5), (2, 2), (7, 4)]


def random_maps(shape):
    return np.random.default_rng(0).normal(size=(3, *shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_smoothed_maps_are_weighted_means_of_neighbors(shape):
    maps = random_maps(shape)
    expected = maps
    for axis in (1, 2):
        # "reflect" repeats the value at the edge.
        expected = convolve1d(expected, [0.25, 0.5, 0.25], axis, mode="reflect")
    np.testing.assert_allclose(smoothed(maps), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(7, 7), (30, 41)])
def test_sums_are_kept(shape, size):
    maps = random_maps(shape)
    sums = maps.sum((1, 2))
    for finer in (smoothed(maps), interpolated(maps, size), spread_out(maps, size)):
        np.testing.assert_allclose(finer.sum((1, 2)), sums, atol=1e-12)


@pytest.mark.parametrize("head", [LogisticRegression(), RandomForestClassifier(10, random_state=0)])
def test_only_maps_that_are_not_exact_are_smoothed(head, digits):
    X, y = digits[0], digits[1] == 1
    reader = ImageReader(image_shape=(8, 8), value_range=(0, 255))
    extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32, reader=reader)
    model = make_pipeline(extractor, head).fit(X, y)
    coarse, fine = (heat_maps(model, X[:4], size=size, n_samples=64) for size in (None, "image"))
    maps = coarse.maps if coarse.method == "exact" else smoothed(coarse.maps)
    np.testing.assert_allclose(fine.maps, interpolated(maps, (32, 32)), atol=1e-9)
    np.testing.assert_allclose(fine.scores, coarse.scores, atol=1e-12)
    drawn = HeatMapDisplay(coarse, [None] * 4)._drawn()
    np.testing.assert_allclose(drawn, interpolated(maps, (224, 224)), atol=1e-9)
