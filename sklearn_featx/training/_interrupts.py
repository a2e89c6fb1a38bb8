"""Interrupts: Ctrl-C, distinguished from a `KeyboardInterrupt` of a skorch callback."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """The record of interrupts.

    Attributes
    ----------
    any : bool
        Whether Ctrl-C has raised `KeyboardInterrupt`, even if it was caught.
    """

    any = False


@contextmanager
def noticed_interrupts() -> Iterator[Interrupts]:
    """Context manager that records Ctrl-C without changing its effect.

    Only the main thread records it, since Python raises `KeyboardInterrupt` in no other.
    """
    noticed = Interrupts()
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        yield noticed
        return

    def notice(number: int, frame: FrameType | None) -> None:
        try:
            usual(number, frame)
        except KeyboardInterrupt:
            noticed.any = True
            raise

    signal.signal(signal.SIGINT, notice)
    try:
        yield noticed
    finally:
        signal.signal(signal.SIGINT, usual)
