"""The logistic regression is scikit-learn's, in fewer steps."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression

from sklearn_featx.training import _logistic
from sklearn_featx.training._logistic import LogisticProblem, Solution


def draw(n_classes, n_rows=90, n_coordinates=12):
    """Centered coordinates whose lengths differ by four orders of magnitude, codes, weights."""
    rng = np.random.default_rng(n_classes)
    codes = np.arange(n_rows) % n_classes
    rows = rng.normal(size=(n_rows, n_coordinates))
    rows[:, :n_classes] += 2 * np.eye(n_classes)[codes]
    rows = (rows - rows.mean(axis=0)) * np.logspace(1, -3, n_coordinates)
    return rows, codes, rng.uniform(0.5, 3, n_rows)


def reference(problem, C):
    """Return the coefficients of scikit-learn's most exact solver, intercepts last."""
    model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000, solver="newton-cg")
    model.fit(problem[0], problem[1], sample_weight=problem[2])
    return np.column_stack([model.coef_, model.intercept_])


def coefficients(solution):
    return np.column_stack([solution.weight, solution.bias])


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0])
def test_coefficients_are_those_of_scikit_learn(n_classes, C):
    problem = draw(n_classes)
    solution = LogisticProblem(*problem).solve(C)
    expected = reference(problem, C)
    assert solution.converged
    np.testing.assert_allclose(
        coefficients(solution), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize("C", [10.0, 100.0])
def test_a_weak_penalty_of_separable_rows_ends_near_the_solution(C):
    """All derivatives are small there, far from the solution."""
    rows, codes, weights = draw(3, 90, 80)
    rows = rows * np.logspace(1, -1, 80)
    solution = LogisticProblem(rows, codes, weights).solve(C)
    assert solution.converged
    assert solution.n_steps >= _logistic.MANY_STEPS
    expected = reference((rows, codes, weights), C)[:, :-1]
    distance = np.linalg.norm(solution.weight - expected)
    assert distance <= _logistic.NEAR * np.linalg.norm(expected)


@pytest.mark.parametrize("C", [1e-4, 1.0, 1e4])
def test_rows_of_zeros_have_the_logarithms_of_the_classes_shares(C):
    _, codes, weights = draw(3)
    solution = LogisticProblem(np.zeros((90, 2)), codes, weights).solve(C)
    assert solution.converged
    shares = np.bincount(codes, weights) / weights.sum()
    np.testing.assert_allclose(np.exp(solution.logarithms(np.zeros((1, 2))))[0], shares, rtol=1e-6)


@pytest.mark.parametrize(("C", "weight"), [(1.0, 1e8), (1e8, 1.0)])
def test_huge_weights_and_hardly_any_penalty_are_solved_to_rounding(C, weight):
    rows = np.random.default_rng(0).normal(size=(150, 15))
    codes = np.random.default_rng(1).integers(0, 2, 150)
    weights = np.full(150, weight)
    solution = LogisticProblem(rows - rows.mean(axis=0), codes, weights).solve(C)
    assert solution.converged
    expected = reference((rows - rows.mean(axis=0), codes, np.ones(150)), 1e8)
    np.testing.assert_allclose(coefficients(solution), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("length", [1.0, 1e-4])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_weights_of_classes_that_differ_by_orders_of_magnitude(n_classes, length, C):
    # As in scikit-learn's check of class weights.
    for seed in range(10):
        X, codes = make_blobs(centers=n_classes, cluster_std=20, random_state=seed)
        rows = (X - X.mean(axis=0)) * length
        weights = np.where(codes == 0, 1000.0, 1e-4)
        solution = LogisticProblem(rows, codes, weights).solve(C)
        assert solution.converged
        assert (solution.logarithms(rows).argmax(axis=1) == 0).mean() > 0.87


def test_a_solution_that_is_not_near_is_not_called_so(monkeypatch):
    monkeypatch.setattr(_logistic, "MAX_STEPS", 20)
    assert not LogisticProblem(*draw(3)).solve(1000.0).converged


def test_a_start_at_another_penalty_leads_to_the_same_solution():
    problem = LogisticProblem(*draw(3))
    near = problem.solve(0.1, start=problem.solve(1.0))
    np.testing.assert_allclose(
        coefficients(near), coefficients(problem.solve(0.1)), rtol=1e-3, atol=1e-6
    )


def test_a_start_at_the_solution_takes_no_step():
    problem = LogisticProblem(*draw(3))
    solution = problem.solve(1.0)
    assert problem.solve(1.0, start=solution).n_steps <= 1
    assert problem.solve(1.0, roughly=True, start=solution).n_steps == 0


def test_a_rough_solution_is_one_from_a_start_at_another_penalty_too():
    """Of separable rows, all derivatives are small at the start, and the solution is far."""
    rows, codes, weights = draw(3)
    rows = rows + 20 * np.eye(3, rows.shape[1])[codes]
    problem = LogisticProblem(rows, codes, weights)
    start = problem.solve(0.01)
    exact = problem.solve(1.0)
    rough = problem.solve(1.0, roughly=True, start=start)
    far = np.abs(start.logarithms(rows) - exact.logarithms(rows)).max()
    assert np.abs(rough.logarithms(rows) - exact.logarithms(rows)).max() < 0.2 * far


def test_fewer_steps_than_scikit_learn_takes_to_the_same_loss():
    rows, codes, weights = draw(7, 700, 200)
    solution = LogisticProblem(rows, codes, weights).solve(0.1, roughly=True)
    theirs = LogisticRegression(C=0.1, tol=1e-2, max_iter=1_000)
    theirs.fit(rows, codes, sample_weight=weights)

    def loss(logarithms, weight):
        return -weights @ logarithms[np.arange(700), codes] + (weight**2).sum() / (2 * 0.1)

    assert solution.n_steps < theirs.n_iter_[0] / 2
    ours = loss(solution.logarithms(rows), solution.weight)
    assert ours <= loss(theirs.predict_log_proba(rows), theirs.coef_) * (1 + 1e-4)


def test_float32_rows_give_nearly_the_same():
    rows, codes, weights = draw(3)
    exact = LogisticProblem(rows, codes, weights).solve(1.0)
    rough = LogisticProblem(rows.astype(np.float32), codes, weights).solve(1.0)
    np.testing.assert_allclose(
        np.exp(rough.logarithms(rows)), np.exp(exact.logarithms(rows)), atol=2e-3
    )


@pytest.mark.parametrize("n_classes", [2, 3])
def test_separable_rows_with_hardly_a_penalty(n_classes):
    rows = np.repeat(1e3 * np.eye(n_classes), 4, axis=0)
    codes = np.repeat(np.arange(n_classes), 4)
    solution = LogisticProblem(rows - rows.mean(axis=0), codes, np.ones(len(rows))).solve(1e12)
    assert np.isfinite(coefficients(solution)).all()
    assert (solution.logarithms(rows - rows.mean(axis=0)).argmax(axis=1) == codes).all()


def test_constant_coordinates_have_no_weight():
    rows, codes, weights = draw(3)
    solution = LogisticProblem(np.column_stack([rows, np.zeros(90)]), codes, weights).solve(1.0)
    np.testing.assert_array_equal(solution.weight[:, -1], 0)
    assert np.isfinite(solution.weight).all()


def test_probabilities_too_small_for_a_number_have_logarithms():
    rows = np.eye(3) * 1e5
    solution = Solution(np.eye(3), np.arange(3.0), 1, True)
    expected = log_softmax(rows + np.arange(3.0), axis=1)
    np.testing.assert_allclose(solution.logarithms(rows), expected)
    two = Solution(np.ones((1, 3)), np.zeros(1), 1, True).logarithms(rows[:1])
    np.testing.assert_allclose(two, [[-1e5, 0.0]])
