"""Messages: values and other libraries' errors in one short line.

A user's value may be a picture in base64 or the weights of a network, and an error of torch has
forty lines. What goes into a message of this package goes through here first.
"""

import re
import reprlib
from typing import Any

# Characters of a value, or of another library's error, in a message.
LONGEST = 100

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


def shown(value: Any) -> str:
    """Return the `repr` of a value in one line of at most 100 characters, cut in the middle."""
    try:
        return short(_short.repr(value))
    except Exception:
        # The `repr` of a user's object may fail; a message about the object must not.
        return f"a {type(value).__name__}"


def cause(error: BaseException) -> str:
    """Name an error of another library by its type and the first line of what it says."""
    words, name = said(error), type(error).__name__
    return f"{name}: {words}" if words else name


def said(error: BaseException) -> str:
    """Return the first line of what an error says; of the system's, without the file's name."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line for line in _COLORS.sub("", text).splitlines() if line.strip()]
    return short(lines[0]) if lines else ""


def short(text: str) -> str:
    """Return a text in one line of at most 100 characters: both ends of a longer one."""
    text = " ".join(text[: 50 * LONGEST].split()) + text[50 * LONGEST :][-LONGEST:]
    if len(text) <= LONGEST:
        return text
    # The end says more than the middle: the suffix of a file, the last words of an error.
    return f"{text[: LONGEST - 43]}...{text[-40:]}"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 4 * LONGEST
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 10
