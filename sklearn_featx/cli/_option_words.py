"""Messages of the package in the words of the command line: ``--frames all`` for ``frames='all'``.

The package names its parameters as Python writes them, and a user of the command has options. Other
text, such as a path in quotes that looks like a parameter, stays as it is.
"""

import ast
import json
import re
from functools import partial
from typing import Any

# Parameters of the extractor, of `ImageReader` and of `image_groups` that ``extract`` has.
_OPTIONS = {
    "backbone": "--backbone",
    "bag_pooling": "--bag-pooling",
    "batch_size": "--batch-size",
    "by": "--group-by",
    "cache": "--cache",
    "channels": "--channels",
    "device": "--device",
    "engine": "--engine",
    "frames": "--frames",
    "image_size": "--image-size",
    "layer": "--layer",
    "n_jobs": "--n-jobs",
    "on_error": "--on-error",
    "pooling": "--pooling",
    "precision": "--precision",
    "storage_options": "--storage-options",
    "value_range": "--value-range",
    "weights": "--weights",
    "window": "--window",
}
_NAME = "|".join(_OPTIONS)
_TEXT = r"'[^']*'|\"[^\"]*\""
_VALUE = (
    r"slice\([^()]*\)|"
    rf"\([^()]*\)|\[[^\[\]]*\]|\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}|{_TEXT}|\.\.\.|-?\w+(?:\.\d+)?"
)
_GIVEN = rf"(?:{_NAME})=(?:{_VALUE})"
_PARAMETER = re.compile(
    # scikit-learn's sentence about an invalid parameter
    rf"The '(?P<invalid>{_NAME})' parameter of \w+"
    rf"|(?:reader=)?ImageReader\((?P<reader>{_GIVEN}(?:, {_GIVEN})*)\)"
    rf"|(?<![\w./`])(?P<name>{_NAME})=(?P<value>{_VALUE})"
    rf"|`(?P<ticked>{_NAME})`"
    # Messages that begin with a parameter: "backbone: there is no 'resnet'"
    rf"|^(?P<leading>{_NAME})(?=: )"
    r"|(?P<unset>,? or None\b)"
    # Without a group: text in quotes, which stays. The apostrophe of "the file's" begins none.
    rf"|(?<!\w)(?:{_TEXT})"
)


# Advice for Python that has other words on the command line.
_ADVICE = {
    "Pass slices(path) in place of the path, or choose frames.": "Pass --frames all with "
    "--bag-pooling mean, or the number of a slice.",
    "or a slice": "or a range, such as 0:2",
    "Pass a function, or a regular": "Pass a regular",
    "and None (random)": "and none (random)",
    "For other weights pass the network as backbone.": "For other weights pass their file.",
}
# The options whose value "none" is Python's None.
_WITH_NONE = ("weights",)


def in_options(text: str) -> str:
    """Return a message with options of the command in place of parameters.

    Parameters
    ----------
    text : str
        A message of the package.

    Returns
    -------
    text : str
        The same for a user of the command line.
    """
    for advice, words in _ADVICE.items():
        text = text.replace(advice, words)
    return _PARAMETER.sub(partial(_replaced, text), text)


def _replaced(text: str, found: re.Match[str]) -> str:
    if (name := found["invalid"] or found["ticked"] or found["leading"]) is not None:
        return _OPTIONS[name]
    if found["unset"] is not None:
        return _without(text[: found.start()], found["unset"])
    if found["reader"] is not None:
        given = re.findall(rf"({_NAME})=({_VALUE})", found["reader"])
        # "frames=..." only says that the other parameter comes with it.
        named = [pair for pair in given if pair[1] != "..."] or given
        return " ".join(_option(*pair) for pair in named)
    return found[0] if found["name"] is None else _option(found["name"], found["value"])


def _without(before: str, words: str) -> str:
    """Return the words for "or None", which is of the parameter that was named last."""
    found = [found[0] for found in _PARAMETER.finditer(before) if found.lastgroup is not None]
    names = re.findall(_NAME, " ".join(found))
    if not names:
        return words
    if names[-1] in _WITH_NONE:
        return words.replace("None", "none")
    return f", or leave {_OPTIONS[names[-1]]} out"


def _option(name: str, value: str) -> str:
    option = _OPTIONS[name]
    if name == "cache" and value == "False":
        return f"leave {option} out"
    if bounds := re.fullmatch(r"slice\((.*)\)", value):
        start, stop, step = bounds[1].replace("None", "").split(", ")
        return f"{option} {start}:{stop}" + (f":{step}" if step else "")
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        # Words that stand for values, as in "(low, high)", or a value that was cut.
        return f"{option} {value.strip('()').replace(',', '')}"
    if not isinstance(parsed, list | tuple):
        return f"{option} {_word(parsed)}".rstrip()
    words = [_word(item) for item in parsed]
    if name == "layer":
        return " ".join(f"{option} {word}" for word in words)
    return f"{option} {(',' if name == 'channels' else ' ').join(words)}".rstrip()


def _word(value: Any) -> str:
    """Return a value as a user types it; nothing for an ellipsis."""
    if isinstance(value, dict):
        return f"'{json.dumps(value)}'"
    if value is ...:
        return ""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
