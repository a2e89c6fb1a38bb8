"""Candidates of searches: those that scikit-learn's own search fits."""

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    LeaveOneGroupOut,
    ParameterGrid,
    RandomizedSearchCV,
)

from sklearn_featx.model_selection._candidates import candidates

X, y = load_iris(return_X_y=True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cv": 3},
        {"n_candidates": 4, "min_resources": 20},
        {"min_resources": 40},
        {"min_resources": "smallest", "cv": 4},
    ],
)
@pytest.mark.parametrize(
    ("model", "name", "scoring"),
    [
        (LogisticRegression(tol=0.1), "C", "accuracy"),
        (Ridge(), "alpha", "neg_mean_squared_error"),
    ],
    ids=["classes", "numbers"],
)
def test_halving_starts_with_as_many(model, name, scoring, settings):
    drawn = {name: loguniform(0.1, 1)}
    search = HalvingRandomSearchCV(model, drawn, random_state=0, scoring=scoring, **settings)
    search.fit(X, y)
    assert len(candidates(search, y, len(X))) == search.n_candidates_[0]


def test_halving_counts_the_folds_of_groups():
    settings = {"random_state": 0, "cv": LeaveOneGroupOut(), "scoring": "neg_mean_squared_error"}
    groups = np.arange(len(X)) % 4
    search = HalvingRandomSearchCV(Ridge(), {"alpha": loguniform(0.1, 1)}, **settings)
    search.fit(X, y, groups=groups)
    assert len(candidates(search, y, len(X), groups)) == search.n_candidates_[0]


def test_a_halving_grid_starts_with_all():
    grid = {"strategy": ["prior", "uniform"], "random_state": [0, 1, 2]}
    found = candidates(HalvingGridSearchCV(DummyClassifier(), grid), y, len(X))
    assert [c.get_params() for c in found] == [
        DummyClassifier(**parameters).get_params() for parameters in ParameterGrid(grid)
    ]


def test_drawn_candidates_are_those_of_the_search_whose_generator_stays():
    generator = np.random.RandomState(3)
    before = generator.get_state()[1].copy()
    search = RandomizedSearchCV(
        DummyRegressor(strategy="quantile"), {"quantile": loguniform(0.1, 1)}, n_iter=4,
        random_state=generator,
    )  # fmt: skip
    found = [c.quantile for c in candidates(search, y, len(X))]
    assert np.array_equal(generator.get_state()[1], before)
    search.fit(X, y)
    assert found == [p["quantile"] for p in search.cv_results_["params"]]
