"""Preprocessing: geometry as a nested parameter."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_featx import FineTuneClassifier, Preprocessing, PretrainedFeatureExtractor
from sklearn_featx._preprocess import Preprocess
from sklearn_featx.exceptions import ImageError, ImageWarning, InputError
from sklearn_featx.images._geometry import resize_and_crop, seen_part

PHOTO = Preprocess(resize=64, crop=(56, 56), mean=(0.5, 0.4, 0.3), std=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(20, 200), (200, 20), (30, 30), (1, 400), (56, 56)])
def test_the_whole_image_is_seen(shape, dtype):
    pixels = np.full((*shape, 3), 200, dtype)
    squashed = resize_and_crop(pixels, PHOTO.with_crop_mode("squash"))
    assert squashed.shape == (56, 56, 3)
    assert (squashed == 200).all()
    bordered = resize_and_crop(pixels, PHOTO.with_crop_mode("border"))
    assert bordered.shape == (56, 56, 3)
    seen = (bordered == 200).all(axis=2)
    # The border is the mean gray: 255 * (0.5 + 0.4 + 0.3) / 3.
    assert (bordered[~seen] == 102).all()
    height, width = shape
    wanted = [max(1, round(56 * side / max(shape))) for side in shape]
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert [len(rows), len(columns)] == wanted
    assert rows[0] == (56 - wanted[0]) // 2
    top, left, bottom, right = seen_part(height, width, PHOTO.with_crop_mode("border"))
    assert top <= 0
    assert left <= 0
    assert bottom >= height
    assert right >= width


def test_gray_images_have_a_border():
    pixels = np.full((10, 40, 1), 7, np.uint8)
    bordered = resize_and_crop(pixels, PHOTO.with_crop_mode("border"))
    assert sorted(set(bordered.ravel().tolist())) == [7, 102]


@pytest.fixture
def strips():
    """Wide images whose class is a mark at the left or right margin."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.integers(0, 60, (40, 16, 160, 3), dtype=np.uint8)
    for strip, side in zip(X, y, strict=True):
        strip[4:12, -8:] = 255 if side else 0
    return X, y


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_what_matters_at_the_margin_is_seen(strips, mode):
    X, y = strips

    def score(mode):
        recipe = replace(PHOTO, resize=32, crop=(32, 32)).with_crop_mode(mode)
        pixels = [resize_and_crop(strip, recipe).ravel() / 255 for strip in X]
        return cross_val_score(LogisticRegression(), pixels, y, cv=2).mean()

    assert score("center") < 0.8
    assert score(mode) == 1.0


def test_nested_parameters(small_net, digits):
    extractor = PretrainedFeatureExtractor(small_net, cache=False)
    extractor.set_params(preprocessing__image_size=8, preprocessing__crop_mode="border")
    assert extractor.get_params()["preprocessing__crop_mode"] == "border"
    copy = clone(extractor)
    assert copy.preprocessing is not extractor.preprocessing
    plain = PretrainedFeatureExtractor(small_net, image_size=8, cache=False)
    # Squares have no border.
    X = digits[0][:3]
    np.testing.assert_array_equal(copy.fit_transform(X), plain.fit_transform(X))
    both = extractor.set_params(image_size=9)
    with pytest.raises(InputError, match=r"image_size=9 and .*image_size=8\) differ"):
        both.fit(X)


def test_fine_tuning_with_a_geometry(small_net, digits):
    X, y = digits[0][:12, :, :6], digits[1][:12]
    center, border = (
        PretrainedFeatureExtractor(
            small_net, preprocessing=Preprocessing(image_size=8, crop_mode=mode), cache=False
        ).fit_transform(X)
        for mode in ("center", "border")
    )
    assert not np.allclose(center, border, rtol=1e-2)
    for depth in (0, "all"):
        model = FineTuneClassifier(
            small_net,
            unfreeze_depth=depth,
            head_layers="last",
            preprocessing=Preprocessing(image_size=8, crop_mode="border"),
            max_epochs=1,
            lr=1e-12,
            cache=False,
        )
        np.testing.assert_allclose(model.fit(X, y).transform(X), border, rtol=1e-4, atol=1e-5)


