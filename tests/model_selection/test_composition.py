"""Inside other estimators, each of this package gets the part of X that scikit-learn gives it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.model_selection._composition import Composition, holds_ours

TABLE = pd.DataFrame(
    {"id": [1, 2], "photo": ["a.png", "b.png"], "price": [3.0, 4.0], "scan": ["c.png", "d.png"]}
)


@pytest.mark.parametrize(
    "columns",
    [
        "photo",
        ["photo"],
        [1, 3],
        [-1],
        slice(1, 2),
        slice("photo", "scan"),
        slice(None, "photo"),
        [False, True, False, True],
        lambda table: ["scan", "photo"],
    ],
)
def test_columns_are_those_of_a_column_transformer(columns):
    columns_of = ColumnTransformer([("images", PretrainedFeatureExtractor(), columns)])
    (part,) = Composition(None).parts(columns_of, TABLE)
    kept = ColumnTransformer([("images", FunctionTransformer(np.copy), columns)])
    if not isinstance(columns, str):
        np.testing.assert_array_equal(np.asarray(part.X), kept.fit_transform(TABLE))
    else:
        assert list(part.X) == list(TABLE[columns])


@pytest.mark.parametrize("used", ["id", ["id"], [0], slice(0, 1), [True, False, False, False], []])
def test_the_remainder_gets_the_other_columns(used):
    table = TABLE[["id", "photo", "scan"]] if isinstance(used, list) and used else TABLE
    used = used[: table.shape[1]] if isinstance(used, list) else used
    remainder = PretrainedFeatureExtractor()
    transformer = ColumnTransformer([("numbers", "drop", used)], remainder=remainder)
    (part,) = Composition(None).parts(transformer, table)
    kept = ColumnTransformer([("numbers", "drop", used)], remainder=FunctionTransformer(np.copy))
    np.testing.assert_array_equal(np.asarray(part.X), kept.fit_transform(table))


class Photos(BaseEstimator):
    """Has no `fit_transform`."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X["photo"]


class Sampler(BaseEstimator):
    """Changes the rows, as those of imbalanced-learn do."""

    def fit(self, X, y=None):
        return self

    def fit_resample(self, X, y):
        return X[:1], y[:1]


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (Photos(), ["a.png", "b.png"]),
        (FunctionTransformer(lambda X: X["scan"]), ["c.png", "d.png"]),
        (Sampler(), TABLE),
        ("passthrough", TABLE),
    ],
    ids=["fit and transform", "fit_transform", "sampler", "passthrough"],
)
def test_steps_before_the_images_are_applied_once(step, wanted):
    pipe = Pipeline(
        [("select", step), ("images", PretrainedFeatureExtractor()), ("clf", DummyClassifier())]
    )
    composition = Composition(None)
    (part,) = composition.parts(pipe, TABLE)
    assert np.array_equal(np.asarray(part.X), np.asarray(wanted))
    assert composition.parts(pipe, TABLE)[0].X is part.X


def test_estimators_among_the_candidates_count():
    extractor = PretrainedFeatureExtractor()
    pipe = make_pipeline("passthrough", DummyClassifier())
    assert not holds_ours(GridSearchCV(pipe, {"dummyclassifier__strategy": ["prior"]}))
    assert holds_ours(GridSearchCV(pipe, {"passthrough": ["passthrough", extractor]}))
    assert holds_ours(GridSearchCV(pipe, [{}, {"passthrough": [extractor]}]))
    assert not holds_ours(PretrainedFeatureExtractor)
