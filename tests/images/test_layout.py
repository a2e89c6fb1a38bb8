import numpy as np
import pytest

from sklearn_featx.exceptions import ImageError, InputError
from sklearn_featx.images._layout import as_channels_last, check_image_shape, choose_layout


@pytest.mark.parametrize(
    ("shape", "image_shape", "layout"),
    [
        ((8, 6), None, "HW"),
        ((8, 6), (8, 6), "HW"),
        ((8, 6), (8, 6, 1), "HW"),
        ((8, 6, 3), None, "HWC"),
        ((8, 6, 4), (8, 6), "HWC"),
        ((4, 6, 3), None, "HWC"),
        ((4, 4, 4), None, "HWC"),
        ((4, 8, 6), (8, 6), "CHW"),
        ((3, 8, 6), None, "CHW"),
        ((3, 8, 6), (8, 6), "CHW"),
        ((3, 8, 6), (3, 8, 6), "CHW"),
        ((3, 8, 6), (8, 6, 3), "CHW"),
        ((1, 1, 1), None, "HWC"),
        ((3, 5, 3), (3, 5), "HWC"),
        ((3, 5, 3), (5, 3), "CHW"),
        ((3, 5, 3), (3, 5, 3), "HWC"),
    ],
)
def test_layout(shape, image_shape, layout):
    assert choose_layout(shape, image_shape) == layout
    assert as_channels_last(np.zeros(shape), layout).ndim == 3


@pytest.mark.parametrize(
    ("shape", "image_shape", "reason"),
    [
        ((3, 5, 3), None, r"ambiguous.*image_shape=\(3, 5\).*image_shape=\(5, 3\)"),
        ((3, 3, 3), (3, 3), "ambiguous"),
        ((1, 1, 3), None, "ambiguous"),
        ((5, 5, 5), None, r"no axis of 1, 3 or 4.*Of slices, pass list\(array\)"),
        ((5, 8, 6), None, "channels='each'"),
        ((8, 6, 2), None, "channels='each'"),
        ((4, 8, 6), None, r"four channels first.*channels='each'.*image_shape=\(4, 8, 6\)"),
        ((8, 6, 3), (6, 8), "does not match"),
        ((8, 6), (6, 8), "does not match"),
        ((2, 8, 6, 3), None, "has 4"),
        ((5,), None, "has 1"),
        ((), None, "has 0"),
        ((0, 5), None, "no pixels"),
    ],
)
def test_no_layout(shape, image_shape, reason):
    with pytest.raises(ImageError, match=reason):
        choose_layout(shape, image_shape)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3), (3, 8, 6), (1, -1), (4, -1), [8, 6]])
def test_image_shapes(shape):
    assert check_image_shape(shape) == tuple(shape)
    assert check_image_shape(np.array(shape)) == tuple(shape)


@pytest.mark.parametrize(
    "shape",
    [8, "ab", (8,), (8, 0), (-1, 8), (8, 6, 0), (8.0, 6), (1, 1, -1), (2, 3, 3, 3), (0, -1)],
)
def test_no_image_shape(shape):
    with pytest.raises(InputError, match="image_shape="):
        check_image_shape(shape)
