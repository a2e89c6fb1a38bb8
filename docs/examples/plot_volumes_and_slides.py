"""
Slices of a volume, tiles of a slide
====================================

A volume or a whole-slide image is too large to be one image. :func:`sklearn_featx.slices` and
:func:`sklearn_featx.tiles` list its parts as entries of X; a part is read when its features are
computed.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel
import tifffile
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_image
from sklearn.metrics.pairwise import cosine_similarity

from sklearn_featx import ImageReader, PretrainedFeatureExtractor, slices, tiles

# %%
# A volume
# --------
# The magnetic resonance image of a head comes with nibabel. Each slice is a row. Such values have
# no unit: the window says, by its center and width, which are black and white.
path = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
cuts = slices(path, "axial")
window = (15_000, 30_000)
extractor = PretrainedFeatureExtractor(
    layer="all", normalize="layer", image_size=64, reader=ImageReader(window=window)
)
features = extractor.fit_transform(cuts)
print(features.shape)

# %%
# Neighboring slices are alike. The matrix shows how alike each slice is to each other one.
figure, ax = plt.subplots(figsize=(4, 3.5), layout="constrained")
picture = ax.imshow(cosine_similarity(features), cmap="RdBu_r", vmin=-1, vmax=1)
ax.set(xlabel="slice", ylabel="slice", title="cosine similarity")
figure.colorbar(picture)
plt.show()

# %%
# One row for the whole volume: a list of slices is a bag, which the reader pools.
reader = ImageReader(window=window, bag_pooling="mean+max")
volumes = PretrainedFeatureExtractor(image_size=64, reader=reader)
print(volumes.fit_transform([cuts]).shape)

# %%
# A slide
# -------
# A photograph, written as a tiled TIFF, stands in for a slide. With ``mpp=None``, the size of a
# tile is in pixels of the photograph; ``tissue=False`` takes all tiles, not only those with color.
photograph = load_sample_image("flower.jpg")
slide = Path(tempfile.mkdtemp()) / "slide.tif"
tifffile.imwrite(slide, photograph, tile=(64, 64), photometric="rgb")
parts = tiles(slide, 32, mpp=None, tissue=False)
rows = PretrainedFeatureExtractor(layer="blocks.3", image_size=32).fit_transform(parts)
groups = KMeans(3, n_init=5, random_state=0).fit_predict(rows)

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.imshow(photograph)
for part, group in zip(parts, groups, strict=True):
    square = plt.Rectangle((part.x, part.y), part.side, part.side, color=f"C{group}", alpha=0.35)
    ax.add_patch(square)
ax.set_axis_off()
ax.set_title(f"{len(parts)} tiles in 3 groups")
plt.show()
