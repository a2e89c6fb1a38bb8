"""Time to import the package, time to the first row, and memory for many rows.

Many small files pass through EfficientNet-Lite0 at 32 pixels in a new process, in two halves. The
growth of the peak memory in the second half is compared with that of the output::

    python benchmarks/footprint.py
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from summary import RESULTS, spread, write_summary
from warm_extraction import write_files

HERE = Path(__file__).parent

IMPORT = """
import sys, time, torch, torchvision, sklearn, skorch
start = time.perf_counter()
exec(sys.argv[1])
print(time.perf_counter() - start)
"""
# Names are imported at their first use: none, the extractor, and all.
IMPORTED = [
    "import sklearn_featx",
    "from sklearn_featx import PretrainedFeatureExtractor",
    "from sklearn_featx import *",
]
FIRST_ROW = """
import sys, time
start = time.perf_counter()
from sklearn_featx import PretrainedFeatureExtractor
PretrainedFeatureExtractor(cache=False).transform(sys.argv[1:])
print(time.perf_counter() - start)
"""
MANY = """
import json, sys, time
from pathlib import Path
from peak_memory import peak_mib
from sklearn_featx import PretrainedFeatureExtractor
folder, cache = sys.argv[1:]
paths = sorted(map(str, Path(folder).iterdir()))
extractor = PretrainedFeatureExtractor(image_size=32, cache=cache or False)
found = {}
for key, n in {"half": len(paths) // 2, "all": len(paths)}.items():
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
    """Run a script in a new Python, in the folder of this file, and return its output."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout


def repeated(rounds, script, *arguments):
    """Run a script that prints seconds several times; the first run fills caches, uncounted."""
    return spread([float(said(script, *arguments)) for _ in range(rounds + 1)][1:])


def memory(folder, cache):
    """Return the growth of the peak beyond the output in the second half of the rows, in MiB."""
    found = json.loads(said(MANY, folder, cache))
    peak, output = (found["all"][mib] - found["half"][mib] for mib in ("peak_mib", "output_mib"))
    return round(peak - output, 1)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "footprint.json")
    settings = parser.parse_args(argv)
    rows = [
        [f"seconds that `{statement}` adds", *repeated(settings.rounds, IMPORT, statement)]
        for statement in IMPORTED
    ]
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        paths = write_files(images, settings.files)
        first = repeated(settings.rounds, FIRST_ROW, paths[0])
        rows.append(["seconds to the first row in a fresh process", *first])
        grown = "MiB that memory grows beyond the output, second half of the files"
        rows.append([grown, *[memory(images, "")] * 3])
        rows.append([f"{grown}, with a store", *[memory(images, Path(folder) / "store")] * 3])
    print(*rows, sep="\n")
    columns = ["what", "median", "min", "max"]
    write_summary(
        settings.output,
        "python benchmarks/footprint.py",
        columns,
        rows,
        files=settings.files,
        rounds=settings.rounds,
    )


if __name__ == "__main__":
    main()
