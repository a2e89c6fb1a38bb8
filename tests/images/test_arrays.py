import numpy as np
import pytest

from sklearn_featx.exceptions import ImageError, InputError
from sklearn_featx.images import ReadOptions, as_image_collection

RGB = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("X", "wanted"),
    [
        (RGB, RGB),
        (RGB.transpose(0, 3, 1, 2), RGB),
        (RGB / 255, RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        (RGB.astype(int), RGB),
        (RGB[..., 0], RGB[..., :1]),
        (RGB[..., :1], RGB[..., :1]),
        (RGB[:, None, :, :, 0], RGB[..., :1]),
        (RGB[:3, :, :, 0], RGB[:3, :, :, :1]),
        (RGB > 100, np.where(RGB > 100, 255, 0)),
    ],
)
def test_batches_of_pixels(X, wanted):
    images = as_image_collection(X)
    assert len(images) == len(wanted)
    assert (images.kind, images.n_features, images.item_shape) == ("pixels", None, None)
    for i, item in enumerate(wanted):
        pixels = images.load(i)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, item)


@pytest.mark.parametrize(
    ("rows", "image_shape"),
    [
        (RGB.reshape(4, -1), (8, 6, 3)),
        (RGB.transpose(0, 3, 1, 2).reshape(4, -1), (3, 8, 6)),
    ],
)
def test_flattened_images(rows, image_shape):
    images = as_image_collection(rows, ReadOptions(image_shape=image_shape))
    assert images.n_features == 144
    np.testing.assert_array_equal(images.load(2), RGB[2])


def test_value_range_of_digits():
    images = as_image_collection(
        np.array([[0.0, 4.0], [8.0, 16.0]]), ReadOptions(image_shape=(1, 2), value_range=(0, 16))
    )
    assert images.load(0).ravel().tolist() == [0, 63.75]
    assert images.load(1).ravel().tolist() == [127.5, 255]


def test_image_shape_decides_an_ambiguous_layout():
    X = np.arange(90, dtype=np.uint8).reshape(2, 3, 5, 3)
    last = as_image_collection(X, ReadOptions(image_shape=(3, 5))).load(1)
    first = as_image_collection(X, ReadOptions(image_shape=(5, 3))).load(1)
    np.testing.assert_array_equal(last, X[1])
    np.testing.assert_array_equal(first, X[1].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("X", "image_shape", "reason"),
    [
        (np.zeros((0, 5)), None, r"Found array with 0 sample\(s\) \(shape=\(0, 5\)\) while a mini"),
        (np.zeros((0, 5, 5, 3)), None, r"Found array with 0 sample\(s\)"),
        (np.zeros((5, 0)), None, r"Found array with 0 feature\(s\) \(shape=\(5, 0\)\) while"),
        (np.zeros((5, 0)), (1, -1), r"Found array with 0 feature\(s\)"),
        (np.zeros((2, 4, 0, 3)), None, "no pixels"),
        (np.zeros(5), None, "Expected 2D array, got 1D array instead"),
        (np.array(5.0), None, "Expected 2D array, got scalar array instead"),
        (np.zeros((5, 64)), None, r"image_shape=\(8, 8\).*\(1, -1\)"),
        (np.zeros((5, 60)), None, r"image_shape=\(H, W\).*\(1, -1\)"),
        (np.zeros((5, 64)), (8, 9), "64 columns.*needs 72"),
        (np.zeros((2, 3, 5, 3)), None, "ambiguous"),
        (np.zeros((20, 30, 3)), None, r"X\[None\].*image_shape=\(30, 3\)"),
        (np.zeros((2, 9, 8, 7)), None, "no axis of 1, 3 or 4"),
        (np.zeros((2, 9, 8, 8, 3)), None, "videos"),
        (np.zeros((1, 2, 9, 8, 8, 3)), None, "has 5"),
        (np.zeros((2, 8, 6, 3)), (6, 8), "does not match"),
        (np.zeros((2, 8, 6)), (6, 8), "does not match"),
        (np.zeros((2, 8, 6), complex), None, "Complex data not supported"),
        (np.zeros((2, 3), complex), (1, -1), "Complex data not supported"),
        (np.zeros((2, 8, 6), "M8[s]"), None, "does not hold pixels"),
        (np.zeros((2, 3, 4)), (1, -1), r"needs X of shape \(n, d\), got \(2, 3, 4\)"),
        (np.zeros((2, 7)), (3, -1), "needs X of shape"),
        (np.zeros((2, 4, 5)), (3, -1), "needs X of shape"),
    ],
)
def test_arrays_that_are_refused(X, image_shape, reason):
    with pytest.raises(InputError, match=reason):
        as_image_collection(X, ReadOptions(image_shape=image_shape))


def test_values_out_of_range_are_refused_at_once():
    X = np.zeros((5, 4, 6))
    X[3, 0, 0] = 16
    with pytest.raises(ImageError, match=r"row 3: values run from 0 to 16.*value_range=") as caught:
        as_image_collection(X)
    assert caught.value.row == 3
    with pytest.raises(ImageError, match="row 1: contains NaN"):
        as_image_collection(np.array([[0.0, 1.0], [np.nan, 0.0]]), ReadOptions(image_shape=(1, 2)))
    with pytest.raises(ImageError, match="row 1: values run from 0 to 300"):
        as_image_collection(np.array([[[0, 9]], [[0, 300]]]))


def test_an_image_given_with_its_shape_is_a_batch_of_gray():
    assert len(as_image_collection(np.zeros((20, 30, 3)), ReadOptions(image_shape=(30, 3)))) == 20


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, bool])
def test_rows_of_plain_numbers(dtype):
    X = np.arange(6).reshape(2, 3).astype(dtype)
    values = as_image_collection(X, ReadOptions(image_shape=(1, -1)))
    assert (values.kind, values.n_features, values.item_shape) == ("values", 3, (3,))
    assert values.load(1).dtype == np.float32
    np.testing.assert_array_equal(values.load(1), X[1])


def test_signals():
    X = np.arange(24.0).reshape(2, 3, 4)
    whole, flat = (
        as_image_collection(given, ReadOptions(image_shape=(3, -1)))
        for given in (X, X.reshape(2, 12))
    )
    assert (whole.n_features, flat.n_features) == (None, 12)
    assert whole.item_shape == flat.item_shape == (3, 4)
    np.testing.assert_array_equal(whole.load(1), X[1])
    assert whole.digest(1) == flat.digest(1)


@pytest.mark.parametrize(("bad", "name"), [(np.nan, "NaN"), (np.inf, "inf"), (1e300, "inf")])
def test_plain_numbers_must_be_finite(bad, name):
    with pytest.raises(ImageError, match=f"row 1: Input X contains .*{name}"):
        as_image_collection(np.array([[0.0], [bad]]), ReadOptions(image_shape=(1, -1)))


def test_plain_numbers_have_no_range():
    with pytest.raises(InputError, match="value_range"):
        as_image_collection(np.zeros((2, 2)), ReadOptions(image_shape=(1, -1), value_range=(0, 1)))
