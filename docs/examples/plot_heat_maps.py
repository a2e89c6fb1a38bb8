"""
Where does a score come from?
=============================

For a linear model on pooled features, each position of the image has an exact share of the score,
also through scalers and PCA. The shares of a map and its intercept sum to the score.
"""

from importlib.resources import files

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_featx import HeatMapDisplay, PretrainedFeatureExtractor, heat_maps

folder = files("elpv_dataset") / "data"
cells = pd.read_csv(folder / "labels.csv", sep=r"\s+", names=["path", "defect", "type"])
cells = cells[cells["defect"].isin([0, 1])].groupby("defect").sample(100, random_state=0)
paths = np.array([str(folder / path) for path in cells["path"]])
labels = np.where(cells["defect"] == 1, "defect", "intact")
train, test, y_train, y_test = train_test_split(paths, labels, stratify=labels, random_state=0)

# %%
# The pipeline has a PCA between features and classifier, as yours may have.
model = make_pipeline(
    PretrainedFeatureExtractor(layer=["blocks.1", "blocks.3"], normalize="layer", image_size=128),
    PCA(60, random_state=0),
    LogisticRegression(C=0.1, max_iter=1000),
)
accuracy = model.fit(train, y_train).score(test, y_test)
print(f"accuracy {accuracy:.3f}, one split, {len(test)} test images")

# %%
# ``heat_maps`` returns :class:`sklearn_featx.HeatMaps`: arrays in the unit of the score. ``exact``
# means that nothing was sampled or approximated.
defects = test[y_test == "defect"][:8]
found = heat_maps(model, defects, target="defect")
print(found.method, found.maps.shape)
error = found.maps.sum((1, 2)) + found.intercept
sign = 1 if model.classes_[1] == "defect" else -1
print(np.allclose(error, sign * model.decision_function(defects), atol=1e-3))

# %%
# Red raises the score of "defect", blue lowers it. ``view="file"`` would draw the whole pictures.
# `Can the maps be trusted? <../seeing.html#can-the-maps-be-trusted>`__
HeatMapDisplay.from_estimator(model, defects, target="defect")
plt.suptitle("What speaks for a defect")
plt.show()
