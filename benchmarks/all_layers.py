"""What all layers cost in one pass, beside the last layer alone.

Decoded pixels are in memory, one worker per core. Every round runs every variant once, and ratios
are computed within a round. "pooled at the end" is the engine without one mechanism: it keeps the
maps of all layers until the pass has ended, and pools them then::

    python benchmarks/all_layers.py --checkpoints FOLDER
"""

import numpy as np
import torch
from engine_ablation import PASS, Way, load, options
from summary import command_line, spread, write_summary

from sklearn_featx.engines._fused_layers import fuse_layers
from sklearn_featx.engines._rewrite import rewrite_for_inference
from sklearn_featx.engines._sections import Sectioned
from sklearn_featx.engines._trunk import Whole, optimize

BACKBONES = ("mobilenet_v2", "efficientnet_lite0")
LAST = "last layer"


def whole(backbone, dtype, poolings, *, last=False):
    """Return the computation of layers with one or several poolings, before it is optimized."""
    positions = [len(backbone.stages)] if last else range(1, len(backbone.stages) + 1)
    taps = [position for position in positions for _ in poolings]
    normalize, network = backbone.tapped(taps)
    pools = [backbone.pool(pooling) for _ in positions for pooling in poolings]
    return Whole(normalize, rewrite_for_inference(network, dtype), pools, dtype)


def pooled_at_the_end(made, dtype):
    fuse_layers(made, dtype)
    made.network = Sectioned(made.network)
    return made


def engine(made, _):
    return optimize(made, torch.device("cpu"))


WAYS = {
    LAST: (engine, ("avg",), True),
    "all layers": (engine, ("avg",), False),
    "all layers, 3 x 3 cells": (engine, ("grid3",), False),
    "all layers, pooled at the end": (pooled_at_the_end, ("avg",), False),
}


def measure(backbone, dtype, n_images, n_rounds):
    """Return the spread of each way's time over that of the last layer."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n_images, *backbone.preprocess.crop, 3), np.uint8)

    def way(optimized, poolings, last):
        def make(backbone, dtype):
            return optimized(whole(backbone, dtype, poolings, last=last), dtype)

        return Way(make, PASS, backbone, dtype)

    ways = {name: way(*settings) for name, settings in WAYS.items()}
    for found in ways.values():
        found.run(pixels)
    rounds = [{name: way.run(pixels)[1] for name, way in ways.items()} for _ in range(n_rounds)]
    return {name: spread([seconds[name] / seconds[LAST] for seconds in rounds]) for name in ways}


def main(argv=None):
    parser = options(__doc__, "all_layers.json", BACKBONES, n_images=128, n_rounds=15)
    settings = parser.parse_args(argv)
    rows = []
    for name in settings.backbones:
        backbone = load(name, settings.checkpoints)
        for precision in settings.precisions:
            dtype = getattr(torch, precision)
            found = measure(backbone, dtype, settings.images, settings.rounds)
            rows += [[name, precision, way, share] for way, share in found.items()]
            print(*rows[-len(found) :], sep="\n", flush=True)
    columns = ["backbone", "precision", "way", "share"]
    command = command_line(__file__, parser, settings)
    write_summary(settings.output, command, columns, rows, rounds=settings.rounds)


if __name__ == "__main__":
    main()
