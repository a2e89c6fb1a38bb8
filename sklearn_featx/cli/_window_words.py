"""The option ``--window`` of one or two words: a name, or a center and a width.

argparse has no such option: it would take a SOURCE behind it for a word of the window.
"""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def with_joined_window(words: Sequence[str]) -> list[str]:
    """Return the words of a command with ``--window=40,400`` in place of ``--window 40 400``.

    Parameters
    ----------
    words : sequence of str
        The words.

    Returns
    -------
    words : list of str
        Without a window that the next words could belong to.
    """
    joined = list(words)
    end = joined.index("--") if "--" in joined else len(joined)
    for i in reversed([i for i, word in enumerate(joined[:end]) if word == "--window"]):
        n_numbers = sum(1 for word in joined[i + 1 : i + 3] if _NUMBER.fullmatch(word))
        values = joined[i + 1 : i + (3 if n_numbers == 2 else 2)]
        if values and (n_numbers or not values[0].startswith("-")):
            joined[i : i + 1 + len(values)] = [f"--window={','.join(values)}"]
    return joined