def test_a_geometry_needs_a_size(small_net, digits):
    extractor = PretrainedFeatureExtractor(
        small_net, preprocessing=Preprocessing(crop_mode="squash")
    )
    with pytest.raises(InputError, match=r"crop_mode='squash'.*image_size="):
        extractor.fit(digits[0])
    with pytest.raises(ValueError, match="crop_mode"):
        extractor.set_params(preprocessing__crop_mode="middle").fit(digits[0])


def prepared(picture):
    return np.asarray(picture, np.float32)[None] / 255


@pytest.fixture
def calls(monkeypatch):
    """One entry for each call of a function as preprocessing."""
    from sklearn_featx.images import _prefetch

    called, original = [], _prefetch._call

    def spy(item, function):
        called.append(1)
        return original(item, function)

    monkeypatch.setattr(_prefetch, "_call", spy)
    return called


@pytest.mark.parametrize("function", [prepared, lambda p: np.asarray(p, np.float32)[None] / 255])
@pytest.mark.parametrize("fine_tuned", [False, True])
def test_a_search_calls_a_function_once_for_each_image(
    function, fine_tuned, small_net, digits, calls, tmp_path
):
    X, y = digits[0][:24], np.arange(24) % 2
    settings = {"preprocessing": function, "cache": str(tmp_path)}
    if fine_tuned:
        model = FineTuneClassifier(small_net, unfreeze_depth=1, **settings)
        search = GridSearchCV(model, {"max_epochs": [1, 2]}, cv=3)
    else:
        extractor = PretrainedFeatureExtractor(small_net, **settings)
        search = GridSearchCV(
            make_pipeline(extractor, LogisticRegression()), {"logisticregression__C": [1, 9]}, cv=3
        )
    search.fit(X, y).predict(X)
    assert len(calls) == 24
    search.fit(X[::-1], y)
    assert len(calls) == 24


def test_another_function_gives_other_rows(small_net, digits, calls, tmp_path):
    X = digits[0][:6]

    def features(divisor):
        def scaled(picture):
            return np.asarray(picture, np.float32)[None] / divisor

        cached, plain = (
            PretrainedFeatureExtractor(small_net, preprocessing=scaled, cache=cache)
            for cache in (str(tmp_path), False)
        )
        found = cached.fit_transform(X)
        np.testing.assert_array_equal(plain.transform(X), found)
        return found

    assert not np.array_equal(features(255), features(100))
    del calls[:]
    features(255)
    assert len(calls) == 6, "the rows without a cache alone"


def test_a_random_function_is_called_for_each_row(small_net, digits, calls):
    generator = np.random.default_rng(0)

    def noisy(picture):
        return np.asarray(picture, np.float32)[None] + generator.random()

    extractor = PretrainedFeatureExtractor(small_net, preprocessing=noisy).fit(digits[0][:4])
    assert not np.array_equal(
        extractor.transform(digits[0][:4]), extractor.transform(digits[0][:4])
    )


def test_unreadable_images_before_the_first_readable_one(small_net, digits, calls):
    X = [b"no image", b"none", *digits[0][:3]]
    extractor = PretrainedFeatureExtractor(small_net, preprocessing=prepared, on_error="nan")
    with pytest.warns(ImageWarning, match="2 of 5"):
        rows = extractor.fit_transform(X)
    assert np.isnan(rows[:, 0]).tolist() == [True, True, False, False, False]
    assert len(calls) == 3
    with pytest.raises(ImageError, match="None of the 2 images can be read"):
        extractor.fit(X[:2])
    with pytest.raises(ImageError, match="row 0"):
        extractor.set_params(on_error="raise").fit(X)
