"""Channels of arrays and files: equal to those sliced by hand, to the bit."""

import io
import pickle
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from sklearn_featx.exceptions import ImageError, InputError
from sklearn_featx.images import Bags, ReadOptions, as_image_collection
from sklearn_featx.images._channels import check_channels, picked

RNG = np.random.default_rng(0)
# (n, h, w, C)
STACKS = RNG.integers(0, 65536, (3, 12, 10, 5)).astype(np.uint16)
FIRST = np.moveaxis(STACKS, 3, 1)


def tiff(array, **options):
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def h5py_array(array, tmp_path):
    h5py = pytest.importorskip("h5py")
    file = h5py.File(tmp_path / "stacks.h5", "w")
    return file.create_dataset("x", data=array, chunks=(2, *array.shape[1:]))


def zarr_array(array, tmp_path):
    zarr = pytest.importorskip("zarr")
    stored = zarr.open(str(tmp_path / "x.zarr"), mode="w", shape=array.shape, dtype=array.dtype)
    stored[:] = array
    return stored


def dask_array(array, tmp_path):
    return pytest.importorskip("dask.array").from_array(array, chunks=(2, *array.shape[1:]))


def memory_map(array, tmp_path):
    np.save(tmp_path / "x.npy", array)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


class Dataset(torch.utils.data.Dataset):
    def __init__(self, array, tmp_path):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, i):
        return self.array[i], 0


HOLDERS = {
    "array": lambda array, _: array,
    "tensor": lambda array, _: torch.tensor(array.astype(np.int32)),
    "list": lambda array, _: list(array),
    "list of tensors": lambda array, _: [torch.tensor(a.astype(np.int32)) for a in array],
    "h5py": h5py_array,
    "zarr": zarr_array,
    "dask": dask_array,
    "memory map": memory_map,
    "dataset": Dataset,
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("channels", [[0, 2, 4], [4, 0, 1], [3]])
def test_a_list_is_a_slice_by_hand(holder, first, channels, tmp_path):
    X = HOLDERS[holder](FIRST if first else STACKS, tmp_path)
    options = {"value_range": (0, 65535)} if "tensor" in holder else {}
    images = as_image_collection(X, ReadOptions(channels=channels, **options))
    by_hand = as_image_collection(STACKS[..., channels])
    for i in range(3):
        np.testing.assert_array_equal(images.load(i), by_hand.load(i))
        assert images.load(i).dtype == by_hand.load(i).dtype
        if "tensor" not in holder:
            assert images.digest(i) == by_hand.digest(i)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("holder", HOLDERS)
def test_each_channel_is_a_gray_image(holder, first, tmp_path):
    X = HOLDERS[holder](FIRST if first else STACKS, tmp_path)
    options = {"value_range": (0, 65535)} if "tensor" in holder else {}
    bags = as_image_collection(X, ReadOptions(channels="each", **options))
    assert isinstance(bags, Bags)
    assert (len(bags), len(bags.images), bags.n_channels) == (3, 15, 5)
    chosen = bags.take([2, 0])
    if holder not in ("h5py", "dask", "dataset"):
        chosen = pickle.loads(pickle.dumps(chosen))
    gray = as_image_collection(STACKS[..., 3])
    for i, row in enumerate([2, 0]):
        np.testing.assert_array_equal(chosen.images.load(5 * i + 3), gray.load(row))
        if "tensor" not in holder:
            assert chosen.images.digest(5 * i + 3) == gray.digest(row)


FILES = {
    "OME, pages": lambda a: tiff(np.moveaxis(a, 2, 0), ome=True, metadata={"axes": "CYX"}),
    "OME, interleaved": lambda a: tiff(
        a, ome=True, metadata={"axes": "YXS"}, photometric="minisblack", planarconfig="contig"
    ),
    "ImageJ": lambda a: tiff(np.moveaxis(a, 2, 0), imagej=True, metadata={"axes": "CYX"}),
    "interleaved": lambda a: tiff(a, photometric="minisblack", planarconfig="contig"),
    "planes": lambda a: tiff(
        np.moveaxis(a, 2, 0), photometric="minisblack", planarconfig="separate"
    ),
    "compressed planes": lambda a: tiff(
        np.moveaxis(a, 2, 0), photometric="minisblack", planarconfig="separate", compression="zlib"
    ),
    "pages": lambda a: tiff(np.moveaxis(a, 2, 0), photometric="minisblack"),
    "bare pages": lambda a: tiff(np.moveaxis(a, 2, 0), photometric="minisblack", metadata=None),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("channels", [[0, 2, 4], [4, 0, 1], [3]])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint8, np.float32])
