"""What the store costs a cold run, and how fast a warm one is.

10,000 files of 64 x 64 pixels go through EfficientNet-Lite0 at 32 pixels, small on purpose:
the larger the network, the smaller the store's share. Cold with and without a store are measured in
turn, warm runs after them::

    python benchmarks/warm_extraction.py
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sklearn_featx import FeatureStore, PretrainedFeatureExtractor

RESULTS = Path(__file__).parent / "results" / "warm_extraction.json"


def write_files(folder, n_files):
    """Write files of random pixels, old enough to be known by their time of change."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n_files):
        path = Path(folder) / f"{i:06d}.png"
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, compress_level=0)
        os.utime(path, (1e9, 1e9))
        paths.append(str(path))
    return paths


def seconds(extractor, paths):
    start = time.perf_counter()
    extractor.transform(paths)
    return time.perf_counter() - start


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--cold-files", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(folder, arguments.files)
        plain = PretrainedFeatureExtractor(image_size=arguments.image_size, cache=None)
        plain.transform(paths[:32])
        cold, without = [], []
        for i in range(arguments.rounds):
            some = paths[: arguments.cold_files]
            store = FeatureStore(Path(folder) / f"store {i}")
            kept = PretrainedFeatureExtractor(image_size=arguments.image_size, cache=store)
            without.append(seconds(plain, some))
            cold.append(seconds(kept, some))
        kept.transform(paths)
        warm = [arguments.files / seconds(kept, paths) for _ in range(arguments.rounds)]
    found = {
        "store_over_no_store": spread([a / b for a, b in zip(cold, without, strict=True)]),
        "warm_rows_per_second": spread(warm),
        "settings": {k: v for k, v in vars(arguments).items() if k != "output"},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(found, indent=2))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
