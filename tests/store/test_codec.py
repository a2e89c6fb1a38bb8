"""A row survives its way to disk exactly, or is recognized as damaged."""

import numpy as np
import pytest

from sklearn_featx.store import _codec
from sklearn_featx.store._codec import check_rows, decode_row, encode_rows, narrow, widen

NAME = b"0123456789abcdef"


def blob_of(row, storage="float32"):
    rows = np.asarray(row)[None]
    code = check_rows(rows, storage)
    return next(encode_rows([NAME], narrow(rows, code), code))


def read(blob, name=NAME):
    layout, values = decode_row(name, blob)
    return widen(values, layout.code).reshape(layout.shape)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64", "int64", "bool", "float16"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (3, 2, 2, 1)])
def test_exact_dtypes_come_back_bit_for_bit(dtype, shape):
    row = np.random.default_rng(0).integers(0, 200, size=shape).astype(dtype)
    back = read(blob_of(row))
    assert back.dtype == row.dtype
    assert back.shape == shape
    assert back.tobytes() == row.tobytes()


def test_every_single_flipped_bit_is_noticed():
    blob = blob_of(np.arange(20, dtype=np.float32).reshape(4, 5))
    for position in range(8 * len(blob)):
        flipped = bytearray(blob)
        flipped[position // 8] ^= 1 << position % 8
        assert decode_row(NAME, bytes(flipped)) is None, position
    for position in range(8 * len(NAME)):
        name = bytearray(NAME)
        name[position // 8] ^= 1 << position % 8
        assert decode_row(bytes(name), blob) is None, position


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:11]])
def test_a_blob_of_another_length_is_no_row(damage):
    assert decode_row(NAME, damage(blob_of(np.ones(4, np.float32)))) is None


@pytest.mark.parametrize("value", [None, 7, 1.5, "text", b""])
def test_what_is_no_blob_is_no_row(value):
    assert decode_row(NAME, value) is None


def test_bfloat16_rounds_to_nearest_even():
    # One, half a step above one (a tie), just over the tie, and the tie above an odd value.
    bits = np.array([0x3F800000, 0x3F808000, 0x3F808001, 0x3F818000], dtype=np.uint32)
    back = read(blob_of(bits.view(np.float32), "bfloat16")).view(np.uint32)
    assert [hex(b) for b in back] == ["0x3f800000", "0x3f800000", "0x3f810000", "0x3f820000"]


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_special_values_stay_special(storage):
    row = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0], dtype=np.float32)
    back = read(blob_of(row, storage))
    np.testing.assert_array_equal(back, row)
    assert np.signbit(back[3])


def test_bfloat16_keeps_nan_whose_mantissa_would_carry():
    row = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], dtype=np.uint32).view(np.float32)
    assert np.isnan(read(blob_of(row, "bfloat16"))).all()


def test_float16_beyond_its_range_is_infinite_without_a_warning():
    assert np.isinf(read(blob_of(np.array([1e6], np.float32), "float16"))).all()


def test_rows_in_another_byte_order_and_layout():
    row = np.arange(6, dtype=">f4").reshape(2, 3).T
    np.testing.assert_array_equal(read(blob_of(row)), row)


@pytest.mark.parametrize("dtype", ["complex64", "object", "U3", "int32"])
def test_other_dtypes_are_refused_by_name(dtype):
    with pytest.raises(ValueError, match="expected one of bool, float16"):
        check_rows(np.zeros((2, 2), dtype=dtype), "float32")


def test_too_many_axes_are_refused():
    with pytest.raises(ValueError, match="at most 8 axes, got 9"):
        check_rows(np.zeros((1,) * 10, dtype=np.float32), "float32")


def test_on_a_system_of_the_other_byte_order_bfloat16_is_turned(monkeypatch):
    class Sys:
        byteorder = "big"

    monkeypatch.setattr(_codec, "sys", Sys)
    rows = np.array([1.0], np.float32)
    narrow_bits = narrow(rows, 3)
    assert narrow_bits.dtype == np.dtype("<u2")
    assert narrow_bits.tolist() == [0x3F80]


def test_the_bits_of_nan_in_bfloat16():
    row = np.array([0x7F800001, 0xFFFFFFFF], dtype=np.uint32).view(np.float32)
    assert narrow(row, 3).tolist() == [0x7FC0, 0xFFFF]


def test_eight_axes_are_kept():
    assert check_rows(np.zeros((1,) * 9, dtype=np.float32), "float32") == 1


def test_there_is_a_name_for_each_row():
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        list(encode_rows([NAME], np.zeros((2, 3), np.float32), 1))


def test_a_row_without_values_is_its_header():
    blob = blob_of(np.zeros(0, np.float32))
    assert len(blob) == 16
    assert read(blob).dtype == np.float32
    blob = blob_of(np.float32(1))
    assert decode_row(NAME, blob)[1].tolist() == [1.0]
