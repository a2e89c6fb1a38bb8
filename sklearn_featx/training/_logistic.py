"""L2-regularized logistic regression on principal components, from a start and to a tolerance.

The solution is that of scikit-learn's `LogisticRegression`, whose solvers take several times as
long for it: principal components differ in length by orders of magnitude. Here each coefficient is
measured in units of the second derivative of the loss, as it is if all classes are as probable in
every row as in the training set. The second derivative for uniform probabilities is a bound for all
others (Böhning 1992, "Multinomial logistic regression algorithm").
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from .._parallel import ForkSafeLock, thread_pools
from .._typing import AnyArray

MAX_ITERATIONS = 2_000
# Largest derivative of the average loss by a coefficient in its unit: with 1e-8, a row of weight 2
# and two equal rows differ by more than scikit-learn's checks allow.
TOLERANCE = 1e-9
# Near enough where a weak penalty takes more steps: probabilities of 150 classes differed by up to
# 4e-4 from those of the solution.
_NEAR = 1e-5
# To compare penalties: the share of the largest derivative at the start that may be left, and a
# derivative that float32 cannot lower. A tolerance like the one above would not do: with a weak
# penalty, separable rows have small derivatives far from the solution.
ROUGH_SHARE = 0.01
_ROUNDING = 1e-6


class Solution(NamedTuple):
    """Coefficients of a logistic regression.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, n_coordinates)
        One row for each class; for two classes, one row, for the second of them.
    bias : ndarray of shape (n_outputs,)
        Intercepts.
    n_steps : int
        Number of steps.
    converged : bool
        Whether the steps ended near the solution.
    """

    weight: AnyArray
    bias: AnyArray
    n_steps: int
    converged: bool

    def logarithms(self, rows: AnyArray) -> AnyArray:
        """Return the logarithms of the probabilities of all classes."""
        # Not the logarithm of a probability: one that is rounded to 0 has none.
        logarithms: AnyArray = log_softmax(_scores(rows, self.weight, self.bias), axis=1)
        return logarithms


class LogisticProblem:
    """Training rows of a logistic regression.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_coordinates)
        Centered coordinates; products are computed in their dtype.
    codes : ndarray of shape (n_rows,)
        Class codes, each from 0 to the number of classes present.
    sample_weight : ndarray of shape (n_rows,)
        Weight of each row.
    """

    def __init__(self, rows: AnyArray, codes: AnyArray, sample_weight: AnyArray) -> None:
        self._rows = rows
        self._total = float(sample_weight.sum())
        self._shares = (sample_weight / self._total).astype(rows.dtype)
        self._targets = np.equal.outer(codes, np.arange(codes.max() + 1)).astype(rows.dtype)
        self._n_outputs = 1 if self._targets.shape[1] == 2 else self._targets.shape[1]
        prior = self._shares @ self._targets
        spread = np.mean(prior * (1 - prior), dtype=np.float64)
        curvatures = np.append(self._shares @ np.square(rows), 1.0)
        self._curvatures = spread * curvatures.astype(np.float64)

    def solve(self, C: float, *, roughly: bool = False, start: Solution | None = None) -> Solution:
        """Minimize the loss of scikit-learn's `LogisticRegression` by L-BFGS.

        Parameters
        ----------
        C : float
            Inverse penalty.
        roughly : bool, default=False
            Whether the largest derivative need only fall to `ROUGH_SHARE` of that at the start.
        start : Solution, default=None
            A solution for another penalty. None: all coefficients are 0.
        """
        penalty = 1 / (C * self._total)
        units = np.sqrt(self._curvatures + penalty * np.append(np.ones(self._rows.shape[1]), 0.0))
        units[units == 0] = 1.0

        def loss(scaled: AnyArray) -> tuple[float, AnyArray]:
            value, gradient = self._loss(scaled.reshape(self._n_outputs, -1) / units, penalty)
            return value, (gradient / units).ravel()

        first = np.zeros((self._n_outputs, len(units)))
        if start is not None:
            first = np.column_stack([start.weight, start.bias]) * units
        tolerance = TOLERANCE
        if roughly:
            tolerance = max(_ROUNDING, ROUGH_SHARE * float(np.abs(loss(first)[1]).max()))
        # `ftol` would end it where the loss, not the coefficients, no longer changes. With 150
        # classes, the usual memory of 10 steps costs nearly as much as the loss, and saves few.
        options = {"gtol": tolerance, "ftol": 0.0, "maxcor": 5}
        options |= {"maxiter": MAX_ITERATIONS, "maxfun": np.inf}
        with _blas.limited():
            found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
        solved = found.x.reshape(first.shape) / units
        converged = bool(np.abs(found.jac).max() <= _NEAR)
        return Solution(solved[:, :-1], solved[:, -1], int(found.nit), converged)

    def _loss(self, coefficients: AnyArray, penalty: float) -> tuple[float, AnyArray]:
        """Return the average loss and its gradient."""
        weight, bias = coefficients[:, :-1], coefficients[:, -1]
        scores = _scores(self._rows, weight.astype(self._rows.dtype), bias)
        own = np.einsum("ij,ij->i", scores, self._targets)
        errors = np.exp(scores)
        sums = errors.sum(axis=1)
        value = float(self._shares @ (np.log(sums) - own)) + penalty / 2 * np.sum(weight**2)
        errors /= sums[:, np.newaxis]
        errors -= self._targets
        errors *= self._shares[:, np.newaxis]
        errors = errors[:, -self._n_outputs :]
        slopes = errors.T @ self._rows + penalty * weight
        return value, np.column_stack([slopes, errors.sum(axis=0)])


def _scores(rows: AnyArray, weight: AnyArray, bias: AnyArray) -> AnyArray:
    """Return the scores of all classes, of which the largest in a row is 0."""
    scores: AnyArray = rows @ weight.T
    scores += bias.astype(scores.dtype)
    if len(weight) == 1:
        scores = np.column_stack([np.zeros_like(scores), scores])
    scores -= scores.max(axis=1, keepdims=True)
    return scores


class _Blas:
    """The threads of BLAS.

    Each of a fit's thousands of products has as few columns as there are classes: waiting for each
    other takes its threads longer than computing. The number of threads is one of the process, so
    the last of several concurrent fits restores it.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._n_inside = 0
        self._limit: Any = None

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Context manager: BLAS has one thread."""
        with self._lock:
            if not self._n_inside:
                self._limit = thread_pools().limit(limits=1, user_api="blas")
            self._n_inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_inside -= 1
                if not self._n_inside:
                    self._limit.restore_original_limits()


_blas = _Blas()
