"""The largest resident memory of the process that asks."""

from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_mib():
    """Return it in MiB; not a number where there is no Linux.

    `resource.getrusage` would count what the parent had in memory when it started this process.
    """
    if not _STATUS.exists():
        return float("nan")
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10
