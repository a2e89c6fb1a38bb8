"""Pictures as files, and what people hold of them, for the tests of containers and of columns."""

import base64
import zipfile

import pytest
from PIL import Image


def write_pictures(folder, arrays):
    """Write PNG files, and an archive of them beside their folder; return their paths."""
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(len(arrays))]
    for path, pixels in zip(paths, arrays, strict=True):
        Image.fromarray(pixels).save(path)
    with zipfile.ZipFile(archive_of(paths), "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    return paths


def archive_of(files):
    return files[0].parent.parent / "all.zip"


def contents(files):
    return [path.read_bytes() for path in files]


def base64_of(files):
    return [base64.b64encode(data).decode() for data in contents(files)]


def addresses(files):
    pytest.importorskip("fsspec")
    return [f"zip://{path.name}::{archive_of(files)}" for path in files]


def members(files):
    archive = zipfile.ZipFile(archive_of(files))
    return [archive.open(path.name) for path in files]
