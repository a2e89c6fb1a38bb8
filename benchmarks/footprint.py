"""What the package weighs: seconds to import it, seconds to the first row, memory for many rows.

Many small files go through EfficientNet-Lite0 at 32 pixels in a process of their own, a tenth of
them first, then half, between which numba is loaded where it is installed. What the peak grows by
from there is compared with what the output grows by::

    python benchmarks/footprint.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from warm_extraction import write_files

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "footprint.json"

IMPORT = """
import sys, time, torch, torchvision, sklearn, skorch
start = time.perf_counter()
exec(sys.argv[1])
print(time.perf_counter() - start)
"""
# A name is imported when it is first used: nothing, what extracts features, and all of it.
IMPORTED = {
    "package": "import sklearn_featx",
    "extractor": "from sklearn_featx import PretrainedFeatureExtractor",
    "everything": "from sklearn_featx import *",
}
FIRST_ROW = """
import sys, time
start = time.perf_counter()
from sklearn_featx import PretrainedFeatureExtractor
PretrainedFeatureExtractor(cache=None).transform(sys.argv[1:])
print(time.perf_counter() - start)
"""
MANY = """
import json, sys, time
from pathlib import Path
from peak_memory import peak_mib
from sklearn_featx import PretrainedFeatureExtractor
folder, cache = sys.argv[1:]
paths = sorted(map(str, Path(folder).iterdir()))
extractor = PretrainedFeatureExtractor(image_size=32, cache=cache or None)
found = {}
parts = {"tenth": len(paths) // 10, "half": len(paths) // 2, "all": len(paths)}
for key, n in parts.items():
    start = time.perf_counter()
    rows = extractor.transform(paths[:n])
    found[key] = {
        "rows": len(rows),
        "seconds": time.perf_counter() - start,
        "output_mib": rows.nbytes / 2**20,
        "peak_mib": peak_mib(),
    }
    del rows
print(json.dumps(found))
"""


def said(script, *arguments):
    """Run a script in a fresh Python, beside this file, and return what it prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout


def repeated(rounds, script, *arguments):
    """Run a script that prints seconds some times; the first, which fills caches, is left out."""
    values = [float(said(script, *arguments)) for _ in range(rounds + 1)][1:]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def memory(folder, cache):
    """Say by how much the peak grows beyond the output, from a part of the rows to all."""
    found = json.loads(said(MANY, folder, cache))
    for key in ("tenth", "half"):
        peak, output = (found["all"][mib] - found[key][mib] for mib in ("peak_mib", "output_mib"))
        found[key]["growth_beyond_output_mib"] = peak - output
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    found = {"torch": torch.__version__, "rounds": arguments.rounds}
    found["import_seconds"] = {
        name: repeated(arguments.rounds, IMPORT, statement) for name, statement in IMPORTED.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        paths = write_files(images, arguments.files)
        found["first_row_seconds"] = repeated(arguments.rounds, FIRST_ROW, paths[0])
        found["memory"] = memory(images, "")
        found["memory_with_a_store"] = memory(images, Path(folder) / "store")
    print(json.dumps(found, indent=2))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
