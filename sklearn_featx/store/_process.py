"""Who a process is, so that others can tell whether it still lives.

A process number alone is used again after its process died; together with the start time it is not.
The namespace keeps containers apart that share a folder but not their process numbers.
"""

import errno
import functools
import os
import re
from pathlib import Path

_TOKEN = re.compile(r"(?P<pid>\d+)\.(?P<start>\d+)\.(?P<namespace>\d+)")
_PROC = Path("/proc")


def process_token() -> str:
    """Name this process: ``"pid.start.namespace"``."""
    return _token(os.getpid())


def is_alive(token: str) -> bool:
    """Whether the process of a token may still live.

    Parameters
    ----------
    token : str
        What `process_token` returned in that process.

    Returns
    -------
    alive : bool
        False when it is certain that the process is gone; True where this cannot be known (another
        namespace, or a system without a way to ask).
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
    """Clock ticks from boot to the start of a process; None when it is gone, or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name is in parentheses and may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


@functools.lru_cache(maxsize=1)
def _namespace() -> int:
    try:
        return (_PROC / "self" / "ns" / "pid").stat().st_ino
    except OSError:
        return 0


def _answers(pid: int) -> bool:
    # On Windows, signal 0 is Ctrl+C: there nobody is ever declared dead, and leases decide.
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except OverflowError:
        return False  # no system has such a number: the token is damaged
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
