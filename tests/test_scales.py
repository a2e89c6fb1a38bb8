"""Scales through the whole library: what reaches a network, which row is kept, what is reported."""

import pickle
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LinearRegression
from torch import nn

from sklearn_featx import (
    FeatureStore,
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
)
from sklearn_featx.exceptions import RangeWarning


class Same(nn.Module):
    """Returns what it gets, in gray or RGB; it notes the type and the number of levels."""

    def __init__(self, channels=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(channels)[:, :, None, None])

    def forward(self, x):
        return self.conv(x)


def numbers(X, channels=1, **parameters):
    """What reaches an own network, channels last."""
    extractor = PretrainedFeatureExtractor(Same(channels), pooling=None, cache=False, **parameters)
    return extractor.transform(X).transpose(0, 2, 3, 1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def similarity(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("as_list", [False, True])
def test_floats_reach_an_own_network_as_they_are(rng, as_list):
    X = rng.uniform(0, 1, (3, 8, 9, 3)).astype(np.float32)
    np.testing.assert_allclose(numbers(list(X) if as_list else X, 3), X, rtol=3e-7)


@pytest.mark.parametrize("holder", ["array", "picture", "file"])
def test_sixteen_bits_reach_an_own_network_as_they_are(rng, holder):
    X = rng.integers(0, 65536, (3, 8, 9)).astype(np.uint16)
    held = X if holder == "array" else [Image.fromarray(x) for x in X]
    if holder == "file":
        files = [BytesIO() for _ in X]
        for picture, file in zip(held, files, strict=True):
            picture.save(file, format="PNG")
        held = [file.getvalue() for file in files]
    np.testing.assert_allclose(numbers(held)[:, :, :, 0], X / 65535, rtol=3e-7)


def test_two_degrees_of_a_thermal_camera(rng):
    celsius = rng.uniform(36, 38, 80)
    X = np.tile(celsius[:, None, None], (1, 8, 8)) + np.zeros((80, 8, 8))
    features = PretrainedFeatureExtractor(
        Same(), reader=ImageReader(value_range=(-20, 80)), cache=False
    ).transform(X)
    assert len(np.unique(features)) == 80
    assert LinearRegression().fit(features, celsius).score(features, celsius) > 0.99999
    raw = np.rint((celsius + 20) * 100)
    images = [Image.fromarray(np.full((8, 8), value, np.uint16)) for value in raw]
    extractor = PretrainedFeatureExtractor(
        Same(), reader=ImageReader(value_range=(0, 10_000)), cache=False
    )
    features = extractor.transform(images)
    assert LinearRegression().fit(features, celsius).score(features, celsius) > 0.9999


@pytest.mark.parametrize("depth", [0, "all"])
def test_degrees_are_learned_at_every_depth(rng, depth):
    celsius = rng.uniform(36, 38, 40)
    X = np.broadcast_to(celsius[:, None, None], (40, 8, 8)).astype(np.float32)
    regressor = FineTuneRegressor(
        Same(),
        unfreeze_depth=depth,
        reader=ImageReader(value_range=(-20, 80)),
        max_epochs=1,
        random_state=0,
        C=1e9,
    )
    assert regressor.fit(X, celsius).score(X, celsius) > 0.999


def test_one_hot_pixel_leaves_the_features(photographs):
    gray = np.asarray(Image.fromarray(photographs[0]).convert("L").resize((96, 64)))
    values = gray.astype(np.uint16) * 16
    hot = values.copy()
    hot[3, 3] = 60_000
    files = []
    for picture in (values, hot):
        file = BytesIO()
        Image.fromarray(picture).save(file, format="TIFF")
        files.append(file.getvalue())
    extractor = PretrainedFeatureExtractor(image_size=64, cache=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        assert similarity(*extractor.transform(files)) > 0.9
    ranged = extractor.set_params(reader__value_range=(0, 65_535))
    assert similarity(*ranged.transform(files)) > 0.9


def test_eight_bits_give_the_same_row_in_every_type(photographs):
    picture = photographs[0][:64, :96]
    held = [picture, picture / 255, np.float32(picture / 255), picture.astype(np.uint16) * 257]
    held += [torch.from_numpy(picture.transpose(2, 0, 1).copy()) / 255, Image.fromarray(picture)]
    rows = PretrainedFeatureExtractor(image_size=32, cache=False).transform(held)
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))


def test_a_row_does_not_depend_on_deep_rows_beside_it(rng, photographs):
    shallow = [photographs[0][:64, :64], photographs[1][:64, :64]]
    deep = [rng.uniform(0, 1, (64, 64, 3)).astype(np.float32) for _ in range(2)]
    extractor = PretrainedFeatureExtractor(image_size=32, cache=False)
    together = extractor.transform([shallow[0], deep[0], shallow[1], deep[1]])
    np.testing.assert_array_equal(together[::2], extractor.transform(shallow))
    np.testing.assert_allclose(together[1::2], extractor.transform(deep), atol=1e-5)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_deep_and_shallow_rows_of_a_store(rng, tmp_path, storage):
    shallow = rng.integers(0, 256, (3, 8, 8)).astype(np.uint8)
    deep = rng.uniform(0, 1, (3, 8, 8)).astype(np.float32)
    X = [image for pair in zip(shallow, deep, strict=True) for image in pair]
    store = FeatureStore(tmp_path / "store", storage=storage)
    parameters = {"unfreeze_depth": "all", "max_epochs": 1, "random_state": 0, "cache": store}
    y = [0, 1, 0, 1, 0, 1]
    first = FineTuneClassifier(Same(), **parameters).fit(X, y)
    written = store.info()
    again = FineTuneClassifier(Same(), **parameters).fit(X, y)
    np.testing.assert_allclose(again.predict_proba(X), first.predict_proba(X), rtol=1e-5)
    # Whatever stands beside it, a row stays as it was written.
    separate = FineTuneClassifier(Same(), **parameters).fit(X, y)
    np.testing.assert_allclose(
        separate.predict_proba(deep), first.predict_proba(X)[1::2], rtol=1e-4
    )
    assert store.info().n_rows == written.n_rows


def test_a_range_given_for_files_gives_new_rows(digit_files, tmp_path):
    paths = digit_files[0][:6]
    store = FeatureStore(tmp_path / "store")
    extractor = PretrainedFeatureExtractor(Same(), image_size=8, cache=store)
    plain = extractor.transform(paths)
    ranged = extractor.set_params(reader__value_range=(0, 510 / 2)).transform(paths)
    np.testing.assert_array_equal(ranged, plain)
    dimmed = extractor.set_params(reader__value_range=(-255, 255)).transform(paths)
    np.testing.assert_allclose(dimmed, (plain + 1) / 2, rtol=1e-5)
    np.testing.assert_array_equal(
        extractor.set_params(reader__value_range=None).transform(paths), plain
    )
    pictures = [Image.open(BytesIO(Path(path).read_bytes())) for path in paths]
    arrays = [np.asarray(picture) for picture in pictures]
    extractor.set_params(reader__value_range=(-255, 255), cache=False)
    np.testing.assert_array_equal(extractor.transform(pictures), dimmed)
    np.testing.assert_array_equal(extractor.transform(arrays), dimmed)


def test_a_function_gets_pictures_of_eight_bits(rng):
    seen = []

    def prepare(picture):
        seen.append((picture.mode, np.asarray(picture).dtype))
        return np.float32(np.asarray(picture))[None] / 255

    X = rng.uniform(0, 1, (2, 8, 8)).astype(np.float32)
    features = numbers(X, preprocessing=prepare)
    assert seen[-1] == ("L", np.uint8)
    np.testing.assert_allclose(features[..., 0], X, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_views_of_deep_images(rng, augment):
    X = rng.uniform(0.4, 0.41, (6, 16, 16)).astype(np.float32)
    X[:, :8] -= 0.3
    classifier = FineTuneClassifier(
        Same(),
        augment=augment,
        image_size=8,
        max_epochs=2,
        random_state=0,
        reader=ImageReader(value_range=(0, 1)),
    )
    assert np.isfinite(classifier.fit(X, [0, 1] * 3).predict_proba(X)).all()


# What is reported


def twelve_bits(n=3, largest=4095):
    return np.linspace(0, largest, n * 64).reshape(n, 8, 8).astype(np.uint16)


def test_a_range_that_is_hardly_used_is_reported_once():
    extractor = PretrainedFeatureExtractor(Same(), cache=False)
    with pytest.warns(
        RangeWarning, match=r"0 to 4095.*0 to 65535.*value_range=\(0, 4095\)"
    ) as seen:
        extractor.fit_transform(twelve_bits())
    assert len(seen) == 1
    assert "value_range=(0, 65535)" in str(seen[0].message)
    assert "\n" not in str(seen[0].message)


@pytest.mark.parametrize("hold", [list, lambda X: [Image.fromarray(x) for x in X]])
def test_it_is_reported_for_lists_of_all_kinds(hold):
    with pytest.warns(RangeWarning, match="0 to 4095"):
        PretrainedFeatureExtractor(Same(), cache=False).transform(hold(twelve_bits()))


def test_floats_and_offsets_have_their_own_reading():
    extractor = PretrainedFeatureExtractor(Same(), cache=False)
    with pytest.warns(RangeWarning, match=r"0.02 to 0.2 .*value_range=\(0.02, 0.2\)"):
        extractor.transform(np.linspace(0.02, 0.2, 64).reshape(1, 8, 8))
    with pytest.warns(RangeWarning, match=r"value_range=\(40000, 41000\)"):
        extractor.transform(np.linspace(40_000, 41_000, 64).reshape(1, 8, 8).astype(np.uint16))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint32, np.uint64])
