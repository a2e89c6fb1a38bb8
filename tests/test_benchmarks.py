"""The benchmarks run, in small."""

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

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


def test_warm_extraction(tmp_path, capsys):
    output = tmp_path / "warm.json"
    arguments = ["--files", "24", "--cold-files", "12", "--rounds", "1", "-o", str(output)]
    found = load("warm_extraction").main(arguments)
    assert json.loads(output.read_text()) == found
    assert found["warm_rows_per_second"]["median"] > 0
    assert "store_over_no_store" in capsys.readouterr().out


def test_footprint(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    output = tmp_path / "footprint.json"
    found = load("footprint").main(["--files", "20", "--rounds", "1", "-o", str(output)])
    assert json.loads(output.read_text()) == found
    for memory in (found["memory"], found["memory_with_a_store"]):
        assert [memory[part]["rows"] for part in ("tenth", "half", "all")] == [2, 10, 20]
        assert memory["all"]["output_mib"] == pytest.approx(20 * 1280 * 4 / 2**20)
    imports = {name: seconds["median"] for name, seconds in found["import_seconds"].items()}
    assert found["first_row_seconds"]["median"] > imports["everything"] > imports["package"] > 0
    assert "growth_beyond_output_mib" in capsys.readouterr().out


def test_extraction(tmp_path, capsys):
    benchmark = load("extraction")
    benchmark.WARM_UP_SECONDS = 0
    output = tmp_path / "extraction.json"
    ways = ["plain torchvision loop", "sklearn_featx", "matrix product float32", "engine float32"]
    arguments = ["--here", "--backbones", "efficientnet_lite0", "--images", "3", "--rounds", "1"]
    arguments += ["--sources", "JPEG 500 x 375", "--ways", *ways, "-o", str(output)]
    found = benchmark.main(arguments)
    assert json.loads(output.read_text()) == found
    records = found["backbones"]["efficientnet_lite0"]["sources"]["JPEG 500 x 375"]
    assert [record["error"] for record in records.values() if "error" in record] == []
    assert list(records) == ways
    own = records["sklearn_featx"]
    assert own["smallest_cosine"] > 0.9999
    assert own["largest_difference"] < 1e-4
    assert own["over_plain_loop"]["median"] > 0
    assert 0 < records["engine float32"]["share_of_peak"] < 1
    rate, costs = capsys.readouterr().out.split("| plain torchvision loop |")[1:]
    assert "(1.0; 1.0 to 1.0)" in rate
    assert "MiB" in costs


def test_depth_search(tmp_path, capsys):
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes(16) + np.random.default_rng(0).bytes(30 * 28 * 28))
    with gzip.open(tmp_path / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes(8) + bytes(range(10)) * 3)
    with torch.random.fork_rng(devices=[]):
        network = torchvision.models.mobilenet_v2(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = load("depth_search").main(
        [
            *("--weights", str(tmp_path / "weights.pth")),
            *("--fashion-mnist", str(tmp_path)),
            *("--images", "30", "--epochs", "1", "--folds", "2", "--size", "32"),
            *("-o", str(tmp_path / "out.json")),
        ]
    )
    assert json.loads((tmp_path / "out.json").read_text()) == found
    depths = [row["depth"] for row in found["rows"]]
    assert depths == ["head", "last convolution", "blocks 14+", "blocks 7+"]
    for precision in ("float32", "bfloat16"):
        assert all(row[precision]["ratio"] > 0 for row in found["rows"])
        assert found["whole_search_ratio"][precision] > 0
    assert "whole_search_ratio" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_finetune_study(tmp_path, capsys):
    output = tmp_path / "study.json"
    study = load("finetune_study")
    study.main(["--smoke", "--output", str(output)])
    fits = json.loads(output.read_text())["fits"]
    assert {fit["recipe"] for fit in fits} >= {"probe", "plain"}
    assert all(0 <= fit["accuracy"] <= 1 for fit in fits)
    # The same command goes on where it was: nothing is left to fit.
    study.main(["--smoke", "--output", str(output)])
    assert json.loads(output.read_text())["fits"] == fits
    assert "probe" in capsys.readouterr().out


def test_the_plain_recipe_of_the_study_trains_the_tail_too():
    study = load("finetune_study")
    tail = study.Tail("efficientnet_lite0", "DEFAULT", 2, 10)
    assert all(parameter.requires_grad for parameter in tail.parameters())
    assert len(list(tail.stages.parameters())) > 0
