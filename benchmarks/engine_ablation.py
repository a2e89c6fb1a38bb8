"""The gain of each mechanism of the CPU engine, alone and together.

A mechanism stays in the package while this table shows a gain of 10 percent or more on common
networks. Decoded pixels are in memory; each variant runs them with one worker per core, in batches
of the engine's size. Every round runs every variant once, and ratios are computed within a round::

    python benchmarks/engine_ablation.py --checkpoints FOLDER

FOLDER has torchvision's weights. A backbone without a weights file has random weights, which need
the same time.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from summary import RESULTS, command_line, spread, write_summary

from sklearn_featx.backbones import get_backbone
from sklearn_featx.engines._fused_layers import fuse_layers
from sklearn_featx.engines._openvino import OpenVinoEngine
from sklearn_featx.engines._rewrite import rewrite_for_inference
from sklearn_featx.engines._sections import Sectioned
from sklearn_featx.engines._threads import limit_this_thread
from sklearn_featx.engines._trunk import Whole

# Images per round, so that each way takes about a second.
BACKBONES = {"mobilenet_v2": 128, "efficientnet_lite0": 128, "resnet50": 64, "vit_b_16": 32}
PRECISIONS = ("float32", "bfloat16")
# Rows in one pass of the engine, and of a network that is not cut in sections.
PASS, ROWS = 16, 4
REFERENCE = "fused layers and sections"


def weights_of(name, checkpoints):
    """Return the published weights of a backbone; None for random ones, if they are not found."""
    if name == "efficientnet_lite0":
        return "DEFAULT"
    known = torchvision.models.get_model_weights(name)
    files = [Path(checkpoints or "") / Path(weights.url).name for weights in known]
    found = [str(file) for file in files if checkpoints and file.exists()]
    return found[0] if found else None


def load(name, checkpoints):
    return get_backbone(name, weights_of(name, checkpoints))


def folded(backbone, dtype):
    """Return normalization, folded network and pooling."""
    normalize, network = backbone.tapped((len(backbone.stages),))
    rewritten = rewrite_for_inference(network, dtype)
    return Whole(normalize, rewritten, [backbone.pool("avg")], dtype)


def fused(backbone, dtype):
    whole = folded(backbone, dtype)
    fuse_layers(whole, dtype)
    return whole


def in_sections(make, backbone, dtype):
    whole = make(backbone, dtype)
    whole.network = Sectioned(whole.network)
    return whole


def openvino(backbone, dtype):
    normalize, network = backbone.tapped((len(backbone.stages),))
    engine = OpenVinoEngine(network, [backbone.pool("avg")], normalize=normalize, dtype=dtype)
    engine.workers(os.cpu_count(), os.cpu_count())
    return engine.run


# What makes a way from a backbone and a type, and how many rows it gets at a time.
WAYS = {
    "folded": (folded, ROWS),
    "fused layers": (fused, ROWS),
    "sections": (partial(in_sections, folded), PASS),
    REFERENCE: (partial(in_sections, fused), PASS),
    "OpenVINO": (openvino, PASS),
}


class Way:
    """A network in its own threads, one a core.

    Parameters
    ----------
    make : callable
        Makes it, of a backbone and a type.
    n_rows : int
        Rows that it gets at a time.
    """

    def __init__(self, make, n_rows, backbone, dtype):
        self.n_rows = n_rows
        self._network = make(backbone, dtype)
        self._threads = ThreadPoolExecutor(
            os.cpu_count(), initializer=limit_this_thread, initargs=(1,)
        )

    def run(self, pixels):
        """Return the features of all images, and the seconds that they took."""
        parts = [pixels[i : i + PASS] for i in range(0, len(pixels), PASS)]
        start = time.perf_counter()
        found = list(self._threads.map(self._pass, parts))
        return np.concatenate(found), time.perf_counter() - start

    def _pass(self, batch):
        if not isinstance(self._network, torch.nn.Module):
            return self._network(batch)[0]
        with torch.inference_mode():
            rows = torch.split(torch.from_numpy(batch), self.n_rows)
            return np.concatenate([self._network(part)[0].numpy() for part in rows])


def measure(backbone, dtype, names, n_images, n_rounds):
    """Run ways in turn; return rate, share of the reference, and difference to the first way."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n_images, *backbone.preprocess.crop, 3), np.uint8)
    ways = {name: Way(*WAYS[name], backbone, dtype) for name in names}
    # Before the first round each way has converted its network and found its memory.
    for _ in range(2):
        features = {name: way.run(pixels)[0] for name, way in ways.items()}
    rounds = [{name: way.run(pixels)[1] for name, way in ways.items()} for _ in range(n_rounds)]
    reference = features[names[0]]
    return {
        name: (
            spread([n_images / seconds[name] for seconds in rounds]),
            spread([seconds[REFERENCE] / seconds[name] for seconds in rounds]),
            float(f"{np.abs(features[name] - reference).max() / np.abs(reference).max():.1g}"),
        )
        for name in names
    }


def options(subject, output, backbones, *, n_images=None, n_rounds):
    """Return the parser of a benchmark of engines, with its defaults."""
    parser = argparse.ArgumentParser(description=subject.split("\n", maxsplit=1)[0])
    parser.add_argument("--backbones", nargs="+", default=list(backbones))
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--images", type=int, default=n_images, help="images of a round")
    parser.add_argument("--rounds", type=int, default=n_rounds)
    parser.add_argument("--checkpoints", type=Path, help="folder with weights of torchvision")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / output)
    return parser


def main(argv=None):
    parser = options(__doc__, "engine_ablation.json", BACKBONES, n_rounds=7)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    settings = parser.parse_args(argv)
    rows = []
    for name in settings.backbones:
        backbone = load(name, settings.checkpoints)
        for precision in settings.precisions:
            n_images = settings.images or BACKBONES.get(name, 64)
            found = measure(
                backbone, getattr(torch, precision), settings.ways, n_images, settings.rounds
            )
            rows += [[name, precision, way, *record] for way, record in found.items()]
            print(*rows[-len(found) :], sep="\n", flush=True)
    columns = ["backbone", "precision", "way", "images_per_second", "share", "difference"]
    command = command_line(__file__, parser, settings)
    write_summary(settings.output, command, columns, rows, rounds=settings.rounds)


if __name__ == "__main__":
    main()
