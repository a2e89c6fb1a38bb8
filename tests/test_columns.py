"""Each kind of entry in each kind of table: ColumnTransformer gives the same features."""

import io
import os
import pickle
import zipfile

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from held_pictures import (
    addresses,
    archive_of,
    base64_of,
    contents,
    members,
    write_pictures,
)
from packaging.version import Version
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.utils.data import TensorDataset
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder

from sklearn_featx import ImageReader, PretrainedFeatureExtractor
from sklearn_featx.exceptions import FeatxError, ImageWarning, InputError

N = 6
Y = np.arange(N) % 2
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 10, 12, 3), dtype=np.uint8)
TENSORS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures") / "class", PIXELS)


def upaths(files):
    return [pytest.importorskip("upath").UPath(address) for address in addresses(files)]


def samples(files):
    return [{"image": Image.open(path), "label": 1} for path in files]


# Entries that a typed column can hold: text, binary, structs and lists.
TYPED = {
    "text of paths": lambda files: [str(path) for path in files],
    "addresses": addresses,
    "URLs of files": lambda files: [path.as_uri() for path in files],
    "bytes": contents,
    "data URIs": lambda files: [f"data:image/png;base64,{text}" for text in base64_of(files)],
    "base64": base64_of,
    "structs": lambda files: [{"bytes": data, "path": "x.png"} for data in contents(files)],
    "structs of paths": lambda files: [{"bytes": None, "path": str(path)} for path in files],
    "samples of bytes": lambda files: [{"image": data, "label": 1} for data in contents(files)],
    "nested lists": lambda files: PIXELS.tolist(),
    "lists of one path": lambda files: [[str(path)] for path in files],
    "lists of one struct": lambda files: [[{"bytes": d, "path": None}] for d in contents(files)],
}
OBJECTS = {
    "paths": lambda files: files,
    "UPaths": upaths,
    "bytearrays": lambda files: [bytearray(data) for data in contents(files)],
    "memory views": lambda files: [memoryview(data) for data in contents(files)],
    "uploads": lambda files: [io.BytesIO(data) for data in contents(files)],
    "open files": lambda files: [io.BufferedReader(io.BytesIO(d)) for d in contents(files)],
    "members of a zip": members,
    "paths in a zip": lambda files: [zipfile.Path(archive_of(files), path.name) for path in files],
    "pictures": lambda files: [Image.open(path) for path in files],
    "arrays": lambda files: list(PIXELS),
    "channels first": lambda files: list(PIXELS.transpose(0, 3, 1, 2)),
    "arrays of objects": lambda files: list(PIXELS.astype(object)),
    "tensors": lambda files: list(TENSORS),
    "images of torchvision": lambda files: [tv_tensors.Image(t) for t in TENSORS],
    "pairs": lambda files: [(Image.open(path), i % 2) for i, path in enumerate(files)],
    "tuples of one": lambda files: list(TensorDataset(TENSORS)),
    "samples": samples,
    "lists of one": lambda files: [[pixels] for pixels in PIXELS],
}
ENTRIES = TYPED | OBJECTS
AGE = list(range(N))


def object_array(column):
    table = np.empty((len(column), 2), dtype=object)
    for row, entry in enumerate(column):
        table[row] = [None, row]
        table[row, 0] = entry
    return table


def arrow(column):
    return pytest.importorskip("pyarrow").table({"photo": column, "age": range(len(column))})


TABLES = {
    "pandas": lambda column: pd.DataFrame(
        {"photo": pd.Series(column, dtype=object), "age": range(len(column))}
    ),
    "polars objects": lambda column: pl.DataFrame(
        {"photo": pl.Series(column, dtype=pl.Object), "age": range(len(column))}
    ),
    "object array": object_array,
}
TYPED_TABLES = {
    "pandas inferred": lambda column: pd.DataFrame({"photo": column, "age": range(len(column))}),
    "polars": lambda column: pl.DataFrame({"photo": column, "age": range(len(column))}),
    "arrow": arrow,
    "pandas of arrow": lambda column: arrow(column).to_pandas(types_mapper=pd.ArrowDtype),
    "pandas of parquet": lambda column: arrow(column).to_pandas(),
}
if Version(sklearn.__version__) < Version("1.7"):
    # scikit-learn 1.6 does not index an Arrow table: the guide says so.
    del TYPED_TABLES["arrow"]
ALL_TABLES = TABLES | TYPED_TABLES


