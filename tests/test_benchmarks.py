"""The benchmarks run, in small."""

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Two images of a class in a training fold are few for an inner search.
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_feature_quality(tmp_path, capsys):
    output = tmp_path / "results" / "feature_quality.json"
    found = load("feature_quality").main(["--smoke", "--output", str(output)])
    assert json.loads(output.read_text()) == found
    columns = [row["columns"] for row in found["linear_model"]["rows"]]
    assert columns == ["raw pixels", "before the head, 32 px", "blocks.4, 32 px"]
    depths = [row["unfreeze_depth"] for row in found["unfreeze_depth"]["rows"]]
    assert depths == [0, 1]
    rows = found["linear_model"]["rows"] + found["unfreeze_depth"]["rows"]
    assert all(0.1 < row["accuracy"] <= 1 for row in rows)
    assert "60 images" in capsys.readouterr().out


def test_recorded_results_are_of_the_full_benchmark():
    recorded = json.loads((BENCHMARKS / "results" / "feature_quality.json").read_text())
    assert recorded["n_images"] == 2000
    assert [row["unfreeze_depth"] for row in recorded["unfreeze_depth"]["rows"]][:5] == [
        0,
        1,
        2,
        3,
        4,
    ]
