import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions
from sklearn_featx.images._entries import as_item

PIXELS = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize("kind", [str, Path, np.str_])
def test_paths(files, kind):
    item = as_item(kind(files[1]), 0)
    assert item.path == files[1]
    assert type(item.path) is str
    assert item.load().shape == (6, 9, 3)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(files, kind):
    content = Path(files[1]).read_bytes()
    item = as_item(kind(content), 0)
    assert item.path is None
    assert item.digest() == as_item(files[1], 3).digest()
    np.testing.assert_array_equal(item.load(), as_item(files[1], 0).load())


def test_pictures(files):
    item = as_item(Image.fromarray(PIXELS), 0)
    assert item.path is None
    np.testing.assert_array_equal(item.load(), PIXELS)
    assert item.digest() == as_item(PIXELS, 0).digest()
    with Image.open(files[0]) as opened:
        # It need not show its file any more: only files that are read are looked up by their path.
        assert as_item(opened, 0).path is None


@pytest.mark.parametrize(
    "entry",
    [
        PIXELS,
        PIXELS.transpose(2, 0, 1),
        PIXELS / 255,
        torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()),
        torch.from_numpy(PIXELS.transpose(2, 0, 1) / 255).requires_grad_(),
        PIXELS.tolist(),
    ],
)
def test_arrays(entry):
    np.testing.assert_array_equal(as_item(entry, 0).load(), PIXELS)


def test_four_channels_are_rgba():
    rgba = np.dstack([PIXELS, np.full((4, 5), 51, np.uint8)])
    wanted = as_item(Image.fromarray(rgba), 0).load()
    np.testing.assert_array_equal(as_item(rgba, 0).load(), wanted)
    first, options = rgba.transpose(2, 0, 1), ReadOptions(image_shape=(4, 4, 5))
    np.testing.assert_array_equal(as_item(first, 0, options).load(), wanted)
    with pytest.raises(ImageError, match=r"four channels first.*channels='each'"):
        as_item(first, 0)


def test_flat_rows_with_a_shape():
    item = as_item(np.arange(6), 0, ReadOptions(image_shape=(2, 3)))
    np.testing.assert_array_equal(item.load()[:, :, 0], [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ImageError, match=r"row 7: 6 values do not fill image_shape=\(2, 2\)"):
        as_item(np.arange(6), 7, ReadOptions(image_shape=(2, 2)))


def test_values_are_checked_when_loaded():
    item = as_item(np.full((2, 2), 7.0), 0)
    with pytest.raises(ImageError, match="from 7 to 7"):
        item.load()
    assert as_item(np.full((2, 2), 7.0), 0, ReadOptions(value_range=(0, 7))).load()[0, 0, 0] == 255


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_entries(missing):
    with pytest.raises(ImageError, match="row 3: the entry is missing"):
        as_item(missing, 3)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (5, "int is not an image"),
        ({"image": 1}, "mapping without an image"),
        (np.zeros((2, 2), complex), "Complex data not supported"),
        (np.array([b"a"]), "does not hold pixels"),
        ([[1, 2], [3]], "nested list"),
        (np.zeros((2, 3, 4, 3)), "has 4"),
        (np.zeros((3, 5, 3)), "ambiguous"),
        (np.zeros(5), "has 1"),
        ("nothing://bucket/cat.jpg", "the scheme 'nothing' is unknown"),
        ("no/such/file.jpg", "no such file"),
        ("nul\0byte.jpg", "cannot be reached"),
        ("x" * 5000, "cannot be reached"),
    ],
)
def test_what_is_no_item(entry, reason):
    with pytest.raises(ImageError, match=f"row 3.*{reason}") as caught:
        as_item(entry, 3)
    assert caught.value.row == 3
    assert caught.value.path == (entry if isinstance(entry, str) else None)


def test_folders_and_pipes_are_no_files(tmp_path):
    with pytest.raises(ImageError, match=r"row 1 .*is a folder.*rglob"):
        as_item(tmp_path, 1)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ImageError, match="not a regular file"):
            as_item(tmp_path / "pipe", 1)


def test_the_digest_is_of_content_alone():
    digests = {
        as_item(entry, 0, ReadOptions(value_range=value_range)).digest()
        for entry, value_range in [
            (PIXELS, None),
            (PIXELS.astype(np.int32), None),
            (PIXELS, (0, 100)),
            (PIXELS[::-1], None),
            (PIXELS.reshape(5, 4, 3), None),
        ]
    }
    assert len(digests) == 5
    same = [PIXELS.copy(), np.asfortranarray(PIXELS), PIXELS.transpose(2, 0, 1)]
    assert {as_item(entry, 9).digest() for entry in same} == {as_item(PIXELS, 0).digest()}
    assert (
        as_item(PIXELS, 0, ReadOptions(value_range=(0.0, 255.0))).digest()
        == as_item(PIXELS, 0).digest()
    )


def test_damaged_pictures_are_named(files, tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(Path(files[0]).read_bytes()[:-30])
    with Image.open(path) as opened, pytest.raises(ImageError, match="cannot be decoded") as caught:
        as_item(opened, 0).load()
    assert caught.value.path == str(path)


def test_pictures_respect_the_limit_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        as_item(Image.new("L", (2, 2)), 0).load()
