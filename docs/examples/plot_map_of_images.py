"""
A map of a data set
===================

Similar images lie near each other on a map of their features. Copies and wrong labels show there,
and are found without looking: copies by the similarity of features, wrong labels by the predictions
of models that have not seen them.

The images are handwritten digits. Some are copied, and the labels of some are changed, so that it
is known what there is to find. Other maps than that of PCA come with ``projection=``, such as
``projection=TSNE()``.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import (
    EmbeddingDisplay,
    PretrainedFeatureExtractor,
    label_issues,
    near_duplicates,
)

rng = np.random.default_rng(0)
images, y = load_digits(n_class=4, return_X_y=True)
X = images[:300].reshape(-1, 8, 8) / 16
y = y[:300]

# %%
# Twelve images come twice, a little darker; fifteen labels are wrong.
X = np.concatenate([X, X[:12] * 0.95])
y = np.concatenate([y, y[:12]])
wrong = rng.choice(np.arange(12, 300), 15, replace=False)
given = y.copy()
given[wrong] = (y[wrong] + rng.integers(1, 4, len(wrong))) % 4

# %%
# The map. Colors are the given labels: a wrong one lies among other colors.
# ``display.to_html("map.html")`` writes a page to zoom and hover in.
extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=48)
display = EmbeddingDisplay.from_estimator(extractor, X, given)
plt.suptitle("Map of the digits by their features")

# %%
# Near duplicates, by a deeper layer. Digits are all alike, so the threshold is higher than the
# default; the pairs of the :class:`sklearn_featx.NearDuplicates` show whether it fits.
deeper = PretrainedFeatureExtractor(layer="blocks.4", image_size=48)
copies = near_duplicates(deeper, X, threshold=0.975)
found = sum((int(i), int(j)) in {(k, 300 + k) for k in range(12)} for i, j in copies.pairs)
print(f"{len(copies.pairs)} pairs, {found} of the 12 copies among them")

# %%
# Groups keep copies in one fold: a model is never asked about an image that it has seen.
model = make_pipeline(extractor, StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
folds = GroupKFold(5).split(X, given, copies.groups)
probabilities = cross_val_predict(model, X, given, cv=folds, method="predict_proba")

# %%
# The labels that are most probably wrong come first in the :class:`sklearn_featx.LabelIssues`.
issues = label_issues(given, probabilities)
first = issues.order[: len(wrong)]
print(
    f"{np.isin(wrong, first).sum()} of {len(wrong)} wrong labels are among the first {len(wrong)}"
)

figure, axes = plt.subplots(1, 6, figsize=(9, 2), layout="constrained")
for ax, i in zip(axes, first, strict=False):
    ax.imshow(X[i], cmap="gray")
    ax.set_title(f"{given[i]}, rather {issues.suggested[i]}", fontsize="small")
    ax.set_axis_off()
plt.suptitle("Labels that are probably wrong")
plt.show()
