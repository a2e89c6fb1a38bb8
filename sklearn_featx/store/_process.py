"""Process tokens: the identity of a process, by which others test whether it is alive.

The system reuses a process number after its process ended, but not together with the start time.
The namespace distinguishes containers that share a folder but not their process numbers.
"""

import errno
import functools
import os
import re
from pathlib import Path

_TOKEN = re.compile(r"(?P<pid>\d+)\.(?P<start>\d+)\.(?P<namespace>\d+)")
_PROC = Path("/proc")


def process_token() -> str:
    """Return the token of this process, ``"pid.start.namespace"``."""
    return _token(os.getpid())


def is_alive(token: str) -> bool:
    """Whether the process of a token may be alive.

    Parameters
    ----------
    token : str
        The result of `process_token` in that process.

    Returns
    -------
    alive : bool
        False if the process has certainly ended; True if this is unknown (another namespace, or a
        system that offers no test).
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        return False
    if int(match["namespace"]) != _namespace():
        return True
    pid = int(match["pid"])
    if (_PROC / "self" / "stat").exists():
        return _start_time(pid) == int(match["start"])
    return _answers(pid)


@functools.lru_cache(maxsize=4)
def _token(pid: int) -> str:
    return f"{pid}.{_start_time(pid) or 0}.{_namespace()}"


def _start_time(pid: int) -> int | None:
    """Return the clock ticks from boot to a process's start; None if it ended or is a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name is in parentheses and may contain spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


@functools.lru_cache(maxsize=1)
def _namespace() -> int:
    try:
        return (_PROC / "self" / "ns" / "pid").stat().st_ino
    except OSError:
        return 0


def _answers(pid: int) -> bool:
    # On Windows, signal 0 is Ctrl+C: every process counts as alive, and claims end by their lease.
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except OverflowError:
        return False  # no system has such a number: the token is damaged
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
