"""Arguments that must not be empty: an unset variable of the shell is an empty text.

Python reads an empty path as the working directory.
"""

import argparse
from pathlib import Path


def some_text(text: str) -> str:
    """Return a text of the command line; raise a usage error if it is empty."""
    if not text:
        raise argparse.ArgumentTypeError(
            "'' is empty, as an unset variable of the shell is. Pass a path"
        )
    return text


def some_path(text: str) -> Path:
    """Return a path of the command line; raise a usage error if it is empty."""
    return Path(some_text(text))
