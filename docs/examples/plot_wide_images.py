"""
Wide images, and several images for each row
============================================

Most networks were trained on the center of square images. What lies at the margin of a wide image
is then never seen: `Preprocessing` changes that, as a parameter of the search. `ImageReader` pools
several images to one row, here two views of an object.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_featx import ImageReader, Preprocessing, PretrainedFeatureExtractor

# %%
# Wide images: every second one has a bright mark at its right margin.
rng = np.random.default_rng(0)
X = rng.integers(0, 100, (40, 32, 128, 3), dtype=np.uint8)
y = np.arange(40) % 2
X[y == 1, 8:24, -16:] = 250

# %%
# The geometry is a parameter like any other.
extractor = PretrainedFeatureExtractor(layer="blocks.2", preprocessing=Preprocessing(image_size=32))
search = GridSearchCV(
    make_pipeline(extractor, LogisticRegression(max_iter=1000)),
    {"pretrainedfeatureextractor__preprocessing__crop_mode": ["center", "squash", "border"]},
    cv=4,
).fit(X, y)
modes = search.cv_results_["param_pretrainedfeatureextractor__preprocessing__crop_mode"]
accuracies = search.cv_results_["mean_test_score"]
for mode, accuracy in zip(modes, accuracies, strict=True):
    print(f"{mode:<6} {accuracy:.2f}")

# %%
# Two images for each row. Each is cached alone; the row is the mean and the maximum of theirs.
pairs = [list(pair) for pair in X.reshape(20, 2, *X.shape[1:])]
pooled = PretrainedFeatureExtractor(
    preprocessing=Preprocessing(image_size=32, crop_mode="squash"),
    reader=ImageReader(bag_pooling="mean+max"),
).fit_transform(pairs)
print(pooled.shape)

figure, ax = plt.subplots(figsize=(5, 2.5), layout="constrained")
ax.barh(list(modes), accuracies)
ax.set_xlabel("accuracy of cross-validation")
plt.show()
