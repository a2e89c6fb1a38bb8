"""
Microscopy with five channels
=============================

A network for pictures reads three channels, and a microscope records more. Here each image is an
OME-TIFF of five channels. Three are real: a tissue section in bright field [1]_ and two stains of
it. Two are drawn: markers of spots and of fibers. The class says which marker shows the spots, as
after a treatment that moves a protein. One of the two, by chance, stays dark, so neither of them is
enough.

.. [1] ``skimage.data.immunohistochemistry``, colonic glands stained for FHL2, without known
   copyright restrictions. scikit-image's ``rgb2hed`` unmixes the stains. The markers are not real.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry
from skimage.filters import gaussian
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import ImageReader, PretrainedFeatureExtractor
from sklearn_featx.exceptions import ImageError

NAMES = ["bright field", "hematoxylin", "DAB", "marker 1", "marker 2"]

# %%
# 120 tiles of the section, as files of five channels of 16 bits.
rng = np.random.default_rng(0)
section = immunohistochemistry()
hematoxylin, _, dab = np.moveaxis(rgb2hed(section), 2, 0)
real = np.stack([section.mean(axis=2), hematoxylin, dab])
low, high = np.percentile(real, [0.5, 99.5], axis=(1, 2), keepdims=True)
real = ((real - low) / (high - low)).clip(0, 1)


def marker(of_spots, is_dark):
    """Draw spots or fibers with the noise of a camera, or the noise alone."""
    points = rng.random((64, 64)) < 0.015 if of_spots else rng.random((64, 64)) - 0.5
    drawn = gaussian(points.astype(float), 1.5 if of_spots else (0.7, 8))
    drawn = (drawn - drawn.min()) / np.ptp(drawn) * (not is_dark)
    return (drawn + rng.normal(0.2, 0.15, drawn.shape)).clip(0, 1)


y = np.arange(120) % 2
folder = tempfile.TemporaryDirectory()
paths = [Path(folder.name) / f"{i:03}.ome.tif" for i in range(120)]
darks = rng.integers(0, 2, 120)
for path, label, dark in zip(paths, y, darks, strict=True):
    row, column = rng.integers(0, 512 - 64, 2)
    markers = [marker(label == 0, dark == 0), marker(label == 1, dark == 1)]
    stack = np.stack([*real[:, row : row + 64, column : column + 64], *markers])
    tifffile.imwrite(path, (stack * 65535).astype(np.uint16), metadata={"axes": "CYX"})

# %%
# ``channels`` of an `ImageReader` says what the network sees: some channels as red, green and blue,
# one as a gray image, or each of them alone. Without it, an error asks for a choice.
extractor = PretrainedFeatureExtractor(image_size=64, layer="blocks.2")
try:
    extractor.fit_transform(paths)
except ImageError as error:
    print(error.reason)

each = extractor.set_params(reader=ImageReader(channels="each"))
features = each.set_output(transform="pandas").fit_transform(paths)
print(features.shape, features.columns[0], "...", features.columns[-1])

# %%
# A search compares. ``[0, 1, 2]`` is the real tissue, which knows nothing of the markers. The rows
# of ``[3]`` are found among those of ``"each"``: every channel is computed once.
model = make_pipeline(
    PretrainedFeatureExtractor(image_size=64, layer="blocks.2", reader=ImageReader()),
    StandardScaler(),
    LogisticRegression(C=0.01, max_iter=1000),
)
choices = ["each", [2, 3, 4], [3], [0, 1, 2]]
search = GridSearchCV(model, {"pretrainedfeatureextractor__reader__channels": choices}, cv=5)
search.fit(paths, y)
for choice, score in zip(choices, search.cv_results_["mean_test_score"], strict=True):
    print(f"{choice!s:<10} {score:.2f}")

# %%
# A linear model on ``"each"`` weighs the channels. The bars are the Euclidean norms of its weights
# for each channel.
weights = search.best_estimator_[-1].coef_.reshape(-1)
lengths = np.zeros(5)
if search.best_params_["pretrainedfeatureextractor__reader__channels"] == "each":
    lengths = np.linalg.norm(weights.reshape(5, -1), axis=1)

figure = plt.figure(figsize=(8, 5.4), layout="constrained")
top, bottom = figure.subfigures(2, height_ratios=[2, 1])
axes = top.subplots(2, 5)
for line in (0, 1):
    # Marker 1 shows spots in class 0 and fibers in class 1.
    shown = np.flatnonzero((y == line) & (darks == 1))[0]
    for axis, channel, name in zip(axes[line], tifffile.imread(paths[shown]), NAMES, strict=True):
        axis.imshow(channel, cmap="gray")
        axis.set(xticks=[], yticks=[], title=name if line == 0 else "")
    axes[line, 0].set_ylabel(f"class {line}")
left, right = bottom.subplots(1, 2)
left.barh([str(choice) for choice in choices], search.cv_results_["mean_test_score"])
left.axvline(0.5, color="black", linewidth=1)
left.set(xlabel="accuracy, 5 folds", xlim=(0, 1))
left.invert_yaxis()
right.barh(NAMES, lengths)
right.set_xlabel("weight")
right.invert_yaxis()
figure.suptitle("Five channels, what each choice gives, and what a model weighs")
plt.show()
folder.cleanup()
