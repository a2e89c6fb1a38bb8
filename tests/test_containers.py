"""Whatever people hold: each container in each place gives the features of the same pictures."""

import io
import multiprocessing
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
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
from sklearn.model_selection import GridSearchCV, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, random_split
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder

from sklearn_featx import FineTuneClassifier, ImageReader, PretrainedFeatureExtractor
from sklearn_featx.exceptions import FeatxError, ImageWarning
from sklearn_featx.images import as_image_collection

N = 8
Y = np.arange(N) % 2
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 10, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures") / "class", PIXELS)


def structs(files):
    return [{"bytes": data, "path": "x.png"} for data in contents(files)]


def folder(files):
    return ImageFolder(files[0].parent.parent, is_valid_file=lambda path: path.endswith(".png"))


def slice_dataset(files):
    return pytest.importorskip("skorch.helper").SliceDataset(folder(files))


def tensors():
    return torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


def hub(files):
    datasets = pytest.importorskip("datasets")
    plain = datasets.Dataset.from_dict({"image": structs(files), "label": list(Y)})
    return plain.cast_column("image", datasets.Image())


def arrow(files):
    return pytest.importorskip("pyarrow").array(structs(files))


def hdf5(files):
    h5py = pytest.importorskip("h5py")
    file = h5py.File(io.BytesIO(), "w")
    return file.create_dataset("pixels", data=PIXELS, chunks=(3, 10, 12, 3))


def zarr(files):
    return pytest.importorskip("zarr").array(PIXELS, chunks=(3, 10, 12, 3))


def dask(files):
    return pytest.importorskip("dask.array").from_array(PIXELS, chunks=(3, 10, 12, 3))


def tensor_store(files):
    tensorstore = pytest.importorskip("tensorstore")
    return tensorstore.array(PIXELS)


def memory_map(files):
    path = files[0].parent.parent / "pixels.npy"
    np.save(path, PIXELS)
    return np.load(path, mmap_mode="r")


def in_memory(files):
    system = pytest.importorskip("fsspec").filesystem("memory")
    for path, data in zip(files, contents(files), strict=True):
        system.pipe(f"/containers/{path.name}", data)
    return [f"memory://containers/{path.name}" for path in files]


def upaths(files):
    return [pytest.importorskip("upath").UPath(address) for address in addresses(files)]


def arrow_table(files):
    return pytest.importorskip("pyarrow").table({"image": structs(files)})


def parquet(files, column):
    pytest.importorskip("pyarrow")
    data = io.BytesIO()
    pd.DataFrame({"photo": column}).to_parquet(data)
    return io.BytesIO(data.getvalue())


