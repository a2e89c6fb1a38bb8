"""Messages that people reported as obscure in other libraries, provoked in this one.

Each problem either does not exist here, or ends in one line that names the cause and the way out.
"""

import base64
import io
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from packaging.version import Version
from PIL import Image
from torch import nn

from sklearn_featx import (
    FeatureStore,
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
    image_groups,
)
from sklearn_featx.exceptions import FeatxError, ImageWarning, StoreError

X = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)


def said(error):
    """The message, which is one short line."""
    message = str(error.value)
    assert "\n" not in message
    assert len(message) <= 300
    return message


def png():
    buffer = io.BytesIO()
    Image.fromarray(X[0]).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("ending", ["", "JPG", ".jpg"])
def test_text_that_is_no_file_is_not_shown_as_a_whole(small_net, ending):
    # fastimage#97, html2docx#28 ("File name too long"); sglang#7199 (base64 that ends in JPG)
    text = "*" * 13_000 + ending
    with pytest.raises(FeatxError) as error:
        PretrainedFeatureExtractor(small_net).fit([text])
    assert "row 0" in said(error)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 cut off", b"<html>not found</html>"])
def test_a_file_with_the_suffix_of_an_image_and_other_content(small_net, tmp_path, content):
    # memery#13, ODM#931: a traceback that names no file
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(FeatxError) as error:
        PretrainedFeatureExtractor(small_net).fit_transform([str(path)])
    assert "photo.jpg" in said(error)


def test_one_bad_file_in_a_folder_is_left_out_and_named(small_net, tmp_path):
    # Biodiversity#575, autotagger#2, foldergram#50: the run ends, or nobody learns which file
    paths = []
    for i in range(4):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(X[i]).save(paths[-1])
    (tmp_path / "2.png").write_bytes(b"\x89PNG nothing else")
    extractor = PretrainedFeatureExtractor(small_net, on_error="nan")
    with pytest.warns(ImageWarning, match=r"2\.png"):
        rows = extractor.fit_transform(paths)
    assert np.isnan(rows).any(axis=1).tolist() == [False, False, True, False]
    assert [failure.row for failure in extractor.failures_] == [2]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "float32", "float64", "bool"])
def test_labels_of_any_type(small_net, dtype):
    # skorch#554: "Expected object of scalar type Long but got scalar type Int"
    y = np.array([0, 1] * 4).astype(dtype)
    model = FineTuneClassifier(small_net, unfreeze_depth=1, max_epochs=1, C=1.0).fit(X, y)
    assert model.predict(X).dtype == y.dtype


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_targets_of_any_type(small_net, dtype):
    # skorch#813, skorch#824: "result type Float can't be cast to the desired output type Long"
    y = np.arange(8).astype(dtype)
    model = FineTuneRegressor(small_net, unfreeze_depth=1, max_epochs=1).fit(X, y)
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_pixels_of_any_type(small_net, dtype):
    # skorch#518: "expected scalar type Float but found Double"
    scale = 1 if "int" in dtype else 255
    rows = PretrainedFeatureExtractor(small_net).fit_transform((X / scale).astype(dtype))
    expected = PretrainedFeatureExtractor(small_net).fit_transform(X)
    np.testing.assert_allclose(rows, expected, atol=1e-3)


def test_a_network_in_double_precision(small_net):
    # pytorch#11951, pytorch#118280: the type is named the wrong way round
    with pytest.raises(FeatxError) as error:
        PretrainedFeatureExtractor(small_net.double()).fit(X)
    assert "Its parameters are torch.float64: pass network.float()" in said(error)


