from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from scipy import sparse

from sklearn_featx import image_groups
from sklearn_featx._messages import short
from sklearn_featx.exceptions import ImageError, InputError
from sklearn_featx.images import ReadOptions, as_image_collection

PIXELS = np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3)


def column(values):
    """A 1-D array of objects, whatever the values are."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    "hold",
    [
        list,
        tuple,
        np.array,
        column,
        lambda files: np.array(files)[:, None],
        lambda files: column(files)[:, None],
        lambda files: [[file] for file in files],
        pytest.param(
            lambda files: np.array(files, dtype=np.dtypes.StringDType()),
            marks=pytest.mark.skipif(np.__version__ < "2", reason="this numpy has no such type"),
        ),
        lambda files: [Path(file) for file in files],
        lambda files: column([Path(file) for file in files]),
        pd.Series,
        lambda files: pd.Series(files, dtype=object, index=range(9, 4, -1)),
        lambda files: pd.DataFrame({"file": files}),
        lambda files: pd.Series(files, dtype="category"),
        pd.Index,
        pl.Series,
        lambda files: pl.DataFrame({"file": files}),
        lambda files: {0: files},
    ],
)
def test_whatever_holds_paths(files, hold):
    images = as_image_collection(hold(files))
    assert [images.path(i) for i in range(len(images))] == files
    assert images.load(4).shape == (6, 12, 3)
    assert (images.kind, images.n_features) == ("pixels", None)


@pytest.mark.parametrize(
    "hold", [list, tuple, column, pd.Series, lambda given: pd.DataFrame({"image": given})]
)
def test_whatever_holds_images_of_many_kinds(files, hold):
    given = [
        files[0],
        Path(files[1]).read_bytes(),
        Image.fromarray(PIXELS[0]),
        PIXELS[1],
        torch.from_numpy(PIXELS[0].transpose(2, 0, 1).copy()),
    ]
    images = as_image_collection(hold(given))
    assert [images.load(i).shape[:2] for i in range(5)] == [(6, 8), (6, 9), (4, 5), (4, 5), (4, 5)]
    np.testing.assert_array_equal(images.load(4), PIXELS[0])


@pytest.mark.parametrize(
    "X",
    [
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
        (torch.from_numpy(PIXELS) / 255).requires_grad_(),
        list(PIXELS),
        PIXELS.tolist(),
        PIXELS.astype(object),
        column([PIXELS[0], PIXELS[1]]),
        pl.Series(list(PIXELS.tolist())),
    ],
)
def test_pixels_in_other_containers(X):
    images = as_image_collection(X)
    np.testing.assert_array_equal([images.load(i) for i in range(2)], PIXELS)


def test_bfloat16_tensors():
    images = as_image_collection(torch.ones(2, 3, 4, 5, dtype=torch.bfloat16))
    assert (images.load(0) == 255).all()


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_tables_of_numbers(frame):
    table = frame({f"pixel{i}": [0.0, 1.0] for i in range(6)})
    images = as_image_collection(table, ReadOptions(image_shape=(2, 3)))
    assert images.n_features == 6
    assert (images.load(1) == 255).all()
    assert as_image_collection(table, ReadOptions(image_shape=(1, -1))).item_shape == (6,)


@pytest.mark.parametrize("hold", [list, lambda rows: [torch.from_numpy(row) for row in rows]])
def test_lists_of_rows_of_plain_numbers(hold):
    values = as_image_collection(
        hold(np.arange(6.0).reshape(2, 3)), ReadOptions(image_shape=(1, -1))
    )
    assert (values.kind, values.item_shape) == ("values", (3,))
    with pytest.raises(InputError, match="one shape"):
        as_image_collection([np.zeros(2), np.zeros(3)], ReadOptions(image_shape=(1, -1)))


def test_a_collection_is_itself(files):
    images = as_image_collection(files)
    assert as_image_collection(images) is images


@pytest.mark.parametrize("hold", [list, column, pd.Series, pl.Series])
def test_missing_entries_are_named(files, hold):
    with pytest.raises(ImageError, match="row 2: the entry is missing"):
        as_image_collection(hold([*files[:2], None]))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_missing_first_entry_is_named(files, missing):
    with pytest.raises(ImageError, match="row 0: the entry is missing"):
        as_image_collection([missing, *files])


def test_a_path_without_file_is_refused_at_once(files):
    with pytest.raises(ImageError, match=r"row 5 \('nowhere\.png'\): no such file") as caught:
        as_image_collection([*files, "nowhere.png"])
    assert (caught.value.row, caught.value.path) == (5, "nowhere.png")


def test_a_path_without_file_says_where_it_was_looked_up(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError) as error:
        as_image_collection(["no/a.png"])
    assert f"looked up in the working directory, {short(repr(str(Path.cwd())))}" in str(error.value)
    assert str(error.value).endswith(" on_error='nan' goes on without it.")
    with pytest.raises(ImageError, match=r"no such file\. on_error='nan' goes on without it\.$"):
        as_image_collection([str(tmp_path / "no.png")])
    lenient = as_image_collection([*files, "no/a.png"], ReadOptions(on_error="nan"))
    with pytest.raises(ImageError, match=r"no such file\. It was looked up in [^.]*'\.$"):
        lenient.load(5)
    # It has no parameter `on_error`.
    for entry, wanted in (("no/a.png", "no such file"), (None, r"Drop such rows before\.$")):
        with pytest.raises(ImageError, match=wanted) as error:
            image_groups([entry], by="(a)")
        assert "on_error" not in str(error.value)


def test_a_link_without_a_file_says_where_it_leads(tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to("gone.png")
    with pytest.raises(ImageError, match=r"no such file\. It is a link to 'gone\.png', which does"):
        as_image_collection([str(link)])


def test_nothing_is_read(files, monkeypatch):
    def refuse(*args):
        raise AssertionError("read")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Image, "open", refuse)
    assert len(as_image_collection(files)) == 5


@pytest.mark.parametrize(
    ("X", "reason"),
    [
        ("photos", r"one path, 'photos'.*rglob"),
        (Path("photos"), "one path.*rglob"),
        (b"\xff\xd8", r"one image.*\[X\]"),
        (Image.new("L", (2, 2)), r"one image.*\[X\]"),
        (sparse.csr_array(np.eye(3)), "Sparse data was passed"),
        ([], r"0 sample\(s\) \(shape=\(0,\)\) while a minimum of 1 is required\. Does the pattern"),
        (pd.Series([], dtype=object), r"0 sample\(s\)"),
        (pd.DataFrame({"a": []}, dtype=object), r"0 sample\(s\)"),
        (pd.DataFrame(index=[1, 2]), r"0 feature\(s\)"),
        (torch.zeros(0, 3, 4, 5), r"0 sample\(s\)"),
        ([1.0, 2.0], "Expected 2D array, got 1D array"),
        (pd.Series([1.0, 2.0]), "Expected 2D array, got 1D array"),
        (column([1, 2]), "Expected 2D array"),
        (5, "of type int"),
        ({"a": 1}, "of type dict"),
        ({"a.jpg"}, r"of type set.*sorted\(X\)"),
        (iter([]), r"list\(X\)"),
        (np.array([["a", "b"]]), "one column of paths"),
        (np.array([["a", 1]], object), "not all numbers"),
        (np.array([b"\xff\xd8\0"]), "drops zero bytes"),
        (np.ma.masked_equal(PIXELS, 3), "masked"),
        (pd.DataFrame({"file": ["a"], "label": ["b"]}), r"2 columns \('file', 'label'\).*Column"),
        (pl.DataFrame({"file": ["a"], "label": ["b"]}), r"2 columns.*X\['file'\]"),
    ],
)
def test_what_is_refused(X, reason):
    with pytest.raises(InputError, match=reason):
        as_image_collection(X)


def test_one_address_is_no_list():
    with pytest.raises(InputError, match=r"X is one path, 'https://host/a\.jpg\?\.\.\.'"):
        as_image_collection("https://user:secret@host/a.jpg?Signature=secret")


def test_ambiguous_items_name_their_row():
    with pytest.raises(ImageError, match=r"row 1: .*ambiguous"):
        as_image_collection([PIXELS[0], np.zeros((3, 5, 3))])
    assert len(as_image_collection([np.zeros((3, 5, 3))], ReadOptions(image_shape=(5, 3)))) == 1


KINDS = (
    "expected an array, a tensor, a list of images or paths, a column of a dataframe, or a dataset."
)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            "photos",
            "X is one path, 'photos', where a list of images is expected. For one file pass "
            '[path]; for a folder pass sorted(Path(folder).rglob("*.jpg")).',
        ),
        (b"", "X is one image (bytes) where a list of images is expected. Pass [X]."),
        (
            sparse.csr_array(np.eye(3)),
            "Sparse data was passed, but dense data is required. Use X.toarray() to convert it.",
        ),
        (5, f"X is of type int: {KINDS}"),
        ({"a": 1}, f"X is of type dict: {KINDS}"),
        ({"a.jpg"}, f"X is of type set: {KINDS} A set has no order: pass sorted(X)."),
        (iter(["a.jpg"]), f"X is of type list_iterator: {KINDS} Pass list(X)."),
        (
            np.ma.masked_equal(PIXELS, 3),
            "X is a masked array with masked values. Fill them, X.filled(0).",
        ),
        (
            np.array([b"a"]),
            "X is an array of dtype |S1, which drops zero bytes. Pass a list of bytes, or paths as "
            "str.",
        ),
        (
            np.array([["a", 1]], object),
            "X is an array of objects of shape (1, 2) that are not all numbers. Pass one column of "
            "images or paths.",
        ),
        (
            pd.DataFrame({name: ["x"] for name in "abcde"}),
            "X is a dataframe of 5 columns ('a', 'b', 'c', 'd', 'e') where one column of images or "
            "paths is expected. Select it, X['a'], or name it in a ColumnTransformer.",
        ),
        (
            pd.DataFrame({name: ["x"] for name in "abcdef"}),
            "X is a dataframe of 6 columns ('a', 'b', 'c', 'd', 'e', 'f') where one column of "
            "images or paths is expected. Select it, X['a'], or name it in a ColumnTransformer.",
        ),
    ],
)
def test_what_is_refused_is_said_in_full(X, message):
    with pytest.raises(InputError) as caught:
        as_image_collection(X)
    assert str(caught.value) == message


class Arrays(torch.utils.data.Dataset):
    """A dataset of arrays of 4 x 5 gray values."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.full((4, 5), 8 * index)


