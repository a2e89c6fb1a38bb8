"""Text for messages: values and other libraries' errors, cut to one short line.

A parameter's value may be an image in base64 or a state dict, and an error of torch may have forty
lines. Every message of this package shortens them with these functions.
"""

import re
import reprlib
from typing import Any

# The maximum number of characters of a value, or of another library's error, in a message.
LONGEST = 100

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


def shown(value: Any) -> str:
    """Return the `repr` of a value in one line of at most 100 characters, cut in the middle."""
    try:
        return short(_short.repr(value))
    except Exception:
        # The `repr` of a user's object may fail; the message about it must not.
        return f"a {type(value).__name__}"


def cause(error: BaseException) -> str:
    """Return the type of another library's error and the first line of its message."""
    words, name = said(error), type(error).__name__
    return f"{name}: {words}" if words else name


def said(error: BaseException) -> str:
    """Return the first line of an error's message; of an `OSError`, without the file name."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line for line in _COLORS.sub("", text).splitlines() if line.strip()]
    return short(lines[0]) if lines else ""


def short(text: str) -> str:
    """Return a text in one line of at most 100 characters; a longer text keeps both ends."""
    text = " ".join(text[: 50 * LONGEST].split()) + text[50 * LONGEST :][-LONGEST:]
    if len(text) <= LONGEST:
        return text
    # The end of a text is informative: a file's suffix, the last words of an error.
    return f"{text[: LONGEST - 43]}...{text[-40:]}"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 4 * LONGEST
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 10