class Positions(nn.Module):
    """Adds a table of positions that was made for images of 8 x 8."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 2, stride=2)
        self.positions = nn.Parameter(torch.zeros(1, 16, 4))

    def forward(self, x):
        return self.patches(x).flatten(2).transpose(1, 2) + self.positions


def test_a_table_of_positions_of_another_size():
    # PyTorch-Pretrained-ViT#28: "The size of tensor a (197) must match the size of tensor b (577)"
    with pytest.raises(FeatxError) as error:
        PretrainedFeatureExtractor(Positions(), image_size=16).fit(X)
    assert "image_size" in said(error)


def test_weights_of_another_network(small_net, tmp_path):
    # ReActor#20, PathoDuet#11: forty lines of "size mismatch for ..."
    torch.save(small_net.state_dict(), tmp_path / "other.pth")
    with pytest.raises(FeatxError) as error:
        PretrainedFeatureExtractor("resnet18", weights=tmp_path / "other.pth").fit(X)
    assert "does not fit the network" in said(error)


@pytest.mark.parametrize("as_list", [True, False])
def test_images_of_different_sizes(as_list):
    # captcha-breaker#2, Medical-Image-Segmentation#1: "inhomogeneous shape"
    images = [np.zeros((20 + i, 30, 3), np.uint8) for i in range(3)]
    X = images if as_list else np.array(images, dtype=object)
    assert PretrainedFeatureExtractor(image_size=32).fit_transform(X).shape == (3, 1280)


def test_what_one_line_of_base64_is_called(small_net):
    with pytest.raises(FeatxError) as error:
        PretrainedFeatureExtractor(small_net).fit(base64.b64encode(png()).decode())
    assert "base64" in said(error)


def test_nothing_is_warned_of_where_nothing_is_wrong(small_net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PretrainedFeatureExtractor(small_net).fit_transform([png(), png()])


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 3)])
def test_a_matrix_of_labels_that_is_not_0_and_1(small_net, low, high):
    # Fitted as 0 and 1, its predictions would match no label.
    y = np.array([[low, high], [high, low]] * 4)
    with pytest.raises(ValueError, match="y: a matrix of labels must be of 0 and 1") as error:
        FineTuneClassifier(small_net, unfreeze_depth=0).fit(X, y)
    assert f"it contains {low or high}. Pass (y == value).astype(int)" in said(error)


@pytest.mark.parametrize("unit", [1e300, -1e160])
def test_targets_whose_variance_overflows(small_net, unit):
    # The predictions would be NaN.
    with pytest.raises(ValueError, match="y: targets as") as error:
        FineTuneRegressor(small_net, unfreeze_depth=0).fit(X, np.arange(8) * unit)
    assert f"targets as large as {7 * unit}" in said(error)
    assert "Divide them by a constant" in said(error)


class TestDataframes:
    """Names that occur twice: narwhals' "Expected unique column names, got:" and a list."""

    @pytest.mark.parametrize("method", ["fit", "transform"])
    @pytest.mark.parametrize("shape", [None, (1, 2)])
    def test_two_columns_of_one_name(self, small_net, method, shape):
        frame = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
        extractor = PretrainedFeatureExtractor(small_net, reader=ImageReader(image_shape=shape))
        with pytest.raises(FeatxError, match=r"2 columns have the name 'a'. Rename them") as error:
            getattr(extractor, method)(frame)
        assert said(error)

    def test_of_a_table_of_arrow(self, small_net):
        pa = pytest.importorskip("pyarrow")
        table = pa.table([["x"], ["y"]], names=["a", "a"])
        with pytest.raises(FeatxError, match="2 columns have the name 'a'"):
            PretrainedFeatureExtractor(small_net).fit(table)

    @pytest.mark.skipif(
        Version(sklearn.__version__) < Version("1.7"), reason="scikit-learn joins such columns"
    )
    def test_of_labels(self, small_net):
        y = pd.DataFrame(np.eye(8, 2, dtype=int), columns=["a", "a"])
        with pytest.raises(
            ValueError, match="y: Expected unique column names, got: - 'a'"
        ) as error:
            FineTuneClassifier(small_net, unfreeze_depth=0, C=1.0).fit(X, y)
        assert said(error)


