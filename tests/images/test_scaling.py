import re

import numpy as np
import pytest

from sklearn_featx.exceptions import ImageError, InputError
from sklearn_featx.images import _scaling
from sklearn_featx.images._scaling import (
    check_rows,
    check_value_range,
    check_values,
    effective_range,
    over_white,
    to_levels,
)

LEVELS = np.arange(256)


@pytest.mark.parametrize(
    ("values", "value_range"),
    [
        (LEVELS.astype(np.uint8), None),
        (LEVELS.astype(np.int64), None),
        (LEVELS.astype(np.uint32), None),
        ((LEVELS * 257).astype(np.uint16), None),
        ((LEVELS / 255).astype(np.float16), None),
        ((LEVELS / 255).astype(np.float32), None),
        (LEVELS / 255, None),
        (LEVELS / 127.5 - 1, (-1, 1)),
        (LEVELS.astype(np.int8) * 0 + LEVELS, (0, 255)),
        (LEVELS * 1000 - 500, (-500, 254_500)),
    ],
)
def test_levels(values, value_range):
    limits = effective_range(values.dtype, check_value_range(value_range))
    check_values(values, limits)
    levels = to_levels(values, limits)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, LEVELS)


def test_booleans_are_black_and_white():
    values = np.array([False, True])
    np.testing.assert_array_equal(to_levels(values, effective_range(values.dtype, None)), [0, 255])


def test_uint8_with_a_range_of_its_own():
    values = np.array([0, 8, 16], np.uint8)
    np.testing.assert_array_equal(to_levels(values, (0.0, 16.0)), [0, 127.5, 255])
    with pytest.raises(ImageError, match="from 0 to 16"):
        check_values(values, (0.0, 15.0))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.nan, "NaN"),
        (np.inf, "inf"),
        (-np.inf, "inf"),
        (200.0, r"from 0 to 200, outside the range 0 to 1 .*value_range=\(0, 255\)"),
        (-0.5, r"from -0\.5 to 0, .*value_range=\(low, high\)"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**6])
def test_the_first_bad_row_is_named(monkeypatch, bad, reason, chunk_bytes):
    monkeypatch.setattr(_scaling, "_CHUNK_BYTES", chunk_bytes)
    array = np.zeros((9, 2, 3))
    array[4, 1, 1] = bad
    array[7] = bad
    with pytest.raises(ImageError, match=f"row 4: .*{reason}"):
        check_rows(array, (0.0, 1.0))


def test_good_rows_pass():
    check_rows(np.linspace(0, 1, 60).reshape(10, 2, 3), (0.0, 1.0))
    check_rows(np.full((2, 2, 2), 255, np.uint8), (0.0, 255.0))


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "U3", "O", "V2"])
def test_dtypes_that_hold_no_pixels(dtype):
    with pytest.raises(ImageError, match=r"Complex data not supported|does not hold pixels"):
        effective_range(np.dtype(dtype), None)


@pytest.mark.parametrize(
    "value_range", [(1, 0), (0, 0), (0, np.inf), (np.nan, 1), 5, "ab", (0, 1, 2), (None, 1)]
)
def test_no_value_range(value_range):
    with pytest.raises(InputError, match="value_range="):
        check_value_range(value_range)


def test_over_white_is_exact():
    color, alpha = (axis.astype(np.uint8) for axis in np.meshgrid(LEVELS, LEVELS))
    share = alpha / 255
    wanted = np.floor(color * share + 255 * (1 - share) + 0.5)
    mixed = over_white(color[:, :, None], alpha[:, :, None])[:, :, 0]
    assert np.abs(mixed - wanted).max() <= 1
    assert (mixed != wanted).mean() < 0.01


@pytest.mark.parametrize(
    ("smallest", "largest", "limits", "wanted"),
    [
        (-0.8, 1.8, (0.0, 1.0), "(-0.8, 1.8)"),
        (-0.8, 1.8, (0.0, 255.0), "(-0.8, 1.8)"),
        (0, 15, (0.0, 1.0), "(0, 15)"),
        (-1024, 3071, (0.0, 255.0), "(-1024, 3071)"),
        (-1 / 3, 2 / 3, (0.0, 1.0), "(-0.334, 0.667)"),
        (1e-9, 1234567.25, (0.0, 1.0), "(1e-09, 1235000)"),
        (-1e-6, 2e-6, (1.0, 2.0), "(-1e-06, 2e-06)"),
        (0, 300, (0.0, 255.0), "(0, 300)"),
        (0, 200, (0.0, 1.0), "(0, 255)"),
        (100, 120, (0.0, 1.0), "(100, 120)"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_range_of_a_message_holds_the_values(smallest, largest, limits, wanted, dtype):
    values = np.array([[smallest, largest]], dtype).reshape(1, 2, 1)
    for check in (check_values, check_rows):
        with pytest.raises(ImageError) as error:
            check(values, limits)
        text = str(error.value)
        assert f"from {smallest:g} to {largest:g}, outside" in text
        found = re.search(r"for example value_range=\((.*), (.*)\)", text)
        if dtype == np.float64 or wanted[1:-1].replace(", ", "").isdigit():
            assert found[0].endswith(wanted)
        # Following the message leads to no other one.
        check(values, (float(found[1]), float(found[2])))


def test_the_range_of_a_message_holds_all_rows():
    X = np.stack([np.linspace(0, last, 16).reshape(4, 4) for last in (1, 15, 16)])
    with pytest.raises(ImageError, match=r"row 1: .* 0 to 15, .*=\(0, 16\), which holds all of X"):
        check_rows(X, (0.0, 1.0))


def test_one_value_and_broken_rows_have_no_example():
    X = np.full((2, 4, 4), 7.0)
    for rows in (X, np.concatenate([X, [np.full((4, 4), np.inf)], [np.full((4, 4), np.nan)]])):
        with pytest.raises(ImageError, match=r"the values of black and white\.$"):
            check_rows(rows, (0.0, 1.0))
