"""What it gives on Linux to let glibc keep the memory that PyTorch frees.

glibc returns large freed blocks to the system, and the next batch pays for new pages. Two variables
of the environment keep them. The engine runs decoded pixels in two processes, one of them with the
variables, in turn; shares are taken within a round::

    python benchmarks/kept_memory.py --checkpoints FOLDER
"""

import os
import subprocess
import sys

import numpy as np
import torch
from engine_ablation import PASS, REFERENCE, WAYS, Way, load, options
from summary import spread, write_summary

KEPT = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
BACKBONES = ("mobilenet_v2", "efficientnet_lite0")
CHILD = "--child"


def serve(backbone, precision, checkpoints, n_images):
    """Run the images once for each line of the input, and print the seconds."""
    made = load(backbone, checkpoints)
    way = Way(WAYS[REFERENCE][0], PASS, made, getattr(torch, precision))
    shape = (n_images, *made.preprocess.crop, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    # The first runs convert the network and find their memory.
    for _ in range(3):
        way.run(pixels)
    for _ in sys.stdin:
        print(way.run(pixels)[1], flush=True)


def start(variables, *arguments):
    command = [sys.executable, __file__, CHILD, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | variables, **pipes)


def ask(child):
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def measure(backbone, precision, settings):
    """Return the spread of the plain process's time over that of the other."""
    arguments = backbone, precision, settings.checkpoints or "", settings.images
    children = [start(variables, *arguments) for variables in ({}, KEPT)]
    rounds = [[ask(child) for child in children] for _ in range(settings.rounds)]
    for child in children:
        child.communicate()
    return spread([plain / kept for plain, kept in rounds])


def main(argv=None):
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == [CHILD]:
        backbone, precision, checkpoints, n_images = given[1:]
        serve(backbone, precision, checkpoints, int(n_images))
        return
    parser = options(__doc__, "kept_memory.json", BACKBONES, n_images=128, n_rounds=15)
    settings = parser.parse_args(given)
    rows = []
    for backbone in settings.backbones:
        for precision in settings.precisions:
            rows.append([backbone, precision, measure(backbone, precision, settings)])
            print(*rows[-1], flush=True)
    columns = ["backbone", "precision", "rate"]
    command = "python benchmarks/kept_memory.py"
    write_summary(settings.output, command, columns, rows, rounds=settings.rounds)


if __name__ == "__main__":
    main()
