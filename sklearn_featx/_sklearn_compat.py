"""Private names of scikit-learn: the only module that imports them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    StrOptions,
    make_constraint,
)
from sklearn.utils.validation import (
    _check_feature_names,
    _check_feature_names_in,
    _check_n_features,
    _check_sample_weight,
    _check_y,
)

from ._messages import shown

if TYPE_CHECKING:
    Method = TypeVar("Method", bound=Callable[..., Any])

    def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Method], Method]:
        """Hand on the type of `fit`: scikit-learn's decorator has none."""
else:
    from sklearn.base import _fit_context

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: scikit-learn has callbacks from version 1.9 on."""


__all__ = [
    "CallbackSupportMixin",
    "CheckedParameters",
    "HasMethods",
    "Interval",
    "StrOptions",
    "_check_feature_names",
    "_check_feature_names_in",
    "_check_n_features",
    "_check_sample_weight",
    "_check_y",
    "_fit_context",
    "_safe_indexing",
    "invalid_parameter",
]

_PARAMETER = re.compile(r"The '(\w+)' parameter of ")
_STATE_DICT = " Pass a file of it, or load it into a network and pass that as backbone."


class CheckedParameters:
    """Mixin that shortens the error message of an invalid parameter to one line."""

    def _validate_params(self) -> None:
        try:
            super()._validate_params()  # type: ignore[misc] # of BaseEstimator, which comes after
        except InvalidParameterError as error:
            raise InvalidParameterError(self._shortened(str(error))) from None

    def _shortened(self, message: str) -> str:
        named = _PARAMETER.match(message)
        if named is None:
            return message
        value = getattr(self, named[1])
        hint = (
            _STATE_DICT
            if isinstance(value, Mapping) and named[1] in ("weights", "backbone")
            else ""
        )
        # Classes are named as users import them.
        expected = re.sub(r"'sklearn_featx[.\w]*\.(\w+)'", r"'\1'", message.partition(" Got ")[0])
        return f"{expected} Got {type(value).__name__ if hint else shown(value)} instead.{hint}"


def invalid_parameter(
    name: str, value: Any, constraints: Mapping[str, Sequence[Any]]
) -> str | None:
    """Return a description of the valid values, if a value breaks the constraints of its name."""
    allowed = [make_constraint(constraint) for constraint in constraints.get(name, ())]
    if not allowed or any(constraint.is_satisfied_by(value) for constraint in allowed):
        return None
    return " or ".join(str(constraint) for constraint in allowed if not constraint.hidden)