def net():
    """Layers of torch alone: workers import no test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())


@pytest.fixture(scope="module")
def extractor():
    return PretrainedFeatureExtractor(net(), image_size=8, cache=False, n_jobs=1)


@pytest.fixture(scope="module")
def wanted(extractor):
    return extractor.fit_transform(PIXELS)


def columns(extractor, table, *, named=True):
    """A ColumnTransformer of the images, and of the numbers where scikit-learn can join them."""
    both = [("photo", extractor, _chosen(table, named)), ("age", "passthrough", [1])]
    # scikit-learn 1.9 passes no columns of a pyarrow Table through.
    return ColumnTransformer(both[:1] if type(table).__module__.startswith("pyarrow") else both)


def _chosen(table, named):
    column = 0 if isinstance(table, np.ndarray) else "photo"
    return [column] if named else column


def check(extractor, table, wanted, *, named=True):
    transformer = columns(extractor, table, named=named)
    found = transformer.fit_transform(table)
    again = pickle.loads(pickle.dumps(transformer)).transform(table)
    for rows in (np.asarray(found), np.asarray(again)):
        np.testing.assert_array_equal(rows[:, :6].astype(np.float32), wanted)


CASES = [(name, table) for table in TABLES for name in ENTRIES]
CASES += [(name, table) for table in TYPED_TABLES for name in TYPED]
COMMON = [(name, "pandas") for name in ENTRIES]
COMMON += [(name, table) for table in TYPED_TABLES for name in ("bytes", "structs", "nested lists")]
COMMON += [("text of paths", "polars objects"), ("bytes", "object array")]


@pytest.mark.parametrize(("name", "table"), COMMON)
def test_common_entries_in_a_column(files, name, table, extractor, wanted):
    check(extractor, ALL_TABLES[table](ENTRIES[name](files)), wanted)


@pytest.mark.parametrize("table", ALL_TABLES)
def test_a_column_without_brackets(files, table, extractor, wanted):
    check(extractor, ALL_TABLES[table](contents(files)), wanted, named=False)


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("name", "table"), CASES)
def test_each_entry_in_a_column(files, name, table, named, extractor, wanted):
    check(extractor, ALL_TABLES[table](ENTRIES[name](files)), wanted, named=named)


BAGS = {
    "paths": lambda files: [str(path) for path in files],
    "bytes": contents,
    "structs": TYPED["structs"],
    "arrays": OBJECTS["arrays"],
    "tensors": OBJECTS["tensors"],
    "pictures": OBJECTS["pictures"],
}


BAG_CASES = [(name, table) for table in TABLES for name in BAGS]
BAG_CASES += [(name, table) for table in TYPED_TABLES for name in ("paths", "bytes", "structs")]
COMMON_BAGS = [(name, "pandas") for name in BAGS]
COMMON_BAGS += [("structs", table) for table in TYPED_TABLES] + [("arrays", "object array")]


def check_bags(files, name, table, extractor, wanted):
    images = BAGS[name](files)
    bags = [[image, images[0]] for image in images]
    reader = ImageReader(bag_pooling="mean")
    bagged = PretrainedFeatureExtractor(**extractor.get_params(deep=False) | {"reader": reader})
    expected = bagged.fit_transform([[pixels, PIXELS[0]] for pixels in PIXELS])
    np.testing.assert_array_equal(expected[0], wanted[0])
    check(bagged, ALL_TABLES[table](bags), expected)


@pytest.mark.parametrize(("name", "table"), COMMON_BAGS)
def test_common_bags_in_a_column(files, name, table, extractor, wanted):
    check_bags(files, name, table, extractor, wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "table"), BAG_CASES)
def test_each_bag_in_a_column(files, name, table, extractor, wanted):
    check_bags(files, name, table, extractor, wanted)


def check_missing(files, name, table, null, extractor, wanted):
    column = [*ENTRIES[name](files)[:2], null]
    X = ALL_TABLES[table](column)
    with pytest.raises(FeatxError, match="row 2: the entry is missing"):
        columns(extractor, X).fit(X)
    lenient = PretrainedFeatureExtractor(**extractor.get_params(deep=False) | {"on_error": "nan"})
    with pytest.warns(ImageWarning, match="1 of 3"):
        found = np.asarray(columns(lenient, X).fit_transform(X))[:, :6].astype(np.float32)
    np.testing.assert_array_equal(found[:2], wanted[:2])
    assert np.isnan(found[2]).all()


@pytest.mark.parametrize(
    ("table", "null"),
    [(table, None) for table in ALL_TABLES]
    + [("pandas", np.nan), ("pandas", pd.NA), ("object array", np.nan), ("polars objects", pd.NA)],
)
def test_missing_structs_of_a_column(files, table, null, extractor, wanted):
    check_missing(files, "structs", table, null, extractor, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("null", [None, np.nan, pd.NA], ids=str)
@pytest.mark.parametrize("table", [*TABLES, "pandas inferred"])
@pytest.mark.parametrize("name", ["text of paths", "bytes", "structs", "arrays"])
def test_missing_entries_of_a_column(files, name, table, null, extractor, wanted):
    check_missing(files, name, table, null, extractor, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["polars", "arrow", "pandas of arrow", "pandas of parquet"])
@pytest.mark.parametrize("name", ["text of paths", "bytes", "base64"])
def test_missing_entries_of_a_typed_column(files, name, table, extractor, wanted):
    check_missing(files, name, table, None, extractor, wanted)


SEARCHED = [("text of paths", "pandas"), ("structs", "polars")]
# Neither can be sent to another process.
STAYS = {"members of a zip", "open files", "paths in a zip", "memory views"}
SEARCHED_IN_WORKERS = [(name, "pandas") for name in ENTRIES if name not in STAYS]
SEARCHED_IN_WORKERS += [
    (name, table)
    for table in ("object array", "polars", "pandas of arrow", "pandas of parquet")
    for name in ("text of paths", "bytes", "structs")
]


def check_search(X, extractor, wanted, n_jobs=None):
    model = make_pipeline(columns(extractor, X), LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(X, Y)
    plain = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2)
    plain.fit(np.column_stack([wanted, AGE]), Y)
    for key in ("mean_test_score", "split0_test_score"):
        np.testing.assert_array_equal(search.cv_results_[key], plain.cv_results_[key])
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    expected = plain.predict_proba(np.column_stack([wanted, AGE]))
    np.testing.assert_array_equal(again.predict_proba(X), expected)


@pytest.mark.parametrize(("name", "table"), SEARCHED)
def test_a_search_over_columns(files, name, table, extractor, wanted):
    check_search(ALL_TABLES[table](ENTRIES[name](files)), extractor, wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_search_over_a_column_of_bytes_in_forked_workers(files, extractor, wanted):
    """Forked workers start at once; a slow test covers joblib's own."""
    with joblib.parallel_config(backend="multiprocessing"):
        check_search(ALL_TABLES["pandas"](contents(files)), extractor, wanted, n_jobs=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STAYS))
