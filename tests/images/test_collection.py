import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ImageCollection, ReadOptions, as_image_collection


class Doubled:
    """A dataset."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return Image.new("L", (4, 3), 2 * i), "label"


def opened(file, request):
    """A picture that Pillow has not loaded yet."""
    picture = Image.open(file)
    request.addfinalizer(picture.close)
    return picture


@pytest.fixture(
    params=["paths", "bytes", "pictures", "arrays", "block", "table", "values", "dataset"]
)
def images(request, files):
    pixels = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 6), np.uint8)
    return {
        "paths": lambda: as_image_collection(files),
        "bytes": lambda: as_image_collection([Path(file).read_bytes() for file in files]),
        "pictures": lambda: as_image_collection([opened(file, request) for file in files]),
        "arrays": lambda: as_image_collection(list(pixels)),
        "block": lambda: as_image_collection(pixels),
        "table": lambda: as_image_collection(
            pixels.reshape(10, 24), ReadOptions(image_shape=(4, 6))
        ),
        "values": lambda: as_image_collection(
            pixels.reshape(10, 24), ReadOptions(image_shape=(1, -1))
        ),
        "dataset": lambda: as_image_collection(Doubled(10)),
    }[request.param]()


def contents(images):
    rows = range(len(images))
    return [(images.load(i).tolist(), images.digest(i), images.path(i)) for i in rows]


def facts(images):
    return images.kind, images.n_features, images.item_shape


def test_the_contract(images):
    assert isinstance(images, ImageCollection)
    for i in range(len(images)):
        item = images.load(i)
        if images.kind == "pixels":
            assert item.dtype == np.uint8
            assert item.ndim == 3
            assert item.shape[2] in (1, 3)
        else:
            assert item.dtype == np.float32
            assert item.shape == images.item_shape
    assert len({images.digest(i) for i in range(len(images))}) == len(images)


@pytest.mark.parametrize(
    "rows", [[3, 0, 0], np.array([4]), slice(1, None, 2), [], range(2), np.arange(3) > 0]
)
def test_take(images, rows):
    if isinstance(rows, np.ndarray) and rows.dtype == bool:
        rows = np.arange(len(images)) % 2 > 0
    index = np.arange(len(images))[
        rows if not isinstance(rows, list | range) else np.array(rows, int)
    ]
    taken = images.take(rows)
    whole = contents(images)
    assert contents(taken) == [whole[i] for i in index]
    assert facts(taken) == facts(images)
    twice = taken.take(slice(None, None, -1))
    assert contents(twice) == [whole[i] for i in index][::-1]


def test_pickle(images):
    images = images.take([2, 1])
    back = pickle.loads(pickle.dumps(images))
    assert [c[:2] for c in contents(back)] == [c[:2] for c in contents(images)]
    assert facts(back) == facts(images)


def test_a_pickle_holds_the_rows_taken_alone():
    images = as_image_collection(np.zeros((1000, 10, 10), np.uint8))
    assert len(pickle.dumps(images.take([5]))) < 2000
    assert len(images.take([5]).take([0])) == 1


def test_taking_rows_copies_no_pixels():
    pixels = np.zeros((10, 8, 8, 3), np.uint8)
    images = as_image_collection(pixels)
    assert np.shares_memory(images.take([4, 2]).load(0), pixels)


def test_reading_in_threads(images):
    rows = list(range(len(images))) * 8
    alone = contents(images)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda i: images.load(i).tolist(), rows))
        digests = list(pool.map(images.digest, rows))
    assert loaded == [alone[i][0] for i in rows]
    assert digests == [alone[i][1] for i in rows]


def test_one_opened_picture_in_many_rows_and_threads(files):
    with Image.open(files[0]) as picture, ThreadPoolExecutor(8) as pool:
        images = as_image_collection([picture] * 50)
        assert len(set(pool.map(images.digest, range(50)))) == 1


def test_equal_content_has_one_digest(files, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(files[0]).read_bytes())
    images = as_image_collection([*files, copy])
    assert images.digest(0) == images.digest(5)
    pixels = np.zeros((3, 4, 5, 3), np.uint8)
    block, items = as_image_collection(pixels), as_image_collection(list(pixels))
    assert {block.digest(i) for i in range(3)} == {items.digest(0)}


@pytest.mark.parametrize("ask", ["load", "digest"])
def test_errors_carry_row_and_path(files, ask):
    images = as_image_collection(files)
    Path(files[3]).unlink()
    with pytest.raises(ImageError, match=r"row 3 .*FileNotFoundError") as caught:
        getattr(images, ask)(3)
    assert (caught.value.row, caught.value.path) == (3, files[3])
    assert isinstance(caught.value.__cause__, OSError)


def test_arrays_in_a_list_are_checked_when_loaded():
    images = as_image_collection([np.zeros((2, 2)), np.full((2, 2), 9.0)])
    with pytest.raises(ImageError, match="row 1: values run from 9 to 9"):
        images.load(1)
