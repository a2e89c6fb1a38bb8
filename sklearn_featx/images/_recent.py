"""Recent results: the few newest values of an expensive function, bounded by their bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from .._parallel import ForkSafeLock

_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """A thread-safe memo of the newest values.

    Two threads that ask for one new value at once may both make it.

    Parameters
    ----------
    n_values : int
        Number of values that are kept.
    """

    def __init__(self, n_values: int) -> None:
        self._n_values = n_values
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()
        self._lock = ForkSafeLock()

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return the value of a key, made if it is not known."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._n_values:
                self._values.popitem(last=False)
        return value
