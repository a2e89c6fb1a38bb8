"""Cut every network of torchvision and timm at every stage, and compare with the network uncut.

Random weights, float32, eval mode. The checks of each network are:

- the stages in order compute what the network computes, with difference 0, at the granularities
  "stage" and "block";
- the activations at every boundary, taken in one pass through the trunk, are those that the chain
  of stages has there, bit for bit: with the above, ``tail(trunk(x)) == network(x)`` everywhere;
- the parameters partition: each belongs to exactly one stage;

The time to trace and cut a network is measured after it is built. Each network has a row in the
result; a network that failed is listed with its error. Results are saved after each network; a
second start continues there.

Commands::

    python benchmarks/cut_sweep.py --torchvision
    python benchmarks/cut_sweep.py --timm
    python benchmarks/cut_sweep.py --timm --max-parameters 5e7
    python benchmarks/cut_sweep.py --report

timm's networks run in order of size, the smallest two of each family first, on the smallest inputs
that they accept (their own size if it is fixed). For networks with more parameters than
``--max-parameters`` (default 1.5e9, 6 GB of weights), partition and shapes are compared on
PyTorch's meta device, without values. ``--seconds`` limits the time of one network, ``--again``
repeats the networks that failed.
"""

import argparse
import copy
import gc
import json
import os
import platform
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torchvision
from summary import RECORDS, RESULTS, write_summary
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_featx.backbones._backbone import Backbone
from sklearn_featx.backbones._network import Network
from sklearn_featx.backbones.sources._torchvision import build_torchvision, torchvision_names
from sklearn_featx.exceptions import CutWarning

SMALL = 3e7  # parameters up to which two rows are sent through; above, one
PATTERN = 2**20


class CheapRandom(TorchDispatchMode):
    """Random initialization at the speed of copying: one random block, repeated.

    This is random enough for a comparison, and initializes billions of parameters in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.uniform = torch.rand(PATTERN, generator=generator)
        self.normal = torch.randn(PATTERN, generator=generator)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        large = bool(args) and isinstance(args[0], torch.Tensor) and args[0].numel() > 4096
        if large and args[0].is_contiguous() and args[0].is_floating_point():
            if func is torch.ops.aten.uniform_.default:
                low, high = (*args[1:], *(0.0, 1.0)[len(args) - 1 :])
                return self._fill(args[0], self.uniform * (high - low) + low)
            if func is torch.ops.aten.normal_.default:
                mean, std = (*args[1:], *(0.0, 1.0)[len(args) - 1 :])
                return self._fill(args[0], self.normal * std + mean)
            if func is torch.ops.aten.erfinv_.default:
                return args[0]
        return func(*args, **kwargs)

    @staticmethod
    def _fill(tensor: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        flat = tensor.view(-1)
        for part in flat.split(PATTERN):
            part.copy_(block[: len(part)])
        return tensor


def check(network: Network, shape: tuple[int, ...]) -> dict[str, Any]:
    """Cut a network at both granularities and compare."""
    row: dict[str, Any] = {"input": list(shape)}
    with warnings.catch_warnings(record=True) as caught, torch.inference_mode():
        warnings.simplefilter("always", CutWarning)
        start, start_cpu = time.perf_counter(), time.process_time()
        backbone = Backbone(network)
        row["seconds"] = round(time.perf_counter() - start, 3)
        row["cpu_seconds"] = round(time.process_time() - start_cpu, 3)
        row["stages"] = len(backbone.stages)
        row["fell_back"] = [str(w.message) for w in caught if w.category is CutWarning]
        row["opaque"] = [] if backbone._chains is None else list(backbone._chains[0].trace.opaque)
        row.update(partition(backbone))
        x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
        expected = network.module(x.clone())
        activations = run_chain(backbone, x)
        row["difference"] = difference(activations[-1], expected)
        row["finite"] = bool(torch.isfinite(expected).all())
        row["features"] = list(expected.shape[1:])
        row["taps_equal"] = taps_equal(backbone, x, activations)
        del activations
        if network.blocks == network.stages:
            row["blocks"] = row["stages"]
            return row
        # The trace is the same: only the cut differs.
        blocks = copy.copy(backbone)
        blocks.granularity = "block"
        blocks.stages = tuple(blocks._cut())
        row["blocks"] = len(blocks.stages)
        row["partition"] = row["partition"] and partition(blocks)["partition"]
        row["difference"] = max(row["difference"], difference(run_chain(blocks, x)[-1], expected))
    return row


def run_chain(backbone: Backbone, x: torch.Tensor) -> list[torch.Tensor]:
    """Copy the activations after each stage, since the next stage may work in place."""
    activations = []
    value = x.clone()
    for stage in backbone.stages:
        value = stage.module(value)
        activations.append(value.clone())
    return activations


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference; equal infinities and NaN in both count as equal."""
    if found.shape != expected.shape:
        return float("inf")
    same = (found == expected) | (found.isnan() & expected.isnan())
    return 0.0 if bool(same.all()) else float((found - expected).abs().nan_to_num(1e30).max())


