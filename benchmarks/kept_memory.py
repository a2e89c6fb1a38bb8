"""What it gives on Linux that glibc keeps the memory which the engine frees.

The engine frees one large block first; see `sklearn_featx.engines._freed_memory`. It runs decoded
pixels in two processes, one of them without that block, in turn; shares are taken within a round::

    python benchmarks/kept_memory.py --checkpoints FOLDER
"""

import subprocess
import sys

import numpy as np
import torch
from engine_ablation import PASS, REFERENCE, WAYS, Way, load, options
from summary import spread, write_summary

from sklearn_featx.engines._freed_memory import keep_freed_memory

BACKBONES = ("mobilenet_v2", "efficientnet_lite0")
CHILD = "--child"
KEPT, RETURNED = "kept", "returned"


def serve(memory, backbone, precision, checkpoints, n_images):
    """Run the images once for each line of the input, and print the seconds."""
    if memory == KEPT:
        keep_freed_memory()
    made = load(backbone, checkpoints)
    way = Way(WAYS[REFERENCE][0], PASS, made, getattr(torch, precision))
    shape = (n_images, *made.preprocess.crop, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    # The first runs convert the network and find their memory.
    for _ in range(3):
        way.run(pixels)
    for _ in sys.stdin:
        print(way.run(pixels)[1], flush=True)


def start(*arguments):
    command = [sys.executable, __file__, CHILD, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes)


def ask(child):
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def measure(backbone, precision, settings):
    """Return the spread of the time with memory that is returned over that with kept memory."""
    arguments = backbone, precision, settings.checkpoints or "", settings.images
    children = [start(memory, *arguments) for memory in (RETURNED, KEPT)]
    rounds = [[ask(child) for child in children] for _ in range(settings.rounds)]
    for child in children:
        child.communicate()
    return spread([returned / kept for returned, kept in rounds])


def main(argv=None):
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == [CHILD]:
        *texts, n_images = given[1:]
        serve(*texts, int(n_images))
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
