"""Heat maps and neighbors of models whose images are a column among others."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklearn_featx import (
    EmbeddingDisplay,
    HeatMapDisplay,
    heat_maps,
    nearest_images,
)


@pytest.fixture(scope="module")
def table(digit_files):
    """Paths, an age that says much of the class, and a site."""
    paths, y = (part[:30] for part in digit_files)
    rng = np.random.default_rng(0)
    columns = {"age": 30 + 20 * y + rng.normal(size=len(y)), "path": paths}
    columns["site"] = rng.choice(["A", "B", "C"], len(y))
    return pd.DataFrame(columns), y


def joined(image, **parameters):
    """A table whose image is between other columns."""
    steps = [
        ("numbers", StandardScaler(), ["age"]),
        ("image", image, ["path"]),
        ("sites", OneHotEncoder(), ["site"]),
    ]
    return ColumnTransformer(steps, **parameters)


KINDS = {
    "plain": lambda small: make_pipeline(joined(small()), LogisticRegression()),
    "steps around": lambda small: make_pipeline(
        joined(make_pipeline(small(normalize="layer"), PCA(5))), StandardScaler(),
        LogisticRegression(),
    ),
    "weights": lambda small: make_pipeline(
        joined(small(), transformer_weights={"image": 0.5, "sites": 2.0}), LogisticRegression()
    ),
    "all layers": lambda small: make_pipeline(
        joined(small(layer=["stem", "body"])), StandardScaler(), LogisticRegression()
    ),
    "search": lambda small: GridSearchCV(
        make_pipeline(joined(small()), LogisticRegression()),
        {"columntransformer__image__pooling": ["max", "avg"]}, cv=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_map_and_columns_sum_to_the_score(table, small, kind):
    X, y = table
    model = KINDS[kind](small).fit(X, y)
    scores = model.decision_function(X)
    found = heat_maps(model, X)
    assert found.method == "exact"
    top = scores if scores.ndim == 1 else scores.max(1)
    assert np.abs(found.scores - top).max() < 1e-5 * np.abs(scores).max()
    assert set(found.columns) == {"numbers", "sites"}
    # Another age changes its own part of the score, and no map.
    older = heat_maps(model, X.assign(age=X["age"] + 10), target=found.target)
    np.testing.assert_allclose(older.maps, found.maps, atol=1e-9)
    np.testing.assert_allclose(older.columns["sites"], found.columns["sites"], atol=1e-9)
    more = older.columns["numbers"] - found.columns["numbers"]
    np.testing.assert_allclose(more, older.intercept - found.intercept, rtol=1e-6)
    assert np.abs(more).min() > 0


def test_other_models_get_shapley_values(table, small):
    X, y = table
    model = make_pipeline(joined(small()), RandomForestClassifier(10, random_state=0)).fit(X, y)
    found = heat_maps(model, X[:4], target=1, n_samples=64)
    assert (found.method, found.columns) == ("shapley", {})
    np.testing.assert_allclose(found.scores, model.predict_proba(X[:4])[:, 1], atol=1e-7)


def test_output_as_dataframes_and_columns_by_number(table, small):
    X, y = table
    model = make_pipeline(joined(small()), LogisticRegression()).fit(X, y)
    numbered = ColumnTransformer([("n", StandardScaler(), [0]), ("i", small(), [1])])
    plain = make_pipeline(numbered, LogisticRegression()).fit(X.to_numpy(), y)
    image = small().set_output(transform="pandas")
    steps = [("numbers", StandardScaler(), ["age"]), ("image", image, ["path"])]
    frames = ColumnTransformer(steps).set_output(transform="pandas")
    frames = make_pipeline(frames, LogisticRegression()).fit(X, y)
    for one, given in ((plain, X.to_numpy()), (frames, X), (model, X[["site", "path", "age"]])):
        found = heat_maps(one, given)
        assert np.abs(found.scores - one.decision_function(given).max(1)).max() < 1e-4


def test_neighbors_and_maps(table, small):
    X, y = table
    model = make_pipeline(joined(small()), StandardScaler(), LogisticRegression()).fit(X, y)
    near = nearest_images(model, X[:5], X, y)
    assert near.indices[:, 0].tolist() == list(range(5))
    scores = near.values.sum(1) + near.intercept
    np.testing.assert_allclose(scores, model.decision_function(X[:5]).max(1), rtol=1e-5)
    assert EmbeddingDisplay.from_estimator(model, X, y).columns.paths == X["path"].tolist()
    display = HeatMapDisplay.from_estimator(model, X[:2])
    assert [len(ax.images) for ax in display.axes_.ravel()] == [2, 2]


def test_unreadable_images_that_an_imputer_replaces(table, small):
    """They have a score, and neither a map nor a place."""
    X, y = table
    image = make_pipeline(small(on_error="nan"), SimpleImputer())
    model = make_pipeline(joined(image), LogisticRegression()).fit(X, y)
    broken = X.assign(path=[X["path"][0], "nowhere.png", *X["path"][2:]])
    with pytest.warns(UserWarning, match="nowhere"):
        found = heat_maps(model, broken)
    assert np.flatnonzero(np.isnan(found.intercept)).tolist() == [1]
    assert np.flatnonzero(np.isnan(found.columns["numbers"])).tolist() == [1]
    with pytest.warns(UserWarning, match="nowhere"):
        display = EmbeddingDisplay.from_estimator(model, broken, y)
    assert display.rows.tolist() == [0, *range(2, len(X))]
    assert len(display.thumbnails) == len(display.points) == len(X) - 1


def test_ways_out(table, small):
    X, y = table
    model = make_pipeline(joined(small()), LogisticRegression()).fit(X, y)
    with pytest.raises(TypeError, match="takes a table with columns beside the images"):
        heat_maps(model, X["path"].tolist())
    two = FeatureUnion([("a", small()), ("b", small(layer="body"))])
    two = make_pipeline(two, LogisticRegression()).fit(X["path"].tolist(), y)
    with pytest.raises(TypeError, match="a FeatureUnion has an extractor"):
        heat_maps(two, X["path"].tolist())
