"""A folder of pictures, and their features."""

import numpy as np
import pytest
from PIL import Image

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.cli._folder import find_images

NAMES = [
    "Äpfel rot/Boskoop 1.jpg",
    "Äpfel rot/deep/er/Gala.JPEG",
    "梨/二.png",
    "at the top.jpg",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of real files with spaces, capitals and letters of three scripts in their names."""
    folder = tmp_path_factory.mktemp("my pictures ü")
    random = np.random.default_rng(0)
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_bytes(b"not even an image")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "small.jpg").write_bytes(b"likewise")
    return folder


@pytest.fixture(scope="module")
def expected(pictures):
    """The features that the estimator itself computes for the sorted files."""
    paths = [str(pictures / path) for path in find_images(pictures).paths]
    return PretrainedFeatureExtractor(image_size=64).transform(paths)
