from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images


@pytest.fixture(scope="session")
def photo():
    """A real photograph, small: 96 x 64 pixels, RGB."""
    return Image.fromarray(load_sample_images().images[0]).resize((96, 64))


@pytest.fixture(scope="session")
def encode():
    """Return a function that writes a picture to the bytes of a file."""

    def to_bytes(picture, file_format, **options):
        file = BytesIO()
        picture.save(file, format=file_format, **options)
        return file.getvalue()

    return to_bytes


@pytest.fixture
def files(tmp_path):
    """Five PNG files of different colors and sizes."""
    paths = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (8 + i, 6), (i * 10, 100, 200)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def in_memory():
    """Return a function that writes files to a folder of fsspec's memory: their addresses."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    folders = []

    def write(folder, files):
        folders.append(folder)
        for name, data in files.items():
            system.pipe_file(f"/{folder}/{name}", data)
        return [f"memory://{folder}/{name}" for name in files]

    yield write
    for folder in folders:
        system.rm(f"/{folder}", recursive=True)
