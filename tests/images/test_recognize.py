import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from scipy import sparse

from sklearn_featx.images import _recognize as recognize

EXAMPLES = {
    "tensor": torch.zeros(1),
    "frame": pd.DataFrame({"a": [1]}),
    "polars frame": pl.DataFrame({"a": [1]}),
    "series": pd.Series([1]),
    "polars series": pl.Series([1]),
    "sparse": sparse.csr_array(np.eye(2)),
    "array": np.zeros(2),
    "picture": Image.new("L", (1, 1)),
    "list": [1],
}
WHO = {
    recognize.is_tensor: {"tensor"},
    recognize.is_frame: {"frame", "polars frame"},
    recognize.is_series: {"series", "polars series"},
    recognize.is_sparse: {"sparse"},
}


@pytest.mark.parametrize("question", WHO)
def test_recognized_by_what_it_can_do(question):
    assert {name for name, example in EXAMPLES.items() if question(example)} == WHO[question]


def test_array_likes():
    assert recognize.is_array_like(np.zeros(2))
    assert recognize.is_array_like(pd.array([1, 2]))
    assert not recognize.is_array_like(Image.new("L", (1, 1)))
    assert not recognize.is_array_like([1])


@pytest.mark.parametrize("value", [None, np.nan, float("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_missing(value):
    assert recognize.is_missing(value)


@pytest.mark.parametrize("value", ["", 0, 0.0, b"", np.zeros(0)])
def test_not_missing(value):
    assert not recognize.is_missing(value)


def test_tensors_become_arrays():
    tensor = torch.tensor([0.5, 1.0], requires_grad=True)
    np.testing.assert_array_equal(recognize.tensor_to_array(tensor), [0.5, 1.0])
    half = recognize.tensor_to_array(tensor.bfloat16())
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, [0.5, 1.0])


def test_numbers():
    assert all(recognize.is_number(value) for value in (1, 2.0, np.float32(3), True))
    assert not any(recognize.is_number(value) for value in ("a", np.str_("a"), [1], np.zeros(1)))


def test_datasets():
    assert recognize.is_dataset([1])
    assert not any(recognize.is_dataset(value) for value in ({}, {1}, iter([]), 3))
