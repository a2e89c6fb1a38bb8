"""The cost of the store in a cold run, and the rate of a warm run.

10,000 files of 64 x 64 pixels pass through EfficientNet-Lite0 at 32 pixels, where the store's share
is large, and 1,000 at the network's own 224. Cold runs with and without a store alternate, and warm
runs follow::

    python benchmarks/warm_extraction.py
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from summary import RESULTS, command_line, spread, write_summary

from sklearn_featx import FeatureStore, PretrainedFeatureExtractor


def write_files(folder, n_files):
    """Write files of random pixels, with times old enough for the store to trust them."""
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


def measure(folder, paths, image_size, settings):
    """Return the cost of the store in a cold run, and the rate of a warm run."""
    plain = PretrainedFeatureExtractor(image_size=image_size, cache=False)
    plain.transform(paths[:32])
    cold, without = [], []
    for i in range(settings.rounds):
        some = paths[: settings.cold_files]
        store = FeatureStore(Path(folder) / f"store {image_size} {i}")
        kept = PretrainedFeatureExtractor(image_size=image_size, cache=store)
        without.append(seconds(plain, some))
        cold.append(seconds(kept, some))
    warm_paths = paths if image_size == min(settings.image_sizes) else paths[: settings.cold_files]
    kept.transform(warm_paths)
    warm = [len(warm_paths) / seconds(kept, warm_paths) for _ in range(settings.rounds)]
    return spread([a / b for a, b in zip(cold, without, strict=True)]), spread(warm)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--cold-files", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[32, 224])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "warm_extraction.json")
    settings = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(folder, settings.files)
        for size in settings.image_sizes:
            rows.append([size, *measure(folder, paths, size, settings)])
            print(rows[-1], flush=True)
    columns = ["image_size", "cold_over_no_store", "warm_rows_per_second"]
    write_summary(
        settings.output,
        command_line(__file__, parser, settings),
        columns,
        rows,
        files=settings.files,
        rounds=settings.rounds,
    )


if __name__ == "__main__":
    main()
