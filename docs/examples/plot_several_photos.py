"""
Several photos for each row, and wide images
============================================

A product has four photos, a solar module has many cells: how do several images become one row?
Here each module is three solar cells [1]_, and the question is whether one of them has a defect.
The cells come as a list of files, or side by side in one wide picture.

.. [1] C. Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
   Electroluminescence Imagery", EU PVSEC 2018. CC BY-NC-SA 4.0.
"""

from importlib.resources import files

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import ImageReader, Preprocessing, PretrainedFeatureExtractor

folder = files("elpv_dataset") / "data"
cells = pd.read_csv(folder / "labels.csv", sep=r"\s+", names=["path", "defect", "type"])
cells = cells[cells["type"] == "mono"]
intact = cells[cells["defect"] == 0].sample(200, random_state=0)["path"]
broken = cells[cells["defect"] == 1].sample(40, random_state=0)["path"]

# %%
# 80 modules of three cells. In every second one, a cell with a defect takes a random place.
rng = np.random.default_rng(0)
y = np.arange(80) % 2
places = rng.integers(0, 3, 80)
others, defects = iter(intact), iter(broken)
modules = [
    [str(folder / next(defects if y[i] and k == places[i] else others)) for k in range(3)]
    for i in range(80)
]
print(len(modules), "modules, the first:", [path[-12:] for path in modules[0]])

# %%
# Several photos for each row
# ---------------------------
# ``bag_pooling`` of an `ImageReader` takes an entry of X that is a list, and pools the features of
# its images: their mean, their maximum, or several such columns side by side. A search compares.
# Each cell is computed once, alone.
linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
extractor = PretrainedFeatureExtractor(
    layer=["blocks.1", "blocks.3"], pooling="max", image_size=96, reader=ImageReader()
)
model = make_pipeline(extractor, linear)
choices = ["mean", "max", "mean+max"]
bags = GridSearchCV(model, {"pretrainedfeatureextractor__reader__bag_pooling": choices}, cv=5)
bags.fit(modules, y)
names = [f"list, {choice}" for choice in choices]
scores = dict(zip(names, bags.cv_results_["mean_test_score"], strict=True))

# %%
# One wide picture
# ----------------
# The preprocessing of most networks crops the center: the outer cells are lost. `Preprocessing`
# changes that. ``"squash"`` resizes both sides, ``"border"`` fits the whole picture in.
wide = [np.hstack([np.asarray(Image.open(path)) for path in module]) for module in modules]
extractor = PretrainedFeatureExtractor(
    layer=["blocks.1", "blocks.3"], pooling="max", preprocessing=Preprocessing(image_size=96)
)
model = make_pipeline(extractor, linear)
choices = ["center", "squash", "border"]
crops = GridSearchCV(
    model, {"pretrainedfeatureextractor__preprocessing__crop_mode": choices}, cv=5
).fit(wide, y)
names = [f"wide, {choice}" for choice in choices]
scores |= zip(names, crops.cv_results_["mean_test_score"], strict=True)

for name, score in scores.items():
    print(f"{name:<16} {score:.2f}")

# %%
# A module with a defect, and what the network sees of it at the center; the scores.
shown = np.flatnonzero((y == 1) & (places != 1))[0]
figure, (top, bottom) = plt.subplots(2, figsize=(6, 5), layout="constrained")
top.imshow(wide[shown], cmap="gray")
height, width = wide[shown].shape
top.add_patch(plt.Rectangle((width / 2 - height / 2, 0), height, height, fill=False, color="C1"))
top.set_axis_off()
top.set_title(f"cell {places[shown] + 1} has a defect; orange: what a center crop keeps")
bottom.barh(list(scores), list(scores.values()))
bottom.set(xlabel="accuracy, 5 folds", xlim=(0.4, 1))
bottom.invert_yaxis()
figure.suptitle("One row for several photographs, and wide ones")
plt.show()
