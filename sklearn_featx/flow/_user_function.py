"""Users' functions from image to image, whose digests are compared after each call.

A function may change a value that outlives the call: an array, a list, an attribute. Its digest
covers them, so a row is that of its key if the digest is the same after the call. A value that is
changed and restored within a call is no memory, unless another call runs at the same time.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from .._parallel import ForkSafeLock
from ..backbones import FunctionDigest, digest_function

# Held during the calls of functions that may change a value and restore it.
_alone = ForkSafeLock()


class UserFunction:
    """A user's function as preprocessing.

    Parameters
    ----------
    function : callable
        The function.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._changed = False

    def __repr__(self) -> str:
        return repr(self._function)

    @functools.cached_property
    def _named(self) -> FunctionDigest:
        return digest_function(self._function)

    @property
    def digest(self) -> str:
        """Digest of the function with all that it reads, before the first call."""
        return self._named.text

    @property
    def unnamed(self) -> str | None:
        """Why rows have no certain digest; None if they have one, as far as calls have shown."""
        if self._named.unnamed:
            return f"preprocessing is a function without a digest: {self._named.unnamed[0]}"
        if self._changed:
            return "preprocessing is a function that changes a value that outlives the call"
        return None

    def __call__(self, image: Any) -> Any:
        """Call the function; if it has a certain digest, note whether the call changed it."""
        named = vars(self).get("_named")
        if named is None or named.unnamed or self._changed:
            return self._function(image)
        with _alone if named.writes else contextlib.nullcontext():
            try:
                return self._function(image)
            finally:
                # By one assignment, since other threads assign it, too.
                if not _is(self._function, named):
                    self._changed = True


def _is(function: Callable[[Any], Any], named: FunctionDigest) -> bool:
    """Whether a function still has a digest."""
    try:
        return digest_function(function) == named
    except RuntimeError:
        # Another thread has changed the size of a dictionary or set.
        return False
