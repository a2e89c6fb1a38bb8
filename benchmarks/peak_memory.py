"""The peak resident memory of the calling process."""

from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_mib():
    """Return the peak in MiB; NaN on other systems than Linux.

    `resource.getrusage` would include the memory of the parent at the start of this process.
    """
    if not _STATUS.exists():
        return float("nan")
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10
