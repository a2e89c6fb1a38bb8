"""
Why this prediction?
====================

The score of a linear model is a sum over its training images: some speak for a class, some against
it. Wrong predictions often have a reason that one can see there.
"""

from importlib.resources import files

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_featx import NeighborsDisplay, PretrainedFeatureExtractor, nearest_images

folder = files("elpv_dataset") / "data"
cells = pd.read_csv(folder / "labels.csv", sep=r"\s+", names=["path", "defect", "type"])
cells = cells[cells["defect"].isin([0, 1])].groupby("defect").sample(100, random_state=0)
paths = np.array([str(folder / path) for path in cells["path"]])
labels = np.where(cells["defect"] == 1, "defect", "intact")
train, test, y_train, y_test = train_test_split(paths, labels, stratify=labels, random_state=0)

model = make_pipeline(
    PretrainedFeatureExtractor(layer="all", normalize="layer", image_size=128),
    LogisticRegression(max_iter=1000),
)
predicted = model.fit(train, y_train).predict(test)
print(f"accuracy {np.mean(predicted == y_test):.3f}")

# %%
# Two images that the model gets wrong with high confidence.
confidence = np.abs(model.decision_function(test))
wrong = np.flatnonzero(predicted != y_test)
wrong = wrong[np.argsort(-confidence[wrong])][:2]
print(paths.shape, predicted[wrong], y_test[wrong])

# %%
# ``nearest_images`` returns :class:`sklearn_featx.NearestImages`. Its values sum to the score.
near = nearest_images(model, test[wrong], train, y_train)
score = near.values.sum(axis=1) + near.intercept
print(np.round(score, 2), np.round(model.decision_function(test[wrong]), 2))

# %%
# Left the image, then the training images that raise its score most, and those that lower it most.
# Cells of one pattern look alike, whatever their label: an image with a positive number and one
# with a negative number may hardly differ. There the label may be doubtful, or the defect too small
# for the network at this size.
NeighborsDisplay.from_estimator(model, test[wrong], train, y_train, n_neighbors=6)
plt.suptitle("Two wrong predictions, and the training images that speak for them or against them")
plt.show()