def taps_equal(backbone: Backbone, x: torch.Tensor, activations: list[torch.Tensor]) -> bool:
    """Whether the trunk, tapped at all boundaries in one pass, returns the chain's activations."""
    trunk = backbone.tapped(list(range(1, len(backbone.stages) + 1)))
    pairs = zip(trunk(x.clone()), activations, strict=True)
    return all(difference(a, b) == 0 for a, b in pairs)


def partition(backbone: Backbone) -> dict[str, Any]:
    """Whether each parameter of the network is in exactly one stage."""
    owned = [id(p) for stage in backbone.stages for p in stage.module.parameters()]
    known = {id(p): name for name, p in backbone.network.module.named_parameters()}
    lost = [name for key, name in known.items() if key not in set(owned)]
    exact = len(owned) == len(set(owned)) == len(known)
    return {"partition": exact and not lost, "lost": lost[:5]}


def sizes(module: nn.Module, own: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Possible input sizes, the smallest first."""
    config = module.pretrained_cfg
    if not config.get("fixed_input_size"):
        smallest = (config.get("min_input_size") or (3, 64, 64))[1]
        for side in sorted({max(smallest, 64), 128, 192}):
            if side < min(own):
                yield side, side
    yield own


def sweep_timm(name: str) -> dict[str, Any]:
    from sklearn_featx.backbones.sources._timm import build_timm

    with CheapRandom():
        network = build_timm(f"timm/{name}", None)
    count = sum(p.numel() for p in network.module.parameters())
    rows, channels = (2 if count <= SMALL else 1), network.preprocess.channels
    own = network.preprocess.output_size
    assert own is not None
    size = next(s for s in sizes(network.module, own) if s == own or takes(network, s))
    return {"parameters": count, **check(network, (rows, channels, *size))}


def takes(network: Network, size: tuple[int, int]) -> bool:
    try:
        with torch.inference_mode():
            out = network.module(torch.zeros(1, network.preprocess.channels, *size))
    except Exception:
        return False
    return bool(torch.isfinite(out).all())


def sweep_shapes(name: str) -> dict[str, Any]:
    """Cut a network that is too large for memory, and compare shapes without values."""
    from sklearn_featx.backbones.sources._timm import build_timm

    with torch.device("meta"), torch.inference_mode():
        network = build_timm(f"timm/{name}", None)
        backbone = Backbone(network)
        size = network.preprocess.output_size
        assert size is not None
        x = torch.empty(1, network.preprocess.channels, *size)
        expected = network.module(x)
        found = run_chain(backbone, x)[-1]
    return {
        "parameters": sum(p.numel() for p in network.module.parameters()),
        "input": list(x.shape),
        "stages": len(backbone.stages),
        "fell_back": [] if backbone._chains else ["cannot be traced"],
        **partition(backbone),
        "shapes_equal": found.shape == expected.shape,
        "features": list(expected.shape[1:]),
    }


def sweep_torchvision(name: str) -> dict[str, Any]:
    with CheapRandom():
        network = build_torchvision(name, None)
    count = sum(p.numel() for p in network.module.parameters())
    size = network.preprocess.output_size
    assert size is not None
    # EfficientNet-V2 and ViT-H were trained on up to 518 pixels; only ViTs need their own size.
    side = size[0] if name.startswith("vit") else min(size[0], 224)
    return {"parameters": count, **check(network, (2 if count <= SMALL else 1, 3, side, side))}


def timm_parameters() -> dict[str, int]:
    """Count the parameters of each of timm's models, once, without memory for them."""
    import timm

    path = RECORDS / "timm_parameters.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name in timm.list_models():
        if name not in known:
            with torch.device("meta"):
                known[name] = sum(p.numel() for p in timm.create_model(name).parameters())
    save(path, known)
    return by_family(known)


def by_family(counts: dict[str, int], *, first: int = 2) -> dict[str, int]:
    """Order names by size, the smallest two of each family before all others."""
    ordered = sorted(counts, key=lambda name: (counts[name], name))
    seen: Counter[str] = Counter()
    later = {}
    for name in ordered:
        family = name.split("_")[0]
        later[name] = seen[family] >= first
        seen[family] += 1
    return {name: counts[name] for name in sorted(ordered, key=lambda n: (later[n], counts[n]))}


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(value, indent=1))
    partial.replace(path)


def versions() -> dict[str, str]:
    found = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    try:
        import timm
    except ModuleNotFoundError:
        pass
    else:
        found["timm"] = timm.__version__
    return {**found, "python": platform.python_version(), "threads": str(torch.get_num_threads())}


class TooSlowError(BaseException):  # not to be caught on the way, where any error is
    """A network took longer than the limit."""


