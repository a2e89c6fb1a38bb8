"""Checksums and versions in saved estimators, which are compared on loading.

A changed bit in a parameter, label or weight raises an error, in files of pickle, joblib,
cloudpickle and skops. The checksum covers builtins, arrays, the tensors of the user's modules, and
the names of classes and functions; of other objects, such as callbacks, only the type.

The versions of the libraries that compute the numbers are saved too. If they differ, loading warns
once.

Arrays are saved as dtype, shape and bytes, since the formats of NumPy and joblib contain padding,
in which a changed bit would not be noticed.
"""

import functools
import importlib.metadata
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import numpy as np

from .. import __version__
from .._digest import digest, digest_array
from ..exceptions import SavedStateError, SavedVersionWarning

_CHECKSUM = "_checksum"
_VERSIONS = "_versions"
# Packages that decode, resize and compute. Networks of other packages are saved whole, or as a
# digest.
_PACKAGES = ("torch", "torchvision", "pillow")
# Patch releases do not change the numbers; the part after "+" names a build.
_RELEASE = re.compile(r"\d+\.\d+")

_warned: set[str] = set()
_ARRAY = "sklearn_featx array"


class CheckedState:
    """Mixin of estimators whose saved state contains its checksum."""

    # Attributes that are neither copied nor saved.
    _not_saved: ClassVar[frozenset[str]] = frozenset()

    def __getstate__(self) -> dict[str, Any]:
        whole = cast("dict[str, Any]", super().__getstate__())
        state = {name: value for name, value in whole.items() if name not in self._not_saved}
        state[_VERSIONS] = versions()
        return {**_packed(state), _CHECKSUM: checksum(state)}

    def __setstate__(self, state: Any) -> None:
        checked = _unpacked(_checked(state)) if isinstance(state, dict) else {}
        if not checked or state.get(_CHECKSUM) != checksum(checked):
            raise SavedStateError(
                f"the saved {type(self).__name__} is damaged: its content does not match its "
                "checksum. Load another copy, or fit again."
            )
        _warn_of_versions(type(self).__name__, checked.pop(_VERSIONS, {}))
        # Parameters that a later version has added get their defaults.
        self.__dict__.update(_defaults(type(self)) | checked)


def checksum(state: Mapping[str, Any]) -> str:
    """Return the digest of the state of an estimator, which saving and loading do not change.

    Parameters
    ----------
    state : mapping of str to object
        The attributes of the estimator.
    """
    return digest(*_digests(state))


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    # The metadata, not `torch.__version__`: loading an estimator does not import torch.
    found = [(name, importlib.metadata.version(name)) for name in _PACKAGES]
    return (("sklearn_featx", __version__), *found)


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers of an estimator depend on."""
    return dict(_versions())


def _warn_of_versions(name: str, saved: Mapping[str, str]) -> None:
    """Warn if an estimator was saved with other releases; once for each difference."""
    here = versions()
    differing = [p for p in saved if p in here and _release(saved[p]) != _release(here[p])]
    if not differing:
        return
    then, now = (", ".join(f"{p} {v[p]}" for p in differing) for v in (saved, here))
    message = (
        f"a {name} saved with {then} is loaded with {now}: features and predictions may differ. "
        "Compare some predictions with the earlier ones, or install the earlier versions."
    )
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, SavedVersionWarning, stacklevel=3)


def _release(version: str) -> str:
    """Major and minor number of a version."""
    found = _RELEASE.match(version)
    return version if found is None else found.group()


def _checked(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != _CHECKSUM}


def _packed(value: Any) -> Any:
    """Replace the arrays of a state and of its dictionaries by (mark, dtype, shape, bytes)."""
    if type(value) is dict:
        return {key: _packed(item) for key, item in value.items()}
    if type(value) is np.ndarray and value.dtype.kind in "biufcSU":
        return (_ARRAY, value.dtype.str, value.shape, value.tobytes())
    return value


def _unpacked(value: Any) -> Any:
    """Undo `_packed`."""
    if type(value) is dict:
        return {key: _unpacked(item) for key, item in value.items()}
    if (
        type(value) is tuple
        and len(value) == 4
        and isinstance(value[0], str)
        and value[0] == _ARRAY
    ):
        _, dtype, shape, data = value
        try:
            return np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
        except (TypeError, ValueError):
            # Damaged: the checksum of the tuple will differ.
            return value
    return value


def _defaults(cls: type) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _digests(value: Any) -> Iterator[str]:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str | bytes):
        yield digest(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
        yield digest_array(value)
    elif isinstance(value, Mapping):
        yield digest("mapping", len(value))
        for key in sorted(value, key=repr):
            yield from _digests(key)
            yield from _digests(value[key])
    elif isinstance(value, list | tuple | np.ndarray):
        yield digest("sequence", len(value))
        for item in value:
            yield from _digests(item)
    elif hasattr(value, "__qualname__"):
        yield digest(_qualified_name(value))
    else:
        yield from _object_digests(value)


def _object_digests(value: Any) -> Iterator[str]:
    """Digests of the tensors of a module, the parameters of a reader, or the type of an object."""
    if hasattr(value, "state_dict"):
        yield from _module_digests(value)
        return
    yield digest(_qualified_name(type(value)))
    if isinstance(value, CheckedState):
        yield from _digests(vars(value))


def _module_digests(module: Any) -> Iterator[str]:
    """Digests of the tensors of a module."""
    yield digest(_qualified_name(type(module)))
    for name, tensor in module.state_dict().items():
        yield digest(name)
        if hasattr(tensor, "detach"):
            plain = tensor.detach().cpu()
            # NumPy has no bfloat16; float32 holds it exactly.
            plain = plain.float() if str(plain.dtype) == "torch.bfloat16" else plain
            yield digest_array(np.asarray(plain))


def _qualified_name(value: Any) -> str:
    """Name of a class or function, with its module."""
    return f"{value.__module__}.{value.__qualname__}"
