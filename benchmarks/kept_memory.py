"""What it gives on Linux to let glibc keep the memory that PyTorch frees.

glibc returns large freed blocks to the system, and the next batch pays for new pages. Two variables
of the environment keep them. Two processes extract the features of images in memory in turn, one of
them with the variables; shares are taken within a round::

    python benchmarks/kept_memory.py --checkpoints FOLDER
"""

import os
import subprocess
import sys
import time

import numpy as np
from engine_ablation import options, weights_of
from summary import command_line, spread, write_summary

from sklearn_featx import PretrainedFeatureExtractor

KEPT = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
BACKBONES = ("mobilenet_v2", "efficientnet_lite0")
CHILD = "--child"


def serve(backbone, precision, checkpoints, n_images):
    """Run the images once for each line of the input, and print the seconds."""
    extractor = PretrainedFeatureExtractor(
        backbone, weights=weights_of(backbone, checkpoints), precision=precision, cache=False
    )
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, 224, 224, 3), np.uint8)
    # The first runs convert the network and find their memory.
    for _ in range(3):
        extractor.fit_transform(pixels)
    print(0.0, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        extractor.transform(pixels)
        print(time.perf_counter() - start, flush=True)


def begin(variables, *arguments):
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
    children = [begin(variables, *arguments) for variables in ({}, KEPT)]
    for child in children:
        # Its first line: it is ready, and waits.
        child.stdout.readline()
    rounds = [[ask(child) for child in children] for _ in range(settings.rounds)]
    for child in children:
        child.communicate()
    return spread([plain / kept for plain, kept in rounds])


def main(argv=None):
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == [CHILD]:
        *texts, n_images = given[1:]
        serve(*texts, int(n_images))
        return
    parser = options(__doc__, "kept_memory.json", BACKBONES, n_images=256, n_rounds=15)
    settings = parser.parse_args(given)
    rows = []
    for backbone in settings.backbones:
        for precision in settings.precisions:
            rows.append([backbone, precision, measure(backbone, precision, settings)])
            print(*rows[-1], flush=True)
    columns = ["backbone", "precision", "rate"]
    command = command_line(__file__, parser, settings)
    write_summary(settings.output, command, columns, rows, rounds=settings.rounds)


if __name__ == "__main__":
    main()