def bounded(seconds: int) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlowError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)


def run(kind: str, names: dict[str, int], options: argparse.Namespace) -> None:
    path = RECORDS / f"cut_{kind}.json"
    saved = json.loads(path.read_text()) if path.exists() else {}
    rows: dict[str, Any] = saved.get("rows", {})
    for name, count in names.items():
        if name in rows and not (options.again and failed(rows[name])):
            continue
        if kind == "torchvision":
            one = sweep_torchvision
        else:
            one = sweep_timm if count <= options.max_parameters else sweep_shapes
        start = time.perf_counter()
        try:
            bounded(options.seconds)
            rows[name] = one(name)
        except (Exception, TooSlowError) as error:
            # A sweep goes on, whatever one network of hundreds does.
            rows[name] = {"error": f"{type(error).__name__}: {error}"[:400]}
        finally:
            signal.alarm(0)
        rows[name]["wall"] = round(time.perf_counter() - start, 2)
        # By row: a sweep may be gone on with under another version than it was begun.
        rows[name]["torch"] = torch.__version__
        print(name, json.dumps(rows[name]), flush=True)
        gc.collect()
        save(path, {"versions": versions(), "rows": rows})


def failed(row: dict[str, Any]) -> bool:
    if "error" in row or row["fell_back"] or not row["partition"]:
        return True
    if "shapes_equal" in row:
        return not row["shapes_equal"]
    return not (row["difference"] == 0 and row["taps_equal"])


def report(kind: str) -> None:
    path = RECORDS / f"cut_{kind}.json"
    if not path.exists():
        return
    saved = json.loads(path.read_text())
    rows: dict[str, Any] = saved["rows"]
    bad = {name: row for name, row in rows.items() if failed(row)}
    times = sorted(row["seconds"] for row in rows.values() if "seconds" in row)
    cpu = sorted(row["cpu_seconds"] for row in rows.values() if "cpu_seconds" in row)
    print(f"\n{kind}: {saved['versions']}")
    shapes = sum(1 for name, row in rows.items() if "shapes_equal" in row and name not in bad)
    print(f"{len(rows)} networks, {len(rows) - len(bad) - shapes} cut with difference 0,", end=" ")
    print(f"{shapes} too large for values cut with equal shapes, {len(bad)} not cut.")
    by_version = Counter(row.get("torch") for row in rows.values())
    print(f"Networks by version of torch: {dict(by_version)}")
    print(f"Seconds to cut: median {times[len(times) // 2]}, largest {times[-1]}.")
    if cpu:
        print(f"CPU seconds to cut ({len(cpu)} networks): {cpu[len(cpu) // 2]}, {cpu[-1]}.")
    single = [n for n, r in rows.items() if r.get("stages") == 1 and not failed(r)]
    print(f"One stage only: {len(single)} {single}")
    print(f"Not finite: {[n for n, r in rows.items() if r.get('finite') is False]}")
    print(f"Modules kept whole: {sorted({o for r in rows.values() for o in r.get('opaque', [])})}")
    for name, row in bad.items():
        kept = ("error", "difference", "taps_equal", "partition", "lost", "fell_back", "stages")
        print(f"  {name}: { {k: row[k] for k in kept if row.get(k)} }")


def summarize() -> None:
    """Save how many networks of each library were cut."""
    rows, torches = [], set()
    for kind in ("torchvision", "timm"):
        path = RECORDS / f"cut_{kind}.json"
        if path.exists():
            saved = json.loads(path.read_text())
            found = list(saved["rows"].values())
            torches |= {row["torch"] for row in found}
            good = [row for row in found if not failed(row)]
            by_shape = sum("shapes_equal" in row for row in good)
            single = sum(row["stages"] == 1 for row in good)
            version = saved["versions"][kind]
            counts = (len(found), len(good) - by_shape, by_shape, len(found) - len(good), single)
            rows.append([f"{kind} {version}", *counts])
    columns = ["library", "networks", "difference 0", "equal shapes", "not cut", "one stage"]
    command = "python benchmarks/cut_sweep.py --torchvision --timm"
    machine = f"torch {', '.join(sorted(torches))}"
    write_summary(RESULTS / "cut_sweep.json", command, columns, rows, machine=machine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torchvision", action="store_true")
    parser.add_argument("--timm", action="store_true")
    parser.add_argument("--report", action="store_true", help="only print what was found")
    parser.add_argument("--max-parameters", type=float, default=1.5e9)
    parser.add_argument("--seconds", type=int, default=300, help="bound for one network")
    parser.add_argument("--again", action="store_true", help="repeat networks that failed")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if options.torchvision:
        run("torchvision", dict.fromkeys(torchvision_names(), 0), options)
    if options.timm:
        run("timm", timm_parameters(), options)
    report("torchvision")
    report("timm")
    summarize()


if __name__ == "__main__":
    main()