def test_three_pixels_of_three_channels_in_three_rows():
    images = np.arange(54, dtype=np.uint8).reshape(2, 3, 3, 3)
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten())
    with pytest.raises(FeatxError, match="ambiguous") as error:
        PretrainedFeatureExtractor(net).fit(images)
    assert "ImageReader(image_shape=(3, 3, 3)), which means channels last" in said(error)
    extractor = PretrainedFeatureExtractor(net, reader=ImageReader(image_shape=(3, 3, 3)))
    features = extractor.fit_transform(images)
    with torch.no_grad():
        exact = net(torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(features, exact, atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "value_range", "wanted"),
    [
        (1.0000001 / 255, None, "from 0.*to 1.0000001, just outside .* Pass np.clip(X, 0, 1)."),
        (1.0000001, (0, 255), "to 255.0000255, just outside .* Pass np.clip(X, 0, 255)."),
        (1.0000001, None, "outside the range 0 to 1 .* for example value_range=(0, 255)."),
        (1.0, None, "outside the range 0 to 1 .* for example value_range=(0, 255)."),
        (257.0, None, "outside the range 0 to 1 .*, for example value_range=(0, 65535), which"),
        (16 / 255, None, "outside the range 0 to 1 .* value_range=(0, 16), which holds all of X."),
        (300 / 255, (0, 255), "outside .* value_range=(0, 300), which holds all of X."),
    ],
)
def test_pixels_that_rounding_carries_over_the_range(small_net, scale, value_range, wanted):
    images = np.tile(np.uint8([0, 255]), (2, 4, 4)) * scale
    reader = ImageReader(value_range=value_range)
    with pytest.raises(FeatxError, match=wanted.replace("(", r"\(").replace(")", r"\)")) as error:
        PretrainedFeatureExtractor(small_net, reader=reader).fit(images)
    assert "row 0" in said(error)
    if "just outside" in str(error.value):
        high = 1 if value_range is None else 255
        PretrainedFeatureExtractor(small_net, reader=reader).fit(np.clip(images, 0, high))


@pytest.mark.parametrize("shape", [(1, 2), (1, -1)])
def test_rows_that_are_nan(plain_factory, small_net, shape):
    net = small_net if shape == (1, 2) else plain_factory()
    reader = ImageReader(image_shape=shape)
    for method in ("fit", "transform", "fit_transform"):
        with pytest.raises(FeatxError, match=r"row 1: .*contains NaN") as error:
            getattr(PretrainedFeatureExtractor(net, reader=reader), method)(
                [[0.0, 1.0], [np.nan, np.nan]]
            )
        assert said(error)


def test_groups_of_arrays():
    with pytest.raises(FeatxError, match=r"groups are read from files. Pass paths") as error:
        image_groups(X / 255)
    assert "row 0" in said(error)


@pytest.mark.parametrize("augment", ["light", "strong"])
@pytest.mark.parametrize("n_views", [None, 2])
def test_crops_of_different_sizes(small_net, augment, n_views):
    settings = {"unfreeze_depth": 1, "C": 1.0, "max_epochs": 1, "n_views": n_views}
    model = FineTuneClassifier(small_net, augment=augment, **settings)
    with pytest.raises(FeatxError, match=r"augment crops .* Pass image_size=") as error:
        model.fit(X, [0, 1] * 4)
    assert said(error)
    model.set_params(image_size=8).fit(X, [0, 1] * 4)


@pytest.mark.parametrize(
    ("y", "fraction", "way"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 1], 0.1, "1 of them have one row only. Use at least 2 rows of each"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 0.1, "8 of them have one row only. Use at least 2 rows of each"),
        ([0, 1, 2, 0, 1, 2, 0, 1], 0.1, "each of the 3 classes. Set validation_fraction=0.38 or m"),
        ([0, 1, 2, 0, 1, 2, 0, 1], 0.9, "each of the 3 classes. Set validation_fraction=0.62 or l"),
        ([0, 1, 2, 3, 0, 1, 2, 3], 0.2, "each of the 4 classes. Set validation_fraction=0.5 or mo"),
    ],
)
def test_too_few_rows_to_hold_some_out(small_net, y, fraction, way):
    model = FineTuneClassifier(small_net, unfreeze_depth=1, C=1.0, early_stopping=True)
    model.set_params(validation_fraction=fraction, max_epochs=1)
    what = rf"early_stopping=True cannot hold out validation_fraction={fraction} of the 8 rows"
    with pytest.raises(ValueError, match=what) as error:
        model.fit(X, y)
    assert "early_stopping=False" in said(error)
    assert way in str(error.value)
    if "Set" in way:
        model.set_params(validation_fraction=float(way.partition("fraction=")[2].split()[0]))
        assert "valid_loss" in model.fit(X, y).history_[0]


@pytest.mark.parametrize("inside", ["", "folder"])
@pytest.mark.parametrize("method", ["info", "verify", "prune", "clear"])
def test_a_store_at_the_path_of_a_file(tmp_path, method, inside):
    path = tmp_path / "features.csv"
    path.write_text("1,2,3")
    with pytest.raises(
        StoreError, match=r"features\.csv' is a file, and a store is a folder"
    ) as error:
        getattr(FeatureStore(path / inside), method)()
    assert said(error)
    assert path.read_text() == "1,2,3"
    assert FeatureStore(tmp_path / "new").info().n_rows == 0
