"""Lines on standard error: notes, warnings and errors, each after the name of the program."""

import sys


def write_line(text: str) -> None:
    """Write one line to standard error.

    Parameters
    ----------
    text : str
        The text; its lines are joined by spaces.
    """
    lines = " ".join(filter(None, map(str.strip, text.splitlines())))
    print(f"sklearn-featx: {lines}", file=sys.stderr)
