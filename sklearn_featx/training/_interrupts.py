"""Ctrl-C, told from the `KeyboardInterrupt` with which skorch's callbacks end a training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """What was noticed.

    Attributes
    ----------
    any : bool
        Whether Ctrl-C raised `KeyboardInterrupt`, whoever has caught it.
    """

    any = False


@contextmanager
def noticed_interrupts() -> Iterator[Interrupts]:
    """Notice in the block whether Ctrl-C comes; what it does stays as it was.

    Only the main thread notices: Python raises `KeyboardInterrupt` in no other.
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