@pytest.mark.parametrize("largest", [1, 16, 63])
def test_small_numbers_of_wide_integers_are_reported(dtype, largest):
    X = np.linspace(0, largest, 128).reshape(2, 8, 8).round().astype(dtype)
    extractor = PretrainedFeatureExtractor(Same(), cache=False)
    for held in (X, list(X), X.tolist()):
        with pytest.warns(RangeWarning, match=rf"0 to {largest} .*of the range 0 to 255"):
            extractor.transform(held)
    for held in (
        X.astype(np.uint8),
        X.astype(np.int8),
        [Image.fromarray(x.astype(np.uint8)) for x in X],
    ):
        extractor.transform(held)


@pytest.mark.parametrize(
    "X",
    [
        np.full((2, 8, 8), 3, np.uint8),
        np.arange(128, dtype=np.uint8).reshape(2, 8, 8) // 8,
        np.zeros((2, 8, 8), np.uint16),
        np.full((2, 8, 8), 0.1),
        np.arange(128).reshape(2, 8, 8),
        np.linspace(0, 30_000, 128).reshape(2, 8, 8).astype(np.uint16),
        np.concatenate([twelve_bits(), np.full((1, 8, 8), 50_000, np.uint16)]),
    ],
)
def test_dark_images_of_eight_bits_and_used_ranges_are_not_reported(X):
    PretrainedFeatureExtractor(Same(), cache=False).transform(X)


@pytest.mark.parametrize("value_range", [(0, 4095), (0, 65_535)])
def test_a_range_that_was_given_is_not_reported(value_range):
    extractor = PretrainedFeatureExtractor(
        Same(), cache=False, reader=ImageReader(value_range=value_range)
    )
    extractor.transform(twelve_bits())


def test_fine_tuning_reports_once_in_each_call():
    X, y = twelve_bits(4), [0, 1, 0, 1]
    classifier = FineTuneClassifier(Same(), max_epochs=2, random_state=0, cache=False)
    for call in (lambda: classifier.fit(X, y), lambda: classifier.predict(X)):
        with pytest.warns(RangeWarning) as seen:
            call()
        assert len(seen) == 1


def test_collections_that_report_can_be_pickled():
    from sklearn_featx.images import as_image_collection

    images = pickle.loads(pickle.dumps(as_image_collection(list(twelve_bits()))))
    images.load(0), images.load(2)
    assert "4095" in images.range_use.reports()[0]
