"""L2-regularized logistic regression on principal components, from a start and to a tolerance.

The solution is that of scikit-learn's `LogisticRegression`, whose solvers take several times as
long for it: principal components differ in length by orders of magnitude. Here each coefficient is
measured in units of the second derivative of the loss, as it is if all classes are as probable in
every row as in the training set. The second derivative for uniform probabilities is a bound for all
others (Böhning 1992, "Multinomial logistic regression algorithm").
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from .._parallel import ForkSafeLock, thread_pools
from .._typing import AnyArray

# The loss is at least as convex as its penalty. But for the intercept, which has none, its gradient
# as a share of that of the penalty is therefore a bound for the distance to the solution, as a
# share of the coefficients' length: with any penalty, however far separable rows draw them.
TOLERANCE = 1e-8
# Near enough after many steps, as a weak penalty takes them: probabilities of rows like those of
# the training were within a few hundredths of those of the solution, and most within thousandths.
NEAR = 0.01
MANY_STEPS = 500
MAX_STEPS = 20_000
# To compare penalties: the share of the largest derivative at the start that may be left, and a
# derivative that float32 cannot lower.
ROUGH_SHARE = 0.01
_ROUNDING = 1e-6
# A derivative that float64 cannot lower, and one that it may leave where weights are huge.
_SMALLEST = 1e-13
_ROUNDED = 1e-8
# Products of numbers, in one pass over the rows, that are worth a thread.
PRODUCTS_OF_A_THREAD = 4_000_000

_Loss = Callable[[AnyArray, float], tuple[float, AnyArray]]


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
            False: the distance to the solution falls to `TOLERANCE` of the coefficients' length,
            or to `NEAR` after `MANY_STEPS`.
        start : Solution, default=None
            A solution for another penalty. None: all coefficients are 0.
        """
        with blas.limited() as n_threads, self._loss_in_threads(n_threads) as loss:
            return self._solve(loss, C, roughly, start)

    def _solve(self, loss: _Loss, C: float, roughly: bool, start: Solution | None) -> Solution:
        descent = _Descent(loss, 1 / (C * self._total), self._curvatures)
        first = np.zeros((self._n_outputs, len(self._curvatures)))
        if start is not None:
            first = np.column_stack([start.weight, start.bias]) * descent.units
        # `ftol` would end it where the loss, not the coefficients, no longer changes. With 150
        # classes, the usual memory of 10 steps costs nearly as much as the loss, and saves few.
        options = {"gtol": _SMALLEST, "ftol": 0.0, "maxcor": 5}
        # Where the weights of classes differ by orders of magnitude, the loss has kinks, where the
        # usual 20 evaluations find no step.
        options |= {"maxls": 60, "maxiter": MAX_STEPS, "maxfun": np.inf}
        if roughly:
            largest = float(np.abs(descent.loss(first.ravel())[1]).max())
            options["gtol"] = max(_ROUNDING, ROUGH_SHARE * largest)
        found = minimize(
            descent.loss,
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options=options,
            callback=None if roughly else descent.stop,
        )
        solved = found.x.reshape(first.shape) / descent.units
        # It ends by itself where rounding lets no step lower the loss.
        rounded = found.nit < MAX_STEPS and np.abs(found.jac).max() <= _ROUNDED
        converged = descent.distance <= NEAR or bool(rounded)
        return Solution(solved[:, :-1], solved[:, -1], int(found.nit), converged)

    @contextmanager
    def _loss_in_threads(self, n_threads: int) -> Iterator[_Loss]:
        """Context manager: the loss and its gradient, each thread with a part of the rows."""
        n_products = self._rows.size * self._targets.shape[1]
        n_parts = min(n_threads, 1 + n_products // PRODUCTS_OF_A_THREAD)
        edges = np.linspace(0, len(self._rows), n_parts + 1).astype(int).tolist()
        loss = functools.partial(
            self._loss, list(itertools.starmap(slice, itertools.pairwise(edges)))
        )
        if n_parts == 1:
            yield functools.partial(loss, map)
            return
        with ThreadPoolExecutor(n_parts, thread_name_prefix="featx-worker") as pool:
            yield functools.partial(loss, pool.map)

    def _loss(
        self,
        parts: list[slice],
        map_parts: Callable[..., Any],
        coefficients: AnyArray,
        penalty: float,
    ) -> tuple[float, AnyArray]:
        weight, bias = coefficients[:, :-1], coefficients[:, -1]
        of_part = functools.partial(self._loss_of_part, weight.astype(self._rows.dtype), bias)
        values, slopes, sums = zip(*map_parts(of_part, parts), strict=True)
        value = sum(values) + penalty / 2 * np.sum(weight**2)
        return value, np.column_stack([sum(slopes) + penalty * weight, sum(sums)])

    def _loss_of_part(
        self, weight: AnyArray, bias: AnyArray, part: slice
    ) -> tuple[float, AnyArray, AnyArray]:
        """Return the loss of some rows, and its gradient: by the weight and by the bias."""
        rows, targets, shares = self._rows[part], self._targets[part], self._shares[part]
        scores = _scores(rows, weight, bias)
        own = np.einsum("ij,ij->i", scores, targets)
        errors = np.exp(scores)
        sums = errors.sum(axis=1)
        value = float(shares @ (np.log(sums) - own))
        errors /= sums[:, np.newaxis]
        errors -= targets
        errors *= shares[:, np.newaxis]
        errors = errors[:, -self._n_outputs :]
        return value, errors.T @ rows, errors.sum(axis=0)


class _Descent:
    """A minimization over coefficients in their units, and the distance to the solution.

    Parameters
    ----------
    loss : callable
        From coefficients and penalty to the loss and its gradient.
    penalty : float
        The penalty.
    curvatures : ndarray of shape (n_coordinates + 1,)
        Second derivative of the loss by each coordinate, and by the intercept.
    """

    def __init__(
        self,
        loss: _Loss,
        penalty: float,
        curvatures: AnyArray,
    ) -> None:
        self._loss, self._penalty = loss, penalty
        self.units = np.sqrt(curvatures + penalty * np.append(np.ones(len(curvatures) - 1), 0.0))
        self.units[self.units == 0] = 1.0
        self.distance = np.inf
        self._n_steps = 0

    def loss(self, scaled: AnyArray) -> tuple[float, AnyArray]:
        """Return the loss and its gradient, and note the distance."""
        coefficients = scaled.reshape(-1, len(self.units)) / self.units
        value, gradient = self._loss(coefficients, self._penalty)
        # Rows that are all zero have only an intercept.
        length = np.linalg.norm(coefficients[:, :-1]) or np.linalg.norm(coefficients)
        slope = float(np.linalg.norm(gradient))
        self.distance = slope / self._penalty / float(length) if length else np.inf
        return value, (gradient / self.units).ravel()

    def stop(self, _: AnyArray) -> None:
        """After a step: stop at a solution, or near it after many steps."""
        self._n_steps += 1
        if self.distance <= (TOLERANCE if self._n_steps < MANY_STEPS else NEAR):
            raise StopIteration


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
    other takes the threads of BLAS longer than computing. Threads of our own compute parts of the
    rows instead. The number of threads is one of the process, so the last of several concurrent
    fits restores it.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._n_inside = 0
        self._limit: Any = None

    @contextmanager
    def limited(self) -> Iterator[int]:
        """Context manager: BLAS has one thread. Its value is the number of threads it had."""
        with self._lock:
            pools = thread_pools().select(user_api="blas").info()
            n_threads = max((pool["num_threads"] for pool in pools), default=1)
            if not self._n_inside:
                self._limit = thread_pools().limit(limits=1, user_api="blas")
            self._n_inside += 1
        try:
            yield n_threads
        finally:
            with self._lock:
                self._n_inside -= 1
                if not self._n_inside:
                    self._limit.restore_original_limits()


blas = _Blas()
