"""Text for people: values and errors in one line, warnings at the user's line, logs, tables.

A parameter's value may be an image in base64 or a state dict, and an error of torch may have forty
lines. Every message of this package shortens them with these functions.
"""

import html
import logging
import re
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, ClassVar, Self, SupportsIndex, TypeVar, overload

Record = TypeVar("Record")

# Packages between the user's line and this package's code; contextlib calls decorated functions.
_BETWEEN = {"sklearn_featx", "sklearn", "joblib", "torch", "contextlib"}

# The maximum number of characters of a value, or of another library's error, in a message.
LONGEST = 100

# The warnings of the call that this thread is in; None outside of a call.
_given: ContextVar[set[tuple[type[Warning], str]] | None] = ContextVar("_given", default=None)

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
    """Return the first line of an error's message, or two if it announces the second.

    Of an `OSError`, without the file name.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line for line in _COLORS.sub("", text).splitlines() if line.strip()]
    announced = lines[0].rstrip().endswith(":") if lines else False
    return short(" ".join(lines[: 1 + announced]))


def short(text: str, longest: int = LONGEST) -> str:
    """Return a text in one line of at most `longest` characters; a longer text keeps both ends."""
    text = " ".join(text[: 50 * LONGEST].split()) + text[50 * LONGEST :][-LONGEST:]
    if len(text) <= longest:
        return text
    # The end of a text is informative: a file's suffix, the last words of an error.
    end = 2 * longest // 5
    return f"{text[: longest - end - 3]}...{text[-end:]}"


def listed(words: Iterable[str]) -> str:
    """Return a list in one line of at most 100 characters; a longer one keeps its last word."""
    all_words = [short(word) for word in words]
    text = ", ".join(all_words)
    if len(text) <= LONGEST:
        return text
    room = LONGEST - len(f"..., {all_words[-1]}")
    first: list[str] = []
    for word in all_words:
        room -= len(f"{word}, ")
        if room < 0:
            break
        first.append(word)
    return ", ".join([*first, "...", all_words[-1]]) if first else short(text)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 4 * LONGEST
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 10


@contextmanager
def one_call() -> Iterator[None]:
    """Context manager: a block in which `warn_once` repeats no warning; blocks may be nested."""
    if _given.get() is not None:
        yield
        return
    token = _given.set(set())
    try:
        yield
    finally:
        _given.reset(token)


def warn_once(message: str, category: type[Warning], *, stacklevel: int) -> None:
    """Warn, unless the same was said in this call.

    Parameters
    ----------
    message : str
        The message.
    category : type of Warning
        Its class.
    stacklevel : int
        As in `warnings.warn`, seen from the caller.
    """
    given = _given.get()
    if given is not None:
        if (category, message) in given:
            return
        given.add((category, message))
    warnings.warn(message, category, stacklevel=stacklevel + 1)


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


class Table(list[Record]):
    """A list of records that prints as a table, and is one in notebooks.

    Subclasses name their columns. A slice is a table again.
    """

    # Titles, and the text of a record in each column.
    columns: ClassVar[Mapping[str, Callable[[Any], str]]] = {}

    @property
    def notes(self) -> list[str]:
        """Lines below the table."""
        return []

    @overload
    def __getitem__(self, index: SupportsIndex) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return type(self)(found) if isinstance(index, slice) else found

    def __str__(self) -> str:
        return "\n".join([*_aligned([list(self.columns), *self._cells()]), *self.notes])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(title)}</th>" for title in self.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
            for cells in self._cells()
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _cells(self) -> list[list[str]]:
        return [[text(record) for text in self.columns.values()] for record in self]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows of text: the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]


@contextmanager
def silenced(*names: str) -> Iterator[None]:
    """Suppress the logs of some loggers: of a failure that becomes an error, or of no concern.

    Parameters
    ----------
    *names : str
        The loggers'.
    """
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(_refuse)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_refuse)


def _refuse(_: logging.LogRecord) -> bool:
    return False