def test_a_tiff_is_its_array(kind, channels, dtype, tmp_path):
    array = (STACKS[0] / 65535).astype(dtype) if dtype is np.float32 else STACKS[0].astype(dtype)
    path = tmp_path / "a.tif"
    path.write_bytes(FILES[kind](array))
    by_hand = as_image_collection(array[np.newaxis][..., channels]).load(0)
    for entry in (path, path.read_bytes()):
        images = as_image_collection([entry], ReadOptions(channels=channels))
        np.testing.assert_array_equal(images.load(0), by_hand)
    bags = as_image_collection([path], ReadOptions(channels="each"))
    assert bags.n_channels == 5
    gray = as_image_collection(array[np.newaxis, :, :, 3])
    np.testing.assert_array_equal(bags.images.load(3), gray.load(0))
    one = as_image_collection([path], ReadOptions(channels=[3]))
    assert bags.images.digest(3) == one.digest(0)
    digests = {bags.images.digest(i) for i in range(5)} | {images.digest(0)}
    assert len(digests) == (5 if channels == [3] else 6)


def test_a_tiff_without_channels_names_the_parameter():
    for kind in ("OME, pages", "ImageJ", "interleaved", "planes"):
        images = as_image_collection([FILES[kind](STACKS[0])])
        with pytest.raises(ImageError, match=r"5 channels.*channels='each'"):
            images.load(0)


def test_frames_of_a_stack_are_pages_if_they_are_asked_for():
    data = FILES["pages"](STACKS[0])
    images = as_image_collection([data], ReadOptions(channels=[0], frames=3))
    by_hand = as_image_collection(STACKS[:1, :, :, 3])
    np.testing.assert_array_equal(images.load(0), by_hand.load(0))
    with pytest.raises(ImageError, match="1 channel"):
        as_image_collection([data], ReadOptions(channels=[3], frames=0)).load(0)
    keys = {
        as_image_collection([data], ReadOptions(channels=[0], **frames)).digest(0)
        for frames in ({}, {"frames": 0}, {"frames": 1})
    }
    assert len(keys) == 3


def test_time_and_channels():
    films = RNG.integers(0, 65536, (2, 5, 12, 10)).astype(np.uint16)
    data = tiff(films, ome=True, metadata={"axes": "TCYX"})
    options = ReadOptions(channels="each", frames="all", bag_pooling="mean")
    bags = as_image_collection([data], options)
    assert (len(bags), len(bags.images), bags.n_channels) == (1, 10, 5)
    np.testing.assert_array_equal(bags.images.load(7), as_image_collection(films[1:, 2]).load(0))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1", "P", "CMYK", "I;16", "F"])
