"""The picture of the landing page and of README, ``docs/images/landing.png``.

Left: heat maps of three solar cells with a defect. Right: accuracies of the study behind the
defaults, from ``benchmarks/results``. In a checkout::

    python -m pip install --upgrade pip
    python -m pip install -e . --group docs
    python docs/pictures.py
"""

import json
from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_featx import HeatMapDisplay, PretrainedFeatureExtractor

N_CELLS = 200


def solar_cells():
    """Return a model fitted on solar cells, and some cells with a defect that it did not see."""
    folder = files("elpv_dataset") / "data"
    cells = pd.read_csv(folder / "labels.csv", sep=r"\s+", names=["path", "defect", "type"])
    cells = cells[cells["defect"].isin([0, 1]) & (cells["type"] == "mono")]
    cells = cells.groupby("defect").sample(N_CELLS // 2, random_state=0)
    paths = np.array([str(folder / path) for path in cells["path"]])
    labels = np.where(cells["defect"] == 1, "defect", "intact")
    test = np.flatnonzero(labels == "defect")[:12]
    train = np.setdiff1d(np.arange(len(paths)), test)
    extractor = PretrainedFeatureExtractor(
        layer=["blocks.1", "blocks.3"], normalize="layer", image_size=160
    )
    model = make_pipeline(extractor, LogisticRegression(C=0.1, max_iter=1000))
    model.fit(paths[train], labels[train])
    score = model.decision_function(paths[test])  # of "intact"
    return model, paths[test][np.argsort(score)[:3]]


def study(ax):
    """Draw the study's accuracies on digits, of heads that read the last and all layers."""
    results = Path(__file__).parents[1] / "benchmarks" / "results"
    lines = {
        "all layers, 4 stages trained": ("head_layers", 0.1, "depth 4", "C0-"),
        "all layers, linear": ("head_layers", 0.1, "depth 0", "C0:"),
        "last layer, 4 stages trained": ("finetune_study", "probe first", "depth 4", "C1-"),
        "last layer, linear": ("finetune_study", "probe first", "depth 0", "C1:"),
    }
    for label, (name, kind, depth, style) in lines.items():
        found = json.loads((results / f"{name}.json").read_text("utf-8"))
        rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
        rows = [
            row for row in rows
            if (row["data"], row["backbone"]) == ("MNIST", "efficientnet_lite0")
            and row.get("part", "heads") == "heads"
            and row.get("ratio", row.get("recipe")) == kind
        ]  # fmt: skip
        means, errors = zip(*((row[depth][0], row[depth][1]) for row in rows), strict=True)
        sizes = [row["n_images"] for row in rows]
        ax.errorbar(sizes, means, errors, fmt=style, marker="o", capsize=3, label=label)
    ax.set(xscale="log", xlabel="labeled digits", ylabel="accuracy, %")
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()
    ax.legend(fontsize="small")


def main():
    mpl.use("agg")
    from matplotlib import pyplot as plt

    # The page shows 850 pixels of 1280: small figures at a high resolution have large type.
    figure = plt.figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[3, 2])
    model, cells = solar_cells()
    HeatMapDisplay.from_estimator(model, cells, target="defect", ax=left.subplots(1, 3))
    study(right.subplots())
    path = Path(__file__).parent / "images" / "landing.png"
    figure.savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
