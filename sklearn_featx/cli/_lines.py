"""What commands write: lines on standard error, after the name of the program, and results.

Letters that a console or UTF-8 lacks are written as escapes.
"""

import re
import sys

_SURROGATES = re.compile("[\ud800-\udfff]")
# Python reads the byte 0xff of a file name as the character U+DCFF.
_BYTES = 0xDC00


def write_line(text: str) -> None:
    """Write one line to standard error.

    Parameters
    ----------
    text : str
        The text; its lines are joined by spaces.
    """
    lines = " ".join(filter(None, map(str.strip, text.splitlines())))
    print(f"sklearn-featx: {lines}", file=sys.stderr)


def print_text(text: str) -> None:
    """Print a text, with escapes in place of letters that the console lacks.

    Parameters
    ----------
    text : str
        The text.
    """
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def in_utf_8(text: str) -> str:
    r"""Return a text with escapes in place of the bytes and characters that are not Unicode.

    Parameters
    ----------
    text : str
        The name of a file, or a message that contains one.

    Returns
    -------
    text : str
        The same with ``\xff`` for a byte 0xff.
    """
    return _SURROGATES.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - _BYTES:02x}" if code >= _BYTES + 0x80 else f"\\u{code:04x}"
