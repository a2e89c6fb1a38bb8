"""The line of the user's code that a warning is about."""

import sys
from types import FrameType

# Packages between the user's line and this package's code; contextlib calls decorated functions.
_BETWEEN = {"sklearn_featx", "sklearn", "joblib", "torch", "contextlib"}


def user_level() -> int:
    """Return the `stacklevel` with which the calling function warns at the user's line.

    TODO(Python 3.12): `warnings.warn` has `skip_file_prefixes`.
    """
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _package(frame) in _BETWEEN:
        frame = frame.f_back
        level += 1
    return level


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]
