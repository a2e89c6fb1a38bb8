"""scikit-learn's L2-regularized logistic regression, from a start and to a tolerance."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from .._parallel import ForkSafeLock, thread_pools
from .._typing import AnyArray

MAX_ITERATIONS = 1_000
# Largest derivative of the average loss. L-BFGS alone ends before it: scikit-learn's stops
# where the loss no longer changes in float64 (github.com/scikit-learn/scikit-learn/issues/18074).
TOLERANCE = 1e-9
# Where L-BFGS ends: enough to compare penalties, and near enough for Newton's method to converge in
# a few steps. L-BFGS alone may reach `MAX_ITERATIONS` before it comes a hundred times
# nearer.
LOOSE_TOLERANCE = 1e-3


def logistic_regression(tolerance: float, C: float = 1.0) -> Any:
    """Return an unfitted model that starts at its last solution."""
    # Here, since it takes as long to import as the rest of the package.
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, tol=tolerance, max_iter=MAX_ITERATIONS, warm_start=True)


def step_from(model: Any, rows: AnyArray, codes: AnyArray, sample_weight: AnyArray) -> bool:
    """Fit a model from its last solution, and return whether it converged."""
    with _blas.limited(), warnings.catch_warnings():
        # The caller knows what to advise.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Newton's method cannot improve the loss in float64: it is at the solution.
        warnings.filterwarnings("ignore", "(?i).*line search")
        model.fit(rows, codes, sample_weight=sample_weight)
    return bool(model.n_iter_.max() < model.max_iter)


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
