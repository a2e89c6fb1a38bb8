"""
Which layer?
============

The last layer of a network is made for the photographs that it was trained on. Other images are
often better described by an earlier one. :func:`sklearn_featx.layer_sweep` scores all layers from
one pass.

The images are 200 electroluminescence pictures of solar cells [1]_. Cracks and broken contacts are
dark. They are installed with pip, with a table of paths.

.. [1] C. Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
   Electroluminescence Imagery", EU PVSEC 2018. CC BY-NC-SA 4.0.
"""

from importlib.resources import files

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import PretrainedFeatureExtractor, backbone_stages, layer_sweep

folder = files("elpv_dataset") / "data"
cells = pd.read_csv(folder / "labels.csv", sep=r"\s+", names=["path", "defect", "type"])
cells = cells[cells["defect"].isin([0, 1])].groupby("defect").sample(100, random_state=0)
paths = [str(folder / path) for path in cells["path"]]
print(cells.groupby(["defect", "type"]).size())

# %%
# The stages of the network, from the first to the last, the layer at the end of each, and the shape
# of its activations. Each row is a :class:`sklearn_featx.StageInfo`.
print(backbone_stages())

# %%
# One pass of the images gives the features of all stages. A linear model is scored on each, on the
# same folds; the rows are :class:`sklearn_featx.LayerScore`, the best first.
extractor = PretrainedFeatureExtractor(image_size=128)
linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
table = layer_sweep(extractor, linear, paths, cells["defect"], poolings=["avg", "max"], cv=5)
print(table)

# %%
# The best mean score is the best of many, and so too high. The nested score makes the choice again
# in each fold, and is honest: compare other methods with this one.
print(f"{table.nested_scores.mean():.3f}")

# %%
# The bars are standard deviations over the folds. Where they overlap, as here from ``blocks.1`` on,
# no layer can be called the best; the next example takes all of them.
order = [stage.layer for stage in backbone_stages()]
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
for pooling, marker in [("avg", "o"), ("max", "s")]:
    rows = sorted((r for r in table if r.pooling == pooling), key=lambda r: order.index(r.layer))
    ax.errorbar(
        [row.layer for row in rows],
        [row.mean_score for row in rows],
        [row.std_score for row in rows],
        marker=marker,
        capsize=3,
        label=pooling,
    )
ax.axhline(table.nested_scores.mean(), color="gray", linestyle=":", label="choice, nested")
ax.set(ylabel="accuracy, 5 folds", xlabel="layer, at the end of each stage")
ax.set_title("Accuracy by layer and pooling")
ax.tick_params(axis="x", rotation=30)
ax.legend()
plt.show()
