"""Logs of other libraries: suppressed where this package reports what they say, or must not."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


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