def test_pictures(mode):
    gray = STACKS[0, :, :, 0]
    if mode == "I;16":
        picture = Image.fromarray(gray)
    elif mode == "F":
        picture = Image.fromarray((gray / 65535).astype(np.float32))
    else:
        picture = Image.fromarray(STACKS[0, :, :, :3].astype(np.uint8)).convert(mode)
    n_channels = {"RGB": 3, "RGBA": 4, "LA": 2, "P": 3, "CMYK": 3}.get(mode, 1)
    bags = as_image_collection([picture], ReadOptions(channels="each"))
    assert bags.n_channels == n_channels
    last = as_image_collection([picture], ReadOptions(channels=[n_channels - 1]))
    np.testing.assert_array_equal(bags.images.load(n_channels - 1), last.load(0))
    assert bags.images.digest(n_channels - 1) == last.digest(0)
    if mode in ("L", "RGB", "RGBA", "LA", "1"):
        array = np.asarray(picture)
        array = array[..., n_channels - 1] if array.ndim == 3 else array
        np.testing.assert_array_equal(last.load(0), as_image_collection(array[np.newaxis]).load(0))
    if mode in ("L", "RGB", "RGBA"):
        file = BytesIO()
        picture.save(file, "PNG")
        stored = as_image_collection([file.getvalue()], ReadOptions(channels=[n_channels - 1]))
        np.testing.assert_array_equal(stored.load(0), last.load(0))


def test_value_range_and_window():
    options = {"value_range": (0, 70000)}
    images = as_image_collection(STACKS, ReadOptions(channels=[1, 2, 3], **options))
    by_hand = as_image_collection(STACKS[..., 1:4], ReadOptions(**options))
    np.testing.assert_array_equal(images.load(0), by_hand.load(0))
    window = {"window": (30000, 20000)}
    one = as_image_collection(STACKS, ReadOptions(channels=[1], **window))
    gray = as_image_collection(STACKS[..., 1], ReadOptions(**window))
    np.testing.assert_array_equal(one.load(0), gray.load(0))
    assert one.digest(0) == gray.digest(0)


def test_four_channels_are_no_alpha():
    X = STACKS[..., :4].astype(np.uint8)
    chosen = as_image_collection(X, ReadOptions(channels=[0, 1, 2, 3]))
    assert chosen.load(0).shape == (12, 10, 4)
    assert chosen.digest(0) != as_image_collection(X).digest(0)
    pair = as_image_collection(X, ReadOptions(channels=[2, 3])).load(0)
    np.testing.assert_array_equal(pair, X[0][..., 2:])


def test_a_network_of_five_channels_takes_floats_as_they_are():
    X = RNG.normal(size=(2, 5, 12, 10)).astype(np.float32)
    images = as_image_collection(X, ReadOptions(n_channels=5))
    np.testing.assert_allclose(images.load(0) / 255, np.moveaxis(X[0], 0, 2), rtol=1e-6)
    whole = as_image_collection(np.rint(100 * X), ReadOptions(n_channels=5)).load(0)
    np.testing.assert_allclose(whole / 255, np.moveaxis(np.rint(100 * X[0]), 0, 2), rtol=1e-6)
    integers = as_image_collection(STACKS, ReadOptions(n_channels=5))
    np.testing.assert_allclose(integers.load(0) / 255, STACKS[0] / 65535, rtol=1e-6)
    X[1, 0, 0, 0] = np.nan
    with pytest.raises(ImageError, match=r"row 1.*NaN"):
        as_image_collection(X, ReadOptions(n_channels=5))


def test_floats_of_each_channel_have_the_range_of_pictures():
    bright = 3 * RNG.random((5, 12, 10), dtype=np.float32)
    for entry in (bright, tiff(bright, photometric="minisblack")):
        for n_channels in (None, 5):
            options = ReadOptions(channels="each", n_channels=n_channels)
            images = as_image_collection([entry], options).images
            with pytest.raises(ImageError, match="outside the range 0 to 1"):
                images.load(0)


def test_an_image_with_other_channels_than_the_network():
    with pytest.raises(InputError, match=r"\(3, 12, 10\) has no axis of 5 channels"):
        as_image_collection(FIRST[:, :3], ReadOptions(n_channels=5))
    with pytest.raises(ImageError, match="1 channel, and the network reads 5"):
        as_image_collection([STACKS[0, :, :, 0]], ReadOptions(n_channels=5))
    with pytest.raises(InputError, match=r"the network reads 5.*pass X\[None\]"):
        as_image_collection(FIRST[0], ReadOptions(n_channels=5))
    picture = Image.new("RGB", (8, 6))
    with pytest.raises(ImageError, match="3 channels, and the network reads 5"):
        as_image_collection([picture], ReadOptions(n_channels=5)).load(0)