def test_searches_over_columns_that_stay_here(files, name, extractor, wanted):
    check_search(ALL_TABLES["pandas"](ENTRIES[name](files)), extractor, wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "table"), SEARCHED_IN_WORKERS)
def test_each_search_over_columns_in_workers(files, name, table, extractor, wanted):
    check_search(ALL_TABLES[table](ENTRIES[name](files)), extractor, wanted, n_jobs=2)


def hdf5(files):
    file = pytest.importorskip("h5py").File(io.BytesIO(), "w")
    return file.create_dataset("pixels", data=PIXELS)


def hub(files):
    datasets = pytest.importorskip("datasets")
    plain = datasets.Dataset.from_dict({"image": TYPED["structs"](files), "label": list(Y)})
    return plain.cast_column("image", datasets.Image())


def folder(files):
    return ImageFolder(files[0].parent.parent, is_valid_file=lambda path: path.endswith(".png"))


# scikit-learn refuses these before the extractor sees them; the guide says what to pass.
NO_TABLES = {
    "array": (lambda files: PIXELS, "should be a 2D"),
    "tensor": (lambda files: TENSORS, "should be a 2D"),
    "h5py": (hdf5, "should be a 2D"),
    "zarr": (lambda files: pytest.importorskip("zarr").array(PIXELS), "should be a 2D"),
    "dask": (
        lambda files: pytest.importorskip("dask.array").from_array(PIXELS),
        "should be a 2D",
    ),
    "tensorstore": (
        lambda files: pytest.importorskip("tensorstore").array(PIXELS),
        "should be a 2D",
    ),
    "datasets.Dataset": (hub, "Expected 2D array"),
    "column of a datasets.Dataset": (lambda files: hub(files)["image"], "dim 4"),
    "list": (lambda files: files, "Expected 2D array"),
    "series": (lambda files: pd.Series(files), "tuple index"),
    "SliceDataset": (
        lambda files: pytest.importorskip("skorch.helper").SliceDataset(folder(files)),
        "tuple index",
    ),
}


@pytest.mark.parametrize(
    "column",
    [
        pd.to_datetime(["2020-01-01", "2020-01-02"]),
        pd.to_timedelta([1, 2]),
        [True, False],
        [1.5, float("nan")],
        pd.Series([None, 2], dtype=object),
        pd.to_datetime(["2020-01-01", None]).tz_localize("UTC"),
        pd.period_range("2020", periods=2, freq="Y"),
    ],
    ids=["dates", "durations", "truth values", "numbers", "objects", "time zone", "periods"],
)
def test_a_column_of_something_else_is_named(column, extractor):
    # scikit-learn would replace the message about an array of one dimension by one about columns.
    table = pd.DataFrame({"taken": column})
    for fit in (
        ColumnTransformer([("photo", extractor, ["taken"])]).fit,
        lambda table: extractor.fit(table["taken"]),
    ):
        with pytest.raises(InputError, match="column 'taken' holds values such as "):
            fit(table)


@pytest.mark.parametrize("name", NO_TABLES)
def test_what_is_no_table_becomes_a_column(files, name, extractor, wanted):
    make, message = NO_TABLES[name]
    X = make(files)
    with pytest.raises((ValueError, IndexError), match=message):
        ColumnTransformer([("photo", extractor, [0])]).fit(X)
    column = list(X.read().result() if name == "tensorstore" else X)
    check(extractor, ALL_TABLES["pandas"](column), wanted)


@pytest.mark.parametrize(
    "make", [folder, lambda files: TensorDataset(TENSORS, torch.from_numpy(Y))]
)
def test_pairs_of_a_dataset_are_two_columns(files, make, extractor, wanted):
    photos = ColumnTransformer([("photo", extractor, [0])])
    np.testing.assert_array_equal(photos.fit_transform(make(files)), wanted)
