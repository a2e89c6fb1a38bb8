"""Heat maps lie on the object: pointing game, shuffled labels and deletion, in small.

The figures of 500 images are in the documentation.
"""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_maps_lie_on_the_object(monkeypatch, tmp_path):
    pytest.importorskip("skimage")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import heat_maps

    heat_maps.main(["--images", "120", "-o", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    control = max(found["center"], found["random"])
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert len(rows) == 6
    linear = {row["layer"]: row for row in rows if row["head"] == "linear"}
    for row in rows:
        assert row["accuracy"] > 0.95
        assert row["pointing"] >= control + 0.3
        margin = {"linear": 0, "RBF": 0.1, "forest": 0.1}[row["head"]]
        assert row["pointing"] >= linear[row["layer"]]["pointing"] - margin
    for layer, bar in (("last", 0.94), ("all", 0.97)):
        assert linear[layer]["pointing"] >= bar
        assert abs(linear[layer]["shuffled"]) < 0.2
        assert linear[layer]["deletion"] >= 0.95
