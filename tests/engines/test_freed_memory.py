"""Freed memory: after one large block, the next feature maps get their pages without faults."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from sklearn_featx.engines._freed_memory import keep_freed_memory

def use():
    maps = [torch.ones(10 * 2**20, dtype=torch.uint8) for _ in range(3)]

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_memory()
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_are_kept():
    faults = {}
    for memory in ("returned", "kept"):
        command = [sys.executable, "-c", PROGRAM, memory]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        faults[memory] = int(found.stdout)
    assert faults["kept"] < faults["returned"] / 10
