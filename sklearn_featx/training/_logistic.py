"""L2-regularized logistic regression on uncorrelated columns, by preconditioned L-BFGS.

The curvature of the loss in a coefficient is nearly the variance of its column times a factor of
its class. The preconditioner divides by its square root. With 150 classes and 1,280 columns, L-BFGS
needs about 80 evaluations of the loss, a third of them in float32. Scikit-learn's L-BFGS needs 280,
and its newton-cg as many products with the Hessian.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_softmax

from .._typing import AnyArray

MAX_ITERATIONS = 1_000
# Tolerances of the largest derivative of the average loss by a preconditioned coefficient. With
# this one, probabilities agree to 1e-7, as scikit-learn's check of sample weights requires.
TOLERANCE = 3e-9
# Sufficient for the comparison of penalties.
LOOSE_TOLERANCE = 1e-3
# Attainable in float32.
START_TOLERANCE = 1e-4
# Curvature of a class whose probability is 0 or 1 for every row.
_LEAST_CURVATURE = 1e-8


class Solution(NamedTuple):
    """A logistic regression.

    Parameters
    ----------
    coef : ndarray of shape (n_columns, n_outputs)
        Coefficients. `n_outputs` is 1 for two classes.
    intercept : ndarray of shape (n_outputs,)
        Intercepts.
    converged : bool
        False if the maximum number of steps was reached.
    """

    coef: AnyArray
    intercept: AnyArray
    converged: bool = False

    def log_likelihood(self, rows: AnyArray, codes: AnyArray) -> AnyArray:
        """Return the log-probability of each row's class."""
        return -_losses(rows @ self.coef + self.intercept, codes)[0]


class LogisticProblem(NamedTuple):
    """Training rows, codes and weights.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_columns)
        Rows with nearly uncorrelated columns of mean 0. Their dtype is the precision of the fit.
    codes : ndarray of shape (n_rows,)
        Class codes from 0; each class has a row.
    sample_weight : ndarray of shape (n_rows,)
        Weights.
    """

    rows: AnyArray
    codes: AnyArray
    sample_weight: AnyArray

    def solve(self, C: float, *, tolerance: float, start: Solution | None = None) -> Solution:
        """Minimize the loss, starting at a solution or at zero.

        Parameters
        ----------
        C : float
            Inverse penalty, as in `sklearn.linear_model.LogisticRegression`.
        tolerance : float
            Largest derivative of the average loss by a preconditioned coefficient.
        start : Solution, default=None
            A solution of a similar problem.
        """
        from scipy.optimize import minimize

        start = self._zero() if start is None else start
        objective = _Objective(self, C, start)
        found = minimize(
            objective,
            objective.pack(start),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_ITERATIONS, "gtol": tolerance, "ftol": 0.0, "maxls": 50},
        )
        coef, intercept = objective.unpack(found.x.astype(self.rows.dtype))
        # A line search that ends at the precision of the dtype has converged too.
        return Solution(coef, intercept, converged=found.nit < MAX_ITERATIONS)

    def _zero(self) -> Solution:
        n_classes = int(self.codes.max()) + 1
        n_outputs = 1 if n_classes == 2 else n_classes
        return Solution(np.zeros((self.rows.shape[1], n_outputs)), np.zeros(n_outputs))


class _Objective:
    """Average loss and gradient as functions of preconditioned coefficients."""

    def __init__(self, problem: LogisticProblem, C: float, start: Solution) -> None:
        self._rows, self._codes, sample_weight = problem
        dtype = self._rows.dtype
        total = float(sample_weight.sum())
        self._weights = (sample_weight / total).astype(dtype)
        self._penalty = 1.0 / (C * total)
        probabilities = _losses(self._rows @ start.coef + start.intercept, self._codes)[1]
        curvature = self._weights @ (probabilities * (1 - probabilities)) + _LEAST_CURVATURE
        variances = self._weights @ self._rows**2
        self._scale = (1 / np.sqrt(np.outer(variances, curvature) + self._penalty)).astype(dtype)
        self._intercept_scale = (1 / np.sqrt(curvature)).astype(dtype)

    def __call__(self, packed: AnyArray) -> tuple[float, AnyArray]:
        coef, intercept = self.unpack(packed.astype(self._rows.dtype))
        logits = self._rows @ coef
        logits += intercept
        losses, residuals = _losses(logits, self._codes)
        _subtract_targets(residuals, self._codes)
        residuals *= self._weights[:, None]
        gradient = self._rows.T @ residuals
        gradient += self._penalty * coef
        gradient *= self._scale
        by_intercept = residuals.sum(axis=0) * self._intercept_scale
        loss = np.dot(self._weights.astype(np.float64), losses)
        loss += 0.5 * self._penalty * np.square(coef, dtype=np.float64).sum()
        return float(loss), _packed(gradient, by_intercept)

    def pack(self, solution: Solution) -> AnyArray:
        return _packed(solution.coef / self._scale, solution.intercept / self._intercept_scale)

    def unpack(self, packed: AnyArray) -> tuple[AnyArray, AnyArray]:
        table = packed.reshape(-1, len(self._intercept_scale))
        return table[:-1] * self._scale, table[-1] * self._intercept_scale


def _packed(coef: AnyArray, intercept: AnyArray) -> AnyArray:
    return np.concatenate([coef.ravel(), intercept], dtype=np.float64)


def _losses(logits: AnyArray, codes: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return the loss of each row, and the probability of each output."""
    if logits.shape[1] == 1:
        signed = np.where(codes == 1, -logits[:, 0], logits[:, 0])
        return np.logaddexp(0, signed), expit(logits)
    logarithms: Any = log_softmax(logits, axis=1)
    losses = -logarithms[np.arange(len(codes)), codes]
    return losses, np.exp(logarithms, out=logarithms)


def _subtract_targets(probabilities: AnyArray, codes: AnyArray) -> None:
    if probabilities.shape[1] == 1:
        probabilities[:, 0] -= codes
    else:
        probabilities[np.arange(len(codes)), codes] -= 1