@pytest.mark.parametrize("X", [Arrays(), [np.full((4, 5), 0), np.full((4, 5), 8)]])
def test_the_range_of_values_holds_for_datasets_and_lists(X):
    images = as_image_collection(X, ReadOptions(value_range=(0, 16)))
    assert [images.load(i).max() for i in range(2)] == [0, 127.5]


def test_the_shape_of_an_image_holds_for_datasets():
    class Ambiguous(Arrays):
        def __getitem__(self, index):
            return np.zeros((3, 5, 3))

    assert as_image_collection(Ambiguous(), ReadOptions(image_shape=(3, 5, 3))).load(0).shape == (
        3,
        5,
        3,
    )
    assert as_image_collection(Ambiguous(), ReadOptions(image_shape=(3, 5))).load(0).shape != (
        5,
        3,
        3,
    )


def test_rows_of_plain_numbers_as_tensors_that_numpy_does_not_know():
    rows = [torch.ones(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bfloat16)]
    values = as_image_collection(rows, ReadOptions(image_shape=(1, -1)))
    assert (values.kind, values.item_shape) == ("values", (3,))


def test_nested_lists_of_different_lengths_are_items(files):
    with pytest.raises(ImageError, match="row 0"):
        as_image_collection([[1, 2], [3]])


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, {}, {"bytes": None, "path": None}])
def test_the_advice_for_a_missing_entry_is_only_in_an_error(missing):
    with pytest.raises(
        ImageError,
        match=r"row 0: the entry is missing .*\. Drop such rows before, or pass on_error='nan'\.$",
    ):
        as_image_collection([missing])
    images = as_image_collection([missing], ReadOptions(on_error="nan"))
    with pytest.raises(ImageError, match=r"row 0: the entry is missing \([^)]*\)\.$"):
        images.load(0)


def test_an_entry_that_is_no_image_may_wait(files):
    images = as_image_collection([*files, None], ReadOptions(on_error="nan"))
    assert len(images) == len(files) + 1
    with pytest.raises(ImageError, match=f"row {len(files)}: the entry is missing"):
        images.load(len(files))
