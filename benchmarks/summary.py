"""Summaries of benchmarks, of at most 60 lines; `tables.py` makes tables of them.

Full records, with which a benchmark continues an interrupted run, are in `RECORDS` and not part of
the repository.
"""

import json
import os
import platform
import shlex
import statistics
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
RECORDS = Path(__file__).parent / "records"


def spread(values):
    """Return median, smallest and largest value, to four digits."""
    found = (statistics.median(values), min(values), max(values))
    return [float(f"{value:.4g}") for value in found]


def machine():
    """Describe the machine and the versions of the libraries."""
    instructions = torch.backends.cpu.get_cpu_capability()
    return (
        f"{os.cpu_count()} cores, {instructions}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def command_line(script, parser, settings):
    """Return the command of a run: the options that differ from their defaults.

    A path is FOLDER or FILE: it is that of this machine.
    """
    words = ["python", f"benchmarks/{Path(script).name}"]
    for name, value in vars(settings).items():
        if value == parser.get_default(name) or name in ("output", "here", "environment"):
            continue
        words.append("--" + name.replace("_", "-"))
        for one in value if isinstance(value, list) else [value]:
            is_path = isinstance(one, Path) or os.sep in str(one)
            words.append(("FOLDER" if Path(one).is_dir() else "FILE") if is_path else str(one))
    return shlex.join(words)


def write_summary(path, command, columns, rows, **about):
    """Write rows, one in each line, with the command that made them."""
    heading = {"command": command, "machine": machine()} | about | {"columns": columns}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in heading.items()]
    cells = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["{", *lines, ' "rows": [', cells, " ]", "}"]) + "\n")


def read_summary(path):
    """Return a summary, with a dictionary for each row."""
    found = json.loads(Path(path).read_text())
    found["rows"] = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    return found
