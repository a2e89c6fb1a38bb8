"""The benchmarks run, in small; the tables of the documentation are those of their summaries."""

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark; they import each other from their folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name):
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def rows_of(path):
    """Rows of a summary, by column."""
    found = json.loads(path.read_text())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def test_tables_are_those_of_the_summaries(load):
    with pytest.raises(SystemExit) as ended:
        load("tables").main(["--check"])
    assert ended.value.code == 0, "run python benchmarks/tables.py"


def test_a_table_is_replaced(load, monkeypatch):
    tables = load("tables")
    monkeypatch.setitem(tables.TABLES, "footprint", lambda: "| new |")
    page = "before\n<!-- table: footprint -->\n| old |\n\n| older |\n<!-- end -->\nafter\n"
    wanted = "before\n<!-- table: footprint -->\n| new |\n<!-- end -->\nafter\n"
    assert tables.updated(page) == tables.updated(wanted) == wanted


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").iterdir()), ids=lambda p: p.name)
def test_summaries_are_short(path):
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.slow
def test_poolings(load, tmp_path):
    output = tmp_path / "poolings.json"
    load("poolings").main(["--smoke", "-o", str(output)])
    widths = {row["pooling"]: row["columns"] for row in rows_of(output)}
    # At 32 pixels: maps of 16, 16, 8, 4, 2, 2, 1 and 1 positions on a side, and the last layer.
    assert widths["avg"] == 2096
    assert widths["grid3"] == 1280 + 9 * (32 + 16 + 24 + 40) + 4 * (80 + 112) + 192 + 320


@pytest.mark.slow
def test_warm_extraction(load, tmp_path):
    output = tmp_path / "warm.json"
    arguments = ["--files", "24", "--cold-files", "12", "--rounds", "1", "-o", str(output)]
    load("warm_extraction").main([*arguments, "--image-sizes", "32", "40"])
    rows = rows_of(output)
    assert [row["image_size"] for row in rows] == [32, 40]
    assert all(min(row["warm_rows_per_second"]) > 0 for row in rows)


@pytest.mark.slow
def test_footprint(load, tmp_path):
    output = tmp_path / "footprint.json"
    load("footprint").main(["--files", "20", "--rounds", "1", "-o", str(output)])
    package, extractor, everything, first_row, *memory = rows_of(output)
    assert first_row["median"] > everything["median"] > package["median"] > 0
    assert "PretrainedFeatureExtractor" in extractor["what"]
    assert len(memory) == 2


@pytest.mark.slow
def test_engine_ablation(load, tmp_path):
    output = tmp_path / "ablation.json"
    ways = ["folded", "fused layers and sections"]
    arguments = ["--backbones", "efficientnet_lite0", "--precisions", "float32", "--images", "4"]
    load("engine_ablation").main([*arguments, "--ways", *ways, "--rounds", "1", "-o", str(output)])
    rows = rows_of(output)
    assert [row["way"] for row in rows] == ways
    assert rows[1]["share"] == [1, 1, 1]
    assert rows[1]["difference"] < 1e-5


@pytest.mark.slow
def test_all_layers(load, tmp_path):
    output = tmp_path / "all_layers.json"
    arguments = ["--backbones", "efficientnet_lite0", "--precisions", "float32", "--images", "4"]
    load("all_layers").main([*arguments, "--rounds", "1", "-o", str(output)])
    last, *others = rows_of(output)
    assert last["share"] == [1, 1, 1]
    assert len(others) == 3


@pytest.mark.slow
def test_kept_memory(load, tmp_path):
    output = tmp_path / "kept_memory.json"
    arguments = ["--backbones", "efficientnet_lite0", "--precisions", "float32", "--images", "4"]
    load("kept_memory").main([*arguments, "--rounds", "2", "-o", str(output)])
    (row,) = rows_of(output)
    middle, least, most = row["rate"]
    assert 0 < least <= middle <= most


@pytest.mark.slow
def test_extraction(load, tmp_path):
    benchmark = load("extraction")
    benchmark.WARM_UP_SECONDS = 0
    output = tmp_path / "extraction.json"
    ways = ["plain torchvision loop", "sklearn_featx"]
    arguments = ["--here", "--backbones", "efficientnet_lite0", "--images", "3", "--rounds", "1"]
    arguments += ["--sources", "JPEG 500 x 375", "--ways", *ways, "-o", str(output)]
    benchmark.main(arguments)
    assert json.loads(output.read_text())["failed"] == {}
    plain, own = rows_of(output)
    assert [plain["way"], own["way"]] == ways
    assert plain["efficientnet_lite0"][1:4] == [1, 1, 1]
    _, ratio, _, _, _, mib, cosine, difference = own["efficientnet_lite0"]
    assert ratio > 0
    assert mib > 100
    assert cosine < 1e-8
    assert difference < 1e-4


@pytest.mark.slow
def test_depth_search(load, tmp_path):
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes(16) + np.random.default_rng(0).bytes(30 * 28 * 28))
    with gzip.open(tmp_path / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes(8) + bytes(range(10)) * 3)
    with torch.random.fork_rng(devices=[]):
        network = torchvision.models.mobilenet_v2(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    load("depth_search").main(
        [
            *("--weights", str(tmp_path / "weights.pth")),
            *("--fashion-mnist", str(tmp_path)),
            *("--images", "30", "--epochs", "1", "--folds", "2", "--size", "32"),
            *("-o", str(tmp_path / "out.json")),
        ]
    )
    rows = rows_of(tmp_path / "out.json")
    assert len(rows) == 12
    assert {row["who"] for row in rows} == {"plain skorch", "float32", "bfloat16"}
    assert list(dict.fromkeys(row["depth"] for row in rows)) == [
        *("head", "last convolution", "blocks 14+", "blocks 7+"),
    ]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_many_classes(load, tmp_path):
    output = tmp_path / "out.json"
    load("many_classes").main(["--angles", "1", "--rounds", "1", "-o", str(output)])
    own, theirs = rows_of(output)
    assert own["times_ours"] == [1, 1, 1]
    assert theirs["times_ours"][0] > 0
    assert min(own["accuracy"], theirs["accuracy"]) > 0.7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_finetune_study(load, tmp_path, capsys):
    records, output = tmp_path / "study.json", tmp_path / "summary.json"
    study = load("finetune_study")
    arguments = ["--smoke", "--records", str(records), "--output", str(output)]
    study.main(arguments)
    fits = json.loads(records.read_text())["fits"]
    assert {fit["recipe"] for fit in fits} >= {"probe", "plain"}
    assert all(0 <= fit["accuracy"] <= 1 for fit in fits)
    # The same command goes on where it was: nothing is left to fit.
    study.main(arguments)
    assert json.loads(records.read_text())["fits"] == fits
    assert [row["recipe"] for row in rows_of(output)] == ["probe first", "plain"]
    assert "probe" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_head_layers(load, tmp_path):
    records, output = tmp_path / "records.json", tmp_path / "heads.json"
    load("head_layers").main(["--smoke", "--records", str(records), "-o", str(output)])
    (row,) = rows_of(output)
    assert row["part"] == "heads"
    assert row["depth 0"][2] == row["depth 1"][2] == 3


@pytest.mark.slow
def test_the_plain_recipe_of_the_study_trains_the_tail_too(load):
    study = load("finetune_study")
    tail = study.Tail("efficientnet_lite0", "DEFAULT", 2, 10)
    assert all(parameter.requires_grad for parameter in tail.parameters())
    assert len(list(tail.stages.parameters())) > 0