def test_layouts_of_many_channels():
    def shape(lengths, **options):
        return as_image_collection(np.zeros((2, *lengths)), ReadOptions(**options)).load(0).shape

    assert shape((8, 12, 10), channels=[7]) == (12, 10, 1)
    assert shape((12, 10, 8), channels=[7]) == (12, 10, 1)
    assert shape((12, 10, 30), channels=[29], image_shape=(12, 10)) == (12, 10, 1)
    assert shape((30, 12, 10), channels=[29], image_shape=(12, 10)) == (12, 10, 1)
    for lengths in ((12, 12, 12), (12, 3, 10)):
        with pytest.raises(InputError, match=r"is unclear.*image_shape="):
            shape(lengths, channels=[0])
    flat = as_image_collection(
        FIRST.reshape(3, -1), ReadOptions(channels=[0, 2, 4], image_shape=(5, 12, 10))
    )
    by_hand = as_image_collection(STACKS[..., [0, 2, 4]])
    np.testing.assert_array_equal(flat.load(2), by_hand.load(2))


@pytest.mark.parametrize("channels", ["RGB", "all", [], [-1], [0.5], [True], 2, None, [[0]], "012"])
def test_no_channels(channels):
    with pytest.raises(InputError, match="channels="):
        check_channels(channels)


def test_missing_channels():
    with pytest.raises(ImageError, match=r"5 channels, numbered from 0, and channels=\[5\] asks"):
        picked(STACKS[0], (5,))
    with pytest.raises(InputError, match=r"X of shape .*asks for 7"):
        as_image_collection(STACKS, ReadOptions(channels=[0, 7]))
    with pytest.raises(InputError, match="is for pixels"):
        ReadOptions(image_shape=(1, -1), channels=[0])


def test_images_of_different_numbers_of_channels():
    entries = [STACKS[0], STACKS[1, :, :, :4], None, STACKS[2]]
    with pytest.raises(ImageError, match=r"row 1.*4 channels, and others have 5"):
        as_image_collection(entries[:2], ReadOptions(channels="each"))
    with pytest.raises(InputError, match="4 channels, and others have 5"):
        as_image_collection(STACKS[..., :4], ReadOptions(channels="each", n_channels=5))
    bags = as_image_collection(entries, ReadOptions(channels="each", on_error="nan"))
    assert (len(bags), len(bags.images)) == (4, 20)
    for image, reason in ((5, "4 channels"), (10, "missing")):
        with pytest.raises(ImageError, match=reason):
            bags.images.load(image)
    np.testing.assert_array_equal(
        bags.images.load(16), as_image_collection(STACKS[2:, :, :, 1]).load(0)
    )


def test_a_random_dataset_is_refused():
    class Random(Dataset):
        def __getitem__(self, i):
            return RNG.random((12, 10, 5)), 0

    bags = as_image_collection(Random(STACKS, None), ReadOptions(channels="each"))
    with pytest.raises(ImageError, match="another image than before"):
        bags.images.load(0)


def test_damaged_files_are_unreadable(tmp_path):
    good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
    good.write_bytes(FILES["ImageJ"](STACKS[0]))
    bad.write_bytes(good.read_bytes()[:300])
    for channels in ("each", [0]):
        options = ReadOptions(channels=channels, on_error="nan")
        images = as_image_collection([bad, good, good, good, tmp_path / "none.tif"], options)
        images = getattr(images, "images", images)
        for i in (0, len(images) - 1):
            with pytest.raises(ImageError, match=r"TIFF|no such file|1 channel"):
                images.load(i)
        np.testing.assert_array_equal(images.load(len(images) // 2).shape[:2], STACKS.shape[1:3])