HELD = {
    "array": lambda files: PIXELS,
    "channels first": lambda files: PIXELS.transpose(0, 3, 1, 2),
    "tensor": lambda files: tensors(),
    "objects": lambda files: PIXELS.astype(object),
    "list of arrays": lambda files: list(PIXELS),
    "list of channels first": lambda files: list(PIXELS.transpose(0, 3, 1, 2)),
    "list of objects": lambda files: list(PIXELS.astype(object)),
    "list of tensors": lambda files: list(tensors()),
    "nested lists": lambda files: PIXELS.tolist(),
    "lists of one": lambda files: [[pixels] for pixels in PIXELS],
    "paths": lambda files: files,
    "text of paths": lambda files: [str(path) for path in files],
    "lists of one path": lambda files: [[str(path)] for path in files],
    "URLs of files": lambda files: [path.as_uri() for path in files],
    "addresses": addresses,
    "addresses in memory": in_memory,
    "UPaths": upaths,
    "column of paths": lambda files: np.array([str(path) for path in files])[:, None],
    "bytes": contents,
    "bytearrays": lambda files: [bytearray(data) for data in contents(files)],
    "memory views": lambda files: [memoryview(data) for data in contents(files)],
    "data URIs": lambda files: [f"data:image/png;base64,{text}" for text in base64_of(files)],
    "base64": base64_of,
    "uploads": lambda files: [io.BytesIO(data) for data in contents(files)],
    "open files": lambda files: [io.BufferedReader(io.BytesIO(d)) for d in contents(files)],
    "members of a zip": members,
    "paths in a zip": lambda files: [zipfile.Path(archive_of(files), path.name) for path in files],
    "pictures": lambda files: [Image.open(path) for path in files],
    "pairs": lambda files: [(Image.open(path), i % 2) for i, path in enumerate(files)],
    "samples": lambda files: [{"image": Image.open(path), "label": 1} for path in files],
    "samples of bytes": lambda files: [{"image": d, "label": 1} for d in contents(files)],
    "structs": structs,
    "structs of paths": lambda files: [{"bytes": None, "path": str(path)} for path in files],
    "lists of one struct": lambda files: [[struct] for struct in structs(files)],
    "pandas of bytes": lambda files: pd.DataFrame({"photo": contents(files)}),
    "pandas series": lambda files: pd.Series(files),
    "pandas categories": lambda files: pd.Series([str(path) for path in files], dtype="category"),
    "pandas of arrow": lambda files: arrow_table(files).to_pandas(types_mapper=pd.ArrowDtype),
    "pandas of parquet": lambda files: pd.read_parquet(parquet(files, structs(files))),
    "polars of parquet": lambda files: pl.read_parquet(parquet(files, PIXELS.tolist())),
    "pandas structs": lambda files: pd.DataFrame({"image": structs(files)}),
    "polars structs": lambda files: pl.DataFrame({"image": structs(files)}),
    "polars series": lambda files: pl.Series(contents(files)),
    "arrow": arrow,
    "arrow table": arrow_table,
    "ImageFolder": folder,
    "Subset": lambda files: Subset(folder(files), range(N)),
    "items of an ImageFolder": lambda files: list(folder(files)),
    "SliceDataset": slice_dataset,
    "TensorDataset": lambda files: TensorDataset(tensors(), torch.zeros(N)),
    "items of a TensorDataset": lambda files: list(TensorDataset(tensors())),
    "images of torchvision": lambda files: [tv_tensors.Image(t) for t in tensors()],
    "datasets.Dataset": hub,
    "column of a datasets.Dataset": lambda files: hub(files)["image"],
    "h5py": hdf5,
    "zarr": zarr,
    "dask": dask,
    "tensorstore": tensor_store,
    "memory map": memory_map,
}
# Open files and HDF5 cannot be sent to another process, nor their holders and memory views; before
# Python 3.13 nor paths in a zip. Each process has its own files of memory://.
STAYS = {"open files", "members of a zip", "paths in a zip", "h5py"}
STAYS |= {"memory views", "addresses in memory"}
# scikit-learn 1.9 does not index these: the guide says what to pass.
NOT_INDEXED = {"arrow", "datasets.Dataset", "zarr"}
if Version(sklearn.__version__) < Version("1.7"):
    NOT_INDEXED |= {"arrow table"}


@pytest.fixture
def extractor(small_net):
    return PretrainedFeatureExtractor(small_net, image_size=8, cache=False)


@pytest.fixture
def wanted(extractor):
    return extractor.fit_transform(PIXELS)


@pytest.mark.parametrize("name", HELD)
def test_each_container_gives_the_same_features(files, name, extractor, wanted):
    X = HELD[name](files)
    np.testing.assert_array_equal(extractor.fit_transform(X), wanted)
    # What is read once can be read again.
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor)).transform(X), wanted)


@pytest.mark.parametrize("name", sorted(HELD.keys() - NOT_INDEXED))
def test_each_container_can_be_searched(files, name, extractor, wanted):
    X = HELD[name](files)
    pipe = make_pipeline(extractor, LogisticRegression())
    probabilities = cross_val_predict(pipe, X, Y, cv=2, method="predict_proba")
    expected = cross_val_predict(LogisticRegression(), wanted, Y, cv=2, method="predict_proba")
    np.testing.assert_array_equal(probabilities, expected)


