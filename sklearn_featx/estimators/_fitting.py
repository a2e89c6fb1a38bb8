"""What every method that fits does around its own work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from .._messages import one_call
from .._sklearn_compat import _fit_context

Method = TypeVar("Method", bound=Callable[..., Any])


def fitting(method: Method) -> Method:
    """Decorate a method that fits: parameters are validated, and a failure changes nothing.

    A warning about a parameter is given once, though several parts of the method meet its cause.
    """

    @wraps(method)
    def fitted(self: Any, *args: Any, **kwargs: Any) -> Any:
        with one_call(), _as_before_if_it_fails(self):
            return method(self, *args, **kwargs)

    return cast("Method", _fit_context(prefer_skip_nested_validation=True)(fitted))


@contextmanager
def _as_before_if_it_fails(estimator: Any) -> Iterator[None]:
    """Context manager that restores the learned attributes after an error or an interrupt.

    If Ctrl-C ends a training, the estimator keeps what it has learned.
    """
    before = {name: value for name, value in vars(estimator).items() if _is_learned(name)}
    try:
        yield
    except BaseException as error:
        is_trained = vars(estimator).get("trained_state_") is not before.get("trained_state_")
        if isinstance(error, Exception) or not is_trained:
            for name in [name for name in vars(estimator) if _is_learned(name)]:
                del vars(estimator)[name]
            vars(estimator).update(before)
        raise


def _is_learned(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_")
