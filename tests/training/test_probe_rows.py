"""Coordinates of the probe's rows are the scaled features in another basis."""

import numpy as np
import pytest

from sklearn_featx.training import Scaling, _probe_rows, _scaling
from sklearn_featx.training._probe_rows import ProbeRows


@pytest.fixture(params=[(30, 80), (80, 30)], ids=["wide", "tall"])
def features(request):
    return np.random.default_rng(0).normal(size=request.param) * 3 + 1


@pytest.mark.parametrize("widths", [False, True], ids=["one layer", "two layers"])
@pytest.mark.parametrize("most", [1, 5_000], ids=["as they are", "decomposed"])
def test_a_folded_model_is_the_model_of_the_coordinates(features, widths, most, monkeypatch):
    monkeypatch.setattr(_probe_rows, "MOST_COORDINATES", most)
    monkeypatch.setattr(_scaling, "_VALUES_AT_ONCE", 500)  # several chunks of columns
    widths = [20, features.shape[1] - 20] if widths else None
    rows = ProbeRows(features, None, widths)
    scaled = Scaling.of(features, None, widths).apply(features)
    np.testing.assert_allclose(rows.coordinates @ rows.coordinates.T, scaled @ scaled.T, atol=1e-10)
    coef = np.random.default_rng(1).normal(size=(3, rows.coordinates.shape[1]))
    weight, bias = rows.fold(coef, np.arange(3.0))
    np.testing.assert_allclose(
        features @ weight.T + bias, rows.coordinates @ coef.T + np.arange(3), atol=1e-9
    )


def test_scaled_layers_have_the_same_total_variance():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 60)) * rng.uniform(0.01, 50, 60)
    features[:, 7] = 3.0  # a constant column, and a constant layer
    features[:, 50:] = 1.0
    widths = [20, 30, 10]
    scaling = Scaling.of(features, None, widths)
    variances = scaling.apply(features).var(axis=0)
    totals = [part.sum() for part in np.split(variances, np.cumsum(widths)[:-1])]
    np.testing.assert_allclose(totals, [20, 20, 0], atol=1e-9)
    # A column is scaled by half of its own variance and half of the layer's mean.
    own, layer = features[:, :20].var(axis=0), features[:, :20].var(axis=0).mean()
    expected = own / ((own + layer) / 2)
    np.testing.assert_allclose(variances[:20], expected * 20 / expected.sum())


def test_coordinates_are_uncorrelated_and_as_few_as_the_rank(features):
    features[:, 5] = features[:, 4]
    coordinates = ProbeRows(features, None).coordinates
    gram = coordinates.T @ coordinates
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9)
    assert coordinates.shape[1] == 29  # centered rows, or one column twice


def test_wide_features_are_never_copied_whole(monkeypatch):
    monkeypatch.setattr(_scaling, "_VALUES_AT_ONCE", 500)
    monkeypatch.setattr(Scaling, "apply", None)
    features = np.random.default_rng(0).normal(size=(20, 3_000)).astype(np.float32)
    rows = ProbeRows(features, None)
    rows.fold(rows.coordinates[:1], np.zeros(1))
    assert rows._features is features


def test_constant_features_have_one_coordinate_of_zeros():
    rows = ProbeRows(np.ones((4, 9)), None)
    np.testing.assert_array_equal(rows.coordinates, 0)
    assert rows.coordinates.shape == (4, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_row_that_counts_and_is_not_finite_is_named(features, bad):
    features[[2, 7, 12], 3] = bad
    weights = np.ones(len(features))
    weights[2] = 0
    with pytest.raises(ValueError, match=r"finite features: row 7 of .* NaN or infinity"):
        ProbeRows(features, weights)