def searches():
    """A search over each estimator, with layers of torch alone: workers import no test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
    settings = {"image_size": 8, "cache": False, "n_jobs": 1}
    pipe = make_pipeline(PretrainedFeatureExtractor(net, **settings), LogisticRegression())
    model = FineTuneClassifier(net, max_epochs=1, random_state=0, **settings)
    for estimator, grid in (
        (pipe, {"logisticregression__C": [0.1, 1]}),
        (model, {"unfreeze_depth": [0, 1]}),
    ):
        yield GridSearchCV(estimator, grid, cv=2, error_score="raise")


@pytest.fixture(scope="module")
def found():
    """Scores and probabilities of each search over the array."""
    fitted = [search.fit(PIXELS, Y) for search in searches()]
    return [(s.cv_results_["mean_test_score"], s.predict_proba(PIXELS)) for s in fitted]


def check_searches(X, found, n_jobs=None):
    for search, (scores, probabilities) in zip(searches(), found, strict=True):
        search.set_params(n_jobs=n_jobs).fit(X, Y)
        np.testing.assert_array_equal(search.cv_results_["mean_test_score"], scores)
        again = pickle.loads(pickle.dumps(search.best_estimator_))
        np.testing.assert_array_equal(again.predict_proba(X), probabilities)


@pytest.mark.parametrize(
    "name",
    [
        "paths", "pairs", "pandas structs", "polars series", "ImageFolder", "SliceDataset",
        "TensorDataset", "column of a datasets.Dataset", "h5py", "dask",
    ],
)  # fmt: skip
def test_common_containers_in_a_grid_search(files, name, found):
    check_searches(HELD[name](files), found)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HELD.keys() - NOT_INDEXED))
def test_each_container_in_a_grid_search(files, name, found):
    check_searches(HELD[name](files), found, n_jobs=None if name in STAYS else 2)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("name", ["bytes", "structs", "base64", "data URIs"])
def test_columns_of_a_table(files, name, make, extractor, wanted):
    table = make({"photo": HELD[name](files), "age": np.arange(N)})
    columns = ColumnTransformer([("photo", extractor, ["photo"]), ("age", "passthrough", ["age"])])
    found = np.asarray(columns.fit_transform(table))
    np.testing.assert_array_equal(found[:, :-1].astype(np.float32), wanted)


NULLS = {
    "None": lambda path: [path, None],
    "NaN": lambda path: pd.Series([path, np.nan], dtype=object),
    "NA": lambda path: [path, pd.NA],
    "pandas str": lambda path: pd.DataFrame({"photo": pd.Series([path, None], dtype="str")}),
    "polars": lambda path: pl.DataFrame({"photo": [path, None]}),
    "polars struct": lambda path: pl.Series([{"path": path, "bytes": None}, None]),
    "empty struct": lambda path: [path, {"bytes": None, "path": None}],
}


@pytest.mark.parametrize("name", NULLS)
def test_missing_entries_are_unreadable_rows(files, name, extractor):
    X = NULLS[name](str(files[0]))
    with pytest.raises(FeatxError, match="row 1: the entry is missing"):
        extractor.fit(X)
    with pytest.warns(ImageWarning):
        rows = extractor.set_params(on_error="nan").fit_transform(X)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True]


def test_invalid_rows_of_arrays_are_unreadable_rows(small_net):
    X = PIXELS.astype(np.float64) / 255
    X[1, 0, 0], X[4, 1, 1] = np.nan, 7
    extractor = PretrainedFeatureExtractor(small_net, image_size=8, on_error="nan", cache=False)
    with pytest.warns(ImageWarning, match="2 of 8"):
        whole = extractor.fit_transform(X)
    with pytest.warns(ImageWarning, match="2 of 8"):
        listed = extractor.fit_transform(list(X))
    np.testing.assert_array_equal(whole, listed)
    assert np.flatnonzero(np.isnan(whole[:, 0])).tolist() == [1, 4]
    flat = X[..., 0].reshape(N, -1)
    extractor.set_params(reader=ImageReader(image_shape=(10, 12)))
    with pytest.warns(ImageWarning, match="2 of 8"):
        assert np.isnan(extractor.fit_transform(flat)[:, 0]).sum() == 2


WRONG = {
    "a dict without an image": [{"a": 1}],
    "lists of text": [["a.png", "b.png"], ["c.png", "d.png"]],
    "a generator": (path for path in ()),
    "a loader": DataLoader([1]),
    "text of numbers": ["0 255 17 " * 40],
    "text of floats": ["[0.5, 0.25, 0.125, " * 20],
    "objects of three axes": np.array([[["a", "b"]]], object),
    "a file that is open as text": [io.StringIO("x")],
    "several images": [{"left": PIXELS[0], "right": PIXELS[1]}],
    "an empty bag": [[]],
    "damaged base64": ["data:image/png;base64,@@@@"],
    "an image and its mask": [(PIXELS[0], PIXELS[1])],
    "an empty upload": [io.BytesIO()],
    "one open file": io.BufferedReader(io.BytesIO(b"x")),
    "a lazy frame": pl.LazyFrame({"photo": ["x"]}),
    "text of two columns": np.array([["a", "b"]]),
    "a pattern": ["photos/*.jpg"],
    "a home folder": ["~/no such folder/a.jpg"],
    "a frame of columns": pd.DataFrame({"a": ["x"], "b": ["y"]}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(name):
    with pytest.raises(FeatxError) as caught:
        as_image_collection(WRONG[name]).load(0)
    message = str(caught.value)
    assert "\n" not in message
    assert 20 < len(message) <= 300


def nested_objects(array):
    """Arrays of arrays, as pandas reads nested lists of Arrow."""
    if array.ndim == 1:
        return array
    nested = np.empty(len(array), object)
    for place, part in enumerate(array):
        nested[place] = nested_objects(part)
    return nested


@pytest.mark.parametrize("bags", [False, True])
@pytest.mark.parametrize(
    "make", [np.ndarray.tolist, lambda array: array.astype(object), nested_objects]
)
def test_objects_and_nested_lists_are_arrays_of_their_numbers(extractor, wanted, make, bags):
    if not bags:
        found = extractor.fit_transform([make(image) for image in PIXELS])
        return np.testing.assert_array_equal(found, wanted)
    extractor.set_params(reader=ImageReader(bag_pooling="mean"))
    expected = extractor.fit_transform([PIXELS[:3], PIXELS[3:]])
    found = extractor.fit_transform([make(PIXELS[:3]), make(PIXELS[3:])])
    return np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "make",
    [
        pd.Series,
        pd.Index,
        lambda paths: pd.Series(paths).array,
        lambda paths: pd.Series(paths, dtype="category"),
        pl.Series,
        pa.array,
    ],
)
def test_columns_of_a_grouped_table_are_bags(small_net, digit_files, make):
    paths = digit_files[0][:6]
    reader = ImageReader(bag_pooling="mean")
    extractor = PretrainedFeatureExtractor(small_net, reader=reader, cache=False)
    wanted = extractor.fit_transform([paths[:2], paths[2:]])
    found = extractor.transform([make(paths[:2]), make(paths[2:])])
    np.testing.assert_array_equal(found, wanted)


def test_the_groups_of_a_dataframe_are_bags(small_net, digit_files):
    table = pd.DataFrame({"path": digit_files[0][:6], "patient": [0, 0, 1, 1, 1, 1]})
    reader = ImageReader(bag_pooling="mean")
    extractor = PretrainedFeatureExtractor(small_net, reader=reader, cache=False)
    found = extractor.fit_transform(table.groupby("patient")["path"].unique())
    bags = [digit_files[0][:2], digit_files[0][2:6]]
    np.testing.assert_array_equal(found, extractor.transform(bags))


class TestReported:
    """Problems that people had with other libraries."""

    def test_targets_of_a_dataset(self, found):
        # skorch-dev/skorch#745, #443: X and y are both a SliceDataset.
        helper = pytest.importorskip("skorch.helper")
        data = TensorDataset(tensors(), torch.from_numpy(Y))
        for search, (scores, _) in zip(searches(), found, strict=True):
            search.fit(helper.SliceDataset(data, 0), helper.SliceDataset(data, 1))
            np.testing.assert_array_equal(search.cv_results_["mean_test_score"], scores)

    def test_splits_of_the_hub(self, files, extractor, wanted, tmp_path):
        # huggingface/datasets#147, mammoth-eu/mammoth-commons#84.
        dataset = hub(files)
        rows = train_test_split(np.arange(N), test_size=0.5, random_state=0)
        parts = train_test_split(dataset["image"], test_size=0.5, random_state=0)
        for part, chosen in zip(parts, rows, strict=True):
            np.testing.assert_array_equal(extractor.fit_transform(part), wanted[chosen])
        for kind in ("numpy", "torch"):
            formatted = extractor.fit_transform(dataset.with_format(kind))
            np.testing.assert_array_equal(formatted, wanted)
        dataset.to_pandas().to_parquet(tmp_path / "hub.parquet")
        for read in (pd.read_parquet, pl.read_parquet):
            column = read(tmp_path / "hub.parquet")["image"]
            np.testing.assert_array_equal(extractor.fit_transform(column), wanted)
        with pytest.raises(FeatxError, match=r"splits 'train', 'test'. Select one, X\['train'\]"):
            extractor.fit(dataset.train_test_split(test_size=2))

    def test_archives_of_arrays(self, extractor, wanted, tmp_path):
        # numpy/numpy#18124.
        np.savez_compressed(tmp_path / "a.npz", image=PIXELS, label=Y)
        with np.load(tmp_path / "a.npz") as archive:
            np.testing.assert_array_equal(extractor.fit_transform(archive), wanted)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_members_of_a_zip_in_forked_children(self, files, extractor, wanted):
        # HannesStark/boltzgen#40, mehta-lab/VisCy#417: children share the position in the file.
        archive = archive_of(files)
        addresses = [f"zip://{path.name}::{archive}" for path in files]
        np.testing.assert_array_equal(extractor.fit_transform(addresses), wanted)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            halves = pool.map(extractor.transform, [addresses[:4], addresses[4:]])
        np.testing.assert_array_equal(np.concatenate(halves), wanted)

    def test_a_zip_store(self, extractor, wanted, tmp_path):
        # zarr-developers/zarr-python#1218.
        zarr = pytest.importorskip("zarr")
        with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as store:
            array = zarr.create_array(store, shape=PIXELS.shape, chunks=(3, 10, 12, 3), dtype="u1")
            array[:] = PIXELS
        with zarr.storage.ZipStore(tmp_path / "a.zip", mode="r") as store:
            array = zarr.open_array(store, mode="r")
            found = extractor.set_params(n_jobs=4).fit_transform(array)
        np.testing.assert_array_equal(found, wanted)

    def test_a_table_in_another_order(self, files, extractor, wanted):
        # autogluon/autogluon#1108, mdbloice/Augmentor#94, PriorLabs/tabpfn-extensions#400.
        table = pd.DataFrame({"photo": [str(path) for path in files], "age": np.arange(N)})
        mixed = table.sample(frac=1, random_state=0)
        for dtype in ("string", "category", "object"):
            column = mixed["photo"].astype(dtype)
            np.testing.assert_array_equal(extractor.fit_transform(column), wanted[mixed["age"]])

    def test_pictures_of_all_modes_in_one_column(self, extractor):
        # christiansafka/img2vec#28, Eventual-Inc/Daft#2495.
        picture = Image.fromarray(PIXELS[0])
        modes = [picture.convert(mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "CMYK", "1")]
        rows = extractor.fit_transform(modes)
        np.testing.assert_array_equal(rows[1], rows[0])
        np.testing.assert_array_equal(rows[3], rows[2])
        assert np.isfinite(rows).all()

    def test_parts_of_datasets(self, files, extractor, wanted):
        # skorch-dev/skorch#513.
        first, second = random_split(folder(files), [3, 5], torch.Generator().manual_seed(0))
        whole = ConcatDataset([first, second])
        rows = [*first.indices, *second.indices]
        np.testing.assert_array_equal(extractor.fit_transform(whole), wanted[rows])


def test_an_upload_that_nobody_waited_for():
    async def read():
        return b""

    waiting = read()
    with pytest.raises(FeatxError, match="is a coroutine"):
        as_image_collection([waiting])
    waiting.close()


@pytest.mark.parametrize("bag_pooling", [None, "mean"])
def test_repeated_columns_are_one_line(small_net, bag_pooling):
    table = pd.DataFrame([["a", "b"]], columns=["photo", "photo"])
    reader = ImageReader(bag_pooling=bag_pooling)
    with pytest.raises(FeatxError, match="columns have the name 'photo'"):
        PretrainedFeatureExtractor(small_net, reader=reader).fit(table)


def rss():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_4_gib_of_hdf5_need_little_memory(tmp_path, small_net):
    """A sparse file: rows without a chunk are zeros."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "large.h5", "w") as file:
        X = file.create_dataset("X", (21_846, 256, 256, 3), np.uint8, chunks=(8, 256, 256, 3))
        assert X.size >= 2**32
        X[7] = 255
        extractor = PretrainedFeatureExtractor(small_net, image_size=8, cache=False, n_jobs=1)
        extractor.fit_transform(X[:8])
        before = rss()
        rows = extractor.fit_transform(X)
        assert rss() - before < 500
    assert (rows[[0, 8, -1]] == rows[0]).all()
    assert (rows[7] != rows[0]).any()
