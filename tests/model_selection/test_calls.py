"""Estimators of ours are found wherever they are, and their passes are those of the run."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor, plan_search, precompute
from sklearn_featx.store import FeatureStore


@pytest.fixture(scope="module")
def table(digit_files):
    """Paths, the same paths in other rows, and a number; labels of two classes."""
    paths, labels = digit_files
    paths, labels = np.array(paths)[labels < 2][:24], labels[labels < 2][:24]
    columns = {"front": paths, "back": paths[::-1], "weight": np.arange(24.0)}
    return pd.DataFrame(columns), labels


def extractor(net, cache, **parameters):
    return PretrainedFeatureExtractor(net, cache=cache, image_size=16, **parameters)


def tuner(net, cache, **parameters):
    settings = {"max_epochs": 1, "random_state": 0, "C": 1.0, "image_size": 16}
    return FineTuneClassifier(net, cache=cache, **settings | parameters)


def on_columns(net, cache):
    return ColumnTransformer(
        [
            ("front", extractor(net, cache), "front"),
            ("back", extractor(net, cache, pooling="max"), ["back"]),
            ("number", StandardScaler(), ["weight"]),
        ]
    )


def classifier(net, cache, **parameters):
    return make_pipeline(extractor(net, cache, **parameters), RidgeClassifier())


def front(X):
    return X["front"]


# With the column "front" as X where the estimator takes images alone.
ON_TABLES = {
    "columns": lambda net, cache: GridSearchCV(
        make_pipeline(on_columns(net, cache), RidgeClassifier()),
        {"ridgeclassifier__alpha": [0.1, 1.0]}, cv=2,
    ),
    "remainder and a selector": lambda net, cache: make_pipeline(
        ColumnTransformer(
            [("number", StandardScaler(), make_column_selector(dtype_include="number")),
             ("back", "drop", slice("back", "back"))],
            remainder=extractor(net, cache),
        ),
        RidgeClassifier(),
    ),
    "after another transformer": lambda net, cache: GridSearchCV(
        Pipeline([("front", FunctionTransformer(front)), ("rest", classifier(net, cache))]),
        {"rest__ridgeclassifier__alpha": [0.1, 1.0]}, cv=2,
    ),
}  # fmt: skip
ON_IMAGES = {
    "union": lambda net, cache: make_pipeline(
        FeatureUnion([("a", extractor(net, cache)), ("b", extractor(net, cache, layer="stem"))]),
        RidgeClassifier(),
    ),
    "stacking": lambda net, cache: StackingClassifier(
        [("a", classifier(net, cache)), ("b", tuner(net, cache))], cv=3
    ),
    "voting": lambda net, cache: GridSearchCV(
        VotingClassifier([("a", classifier(net, cache)), ("b", tuner(net, cache))]),
        {"b__lr": [1e-3, 1e-2]}, cv=2,
    ),
    "targets": lambda net, cache: TransformedTargetRegressor(
        make_pipeline(extractor(net, cache), Ridge()), transformer=StandardScaler()
    ),
    "calibrated": lambda net, cache: CalibratedClassifierCV(tuner(net, cache), cv=2),
    "calibrated in a search": lambda net, cache: GridSearchCV(
        CalibratedClassifierCV(classifier(net, cache), cv=2), {"method": ["sigmoid"]}, cv=2
    ),
    "calibrated, one model": lambda net, cache: CalibratedClassifierCV(
        tuner(net, cache), cv=2, ensemble=False
    ),
    "threshold": lambda net, cache: TunedThresholdClassifierCV(tuner(net, cache), cv=2),
    "a search in a search": lambda net, cache: GridSearchCV(
        GridSearchCV(tuner(net, cache), {"lr": [1e-3, 1e-2]}, cv=2),
        {"estimator__unfreeze_depth": [0, 1]}, cv=2,
    ),
    "a search in a pipeline": lambda net, cache: Pipeline(
        [("search", RandomizedSearchCV(tuner(net, cache), {"lr": [1e-3, 1e-2]}, n_iter=2, cv=2))]
    ),
    "several estimators": lambda net, cache: GridSearchCV(
        Pipeline([("clf", LogisticRegression())]),
        [{"clf": [tuner(net, cache)], "clf__unfreeze_depth": [0, 1]},
         {"clf": [classifier(net, cache)]}], cv=KFold(2),
    ),
    "frozen": lambda net, cache: make_pipeline(
        FrozenEstimator(extractor(net, cache)), RidgeClassifier()
    ),
    "a scale of layers": lambda net, cache: make_pipeline(
        extractor(net, cache, layer="all", normalize="layer"), RidgeClassifier()
    ),
}  # fmt: skip


# Columns as others name them: numbers of an array of objects, a mask, polars.
OTHER_TABLES = {
    "numbers": (lambda X: X.to_numpy(dtype=object), 0),
    "mask": (lambda X: X, [True, False, False]),
    "names": (lambda X: X, np.array(["front"])),
    "slice of names": (lambda X: X, slice("front", "front")),
    "polars": (lambda X: selectable(pytest.importorskip("polars").from_pandas(X)), "front"),
}


def selectable(table):
    """Skip the test if this scikit-learn selects no columns of this polars by name."""
    try:
        ColumnTransformer([("first", "passthrough", ["front"])]).fit(table)
    except AttributeError as error:
        pytest.skip(f"scikit-learn {sklearn.__version__} with this polars: {error}")
    return table


@pytest.mark.parametrize("name", OTHER_TABLES)
def test_columns_are_named_in_many_ways(name, small_net, table, trunk_rows):
    make, columns = OTHER_TABLES[name]
    X, y = make(table[0]), table[1]
    pipe = make_pipeline(
        ColumnTransformer([("images", extractor(small_net, False), columns)]), RidgeClassifier()
    )
    planned = plan_search(pipe, X, y, timed=False)
    pipe.fit(X, y)
    assert planned.n_passes == sum(trunk_rows) == len(X)


@pytest.mark.parametrize("columns", ["frnt", ["frnt"], 7])
def test_a_column_that_is_not_there(columns, small_net, table):
    transformer = ColumnTransformer([("images", extractor(small_net, False), columns)])
    with pytest.raises(ValueError, match="X has no columns"):
        plan_search(transformer, *table)


def test_an_estimator_of_another_package_around_ours(small_net, table, tmp_path, trunk_rows):
    """Unknown kinds count as one fit: with a cache that is enough."""
    X, y = given("foreign", table)
    outer = MultiOutputClassifier(tuner(small_net, FeatureStore(tmp_path / "store")))
    planned = plan_search(outer, X, np.column_stack([y, 1 - y]), timed=False)
    outer.fit(X, np.column_stack([y, 1 - y]))
    assert planned.n_passes == sum(trunk_rows) == len(X)


def given(name, table):
    X, y = table
    return (X, y) if name in ON_TABLES else (list(X["front"]), y)


@pytest.mark.parametrize("name", [*ON_TABLES, *ON_IMAGES])
@pytest.mark.parametrize("cached", [True, False])
def test_passes_are_those_of_the_run(name, cached, small_net, table, tmp_path, trunk_rows):
    X, y = given(name, table)
    make = (ON_TABLES | ON_IMAGES)[name]
    search = make(small_net, FeatureStore(tmp_path / "store") if cached else False)
    planned = plan_search(search, X, y, timed=False)
    assert trunk_rows == []
    search.fit(X, y)
    assert sum(trunk_rows) == planned.n_passes > 0
    if not cached:
        assert planned.n_passes == planned.n_passes_without_cache


@pytest.mark.parametrize("name", [*ON_TABLES, *ON_IMAGES])
def test_precomputed_rows_are_all_of_them(name, small_net, table, tmp_path, trunk_rows):
    X, y = given(name, table)
    search = (ON_TABLES | ON_IMAGES)[name](small_net, FeatureStore(tmp_path / "store"))
    planned = plan_search(search, X, y, timed=False)
    precompute(search, X)
    assert sum(trunk_rows) == planned.n_passes_after_precompute
    trunk_rows.clear()
    assert plan_search(search, X, y, timed=False).n_passes == 0
    search.fit(X, y)
    assert trunk_rows == []


def test_halving(small_net, table, tmp_path, trunk_rows):
    """Few images at first: with a cache, their number does not matter."""
    X, y = given("halving", table)
    search = HalvingGridSearchCV(
        tuner(small_net, FeatureStore(tmp_path / "store")), {"lr": [1e-3, 1e-2, 1e-1]}, cv=2,
        min_resources=8, random_state=0,
    )  # fmt: skip
    assert plan_search(search, X, y, timed=False).n_passes == len(X)
    search.fit(X, y)
    assert sum(trunk_rows) == len(X)


def test_images_of_two_columns(small_net, table):
    planned = plan_search(on_columns(small_net, False), *table, timed=False)
    assert (planned.n_images, planned.n_distinct) == (48, 24)
    # A row and its mirror image have the same pictures in other columns.
    assert len(np.unique(planned.groups)) == 24
