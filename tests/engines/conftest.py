"""What tests of the engines share."""

from collections.abc import Callable

import pytest

from sklearn_featx.engines import _trials


@pytest.fixture
def n_trial_runs() -> Callable[[int], int]:
    """How many batches run before one of so many ways is chosen."""
    runs_of_each = _trials._ROUNDS * (_trials._UNTIMED_RUNS + _trials._TIMED_RUNS)
    return lambda n_ways: _trials._SETTLING_RUNS + n_ways - 1 + n_ways * runs_of_each
