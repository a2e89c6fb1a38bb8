import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sklearn_featx import images
from sklearn_featx._preprocess import Preprocess
from sklearn_featx.images import _geometry, _resample, resize_and_crop

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


@pytest.fixture
def compiled(monkeypatch):
    """Compiled loops from the first picture on."""
    pytest.importorskip("numba")
    monkeypatch.setattr(_resample, "_LOADED_AFTER", 0)
    kernels = _resample._load_kernels()
    assert kernels is not None
    return kernels


@pytest.fixture
def reload():
    """The loops are looked for anew, before and after."""
    _resample._load_kernels.cache_clear()
    yield
    _resample._load_kernels.cache_clear()


def resampled(picture, size, resample):
    return _resample.resample_compiled(picture, size, ((0, size[0]), (0, size[1])), resample)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("resample", [BILINEAR, BICUBIC])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_levels_are_those_of_pillow(rng, resample, n_channels):
    n_compared = 0
    for _ in range(150):
        height, width, new_height, new_width = (int(n) for n in rng.integers(1, 200, 4))
        pixels = rng.integers(0, 256, (height, width, n_channels), dtype=np.uint8)
        picture = _geometry.as_picture(pixels)
        new = (new_height, new_width)
        if not _geometry._takes_rows_first((height, width), new, resample, None):
            continue
        found = resampled(picture, new, resample)
        if found is not None:
            n_compared += 1
            wanted = _geometry.as_pixels(picture.resize(new[::-1], resample))
            np.testing.assert_array_equal(found, wanted)
    assert n_compared > 80


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (1200, 700), (300, 90), (40, 41)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_crop_is_a_part_of_what_pillow_computes(rng, monkeypatch, shape, interpolation):
    # Strips of some rows, as of a large picture.
    monkeypatch.setattr(_resample, "_COPIED_PIXELS", 50_000)
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    recipe = Preprocess(256, (224, 224), interpolation)
    calls = []
    original = _resample._resample
    monkeypatch.setattr(_resample, "_resample", lambda *given: calls.append(1) or original(*given))
    found = resize_and_crop(pixels, recipe)
    monkeypatch.setattr(_resample, "_LOADED_AFTER", float("inf"))
    np.testing.assert_array_equal(found, resize_and_crop(pixels, recipe))
    assert calls == [1]


@pytest.mark.usefixtures("compiled")
def test_white_and_black_stay(rng):
    checks = np.kron(rng.integers(0, 2, (20, 30)), np.ones((5, 5))).astype(np.uint8) * 255
    picture = Image.fromarray(checks)
    found = resampled(picture, (64, 96), BICUBIC)
    # Overshoot is clipped at both ends.
    assert found.min() == 0
    assert found.max() == 255
    np.testing.assert_array_equal(found[:, :, 0], picture.resize((96, 64), BICUBIC))


@pytest.mark.usefixtures("compiled")
def test_weights_that_fractions_could_round_either_way_are_left_to_pillow(monkeypatch):
    picture = Image.new("RGB", (50, 40))
    assert resampled(picture, (20, 31), BICUBIC) is not None
    _resample.find_taps.cache_clear()
    monkeypatch.setattr(_resample, "_DOUBT", 0.1)
    assert resampled(picture, (20, 31), BICUBIC) is None
    _resample.find_taps.cache_clear()


@pytest.mark.usefixtures("compiled")
def test_weights_never_take_much_memory():
    # As an image of 80,000,000 x 1 pixels that becomes 10 x 10 would have 160,000,000.
    strip = Image.new("L", (100_000, 1))
    assert resampled(strip, (1, 10), BILINEAR) is None
    found = resize_and_crop(np.full((1, 100_000, 1), 9, np.uint8), Preprocess((10, 10), channels=1))
    assert (found == 9).all()


@pytest.mark.usefixtures("compiled")
def test_filters_that_are_not_compiled_are_left_to_pillow():
    assert resampled(Image.new("L", (9, 9)), (5, 5), Image.Resampling.LANCZOS) is None


def test_the_first_pictures_are_resized_by_pillow(monkeypatch):
    monkeypatch.setattr(_resample, "_n_pixels", 0)
    monkeypatch.setattr(_resample, "_LOADED_AFTER", 20 * (9 * 9 + 5 * 5))
    loaded = []
    monkeypatch.setattr(_resample, "_load_kernels", lambda: loaded.append(1))
    for _ in range(19):
        resampled(Image.new("L", (9, 9)), (5, 5), BILINEAR)
    assert not loaded
    resampled(Image.new("L", (9, 9)), (5, 5), BILINEAR)
    assert loaded


@pytest.mark.usefixtures("reload")
def test_without_numba_pillow_does_it(rng, monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn_featx.images._kernels", raising=False)
    monkeypatch.delattr(images, "_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(_resample, "_LOADED_AFTER", 0)
    pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    found = resize_and_crop(pixels, Preprocess(resize=40))
    np.testing.assert_array_equal(found, Image.fromarray(pixels).resize((53, 40), BILINEAR))
    assert _resample._load_kernels() is None


def test_loops_that_compute_something_else_are_not_used(compiled, reload, monkeypatch):
    monkeypatch.setattr(compiled, "weigh_lines", lambda *_: None)
    assert _resample._load_kernels() is None


@pytest.mark.parametrize(("word", "tile"), [(np.uint32, 32), (np.uint8, 128)])
@pytest.mark.parametrize("is_whole", [True, False])
def test_the_comparison_sees_whole_tiles_and_parts(
    compiled, reload, monkeypatch, word, tile, is_whole
):
    original = compiled.weigh_columns

    def wrong(words, starts, weights, result):
        original(words, starts, weights, result)
        n_whole = len(words) // tile * tile
        if words.dtype == word:
            result[:n_whole] ^= is_whole
            result[n_whole:] ^= not is_whole

    monkeypatch.setattr(compiled, "weigh_columns", wrong)
    assert _resample._load_kernels() is None


@pytest.mark.usefixtures("compiled", "reload")
def test_a_pillow_without_the_encoder_does_it(monkeypatch):
    def missing(*_):
        raise AttributeError("module 'PIL.Image' has no attribute '_getencoder'")

    monkeypatch.setattr(_resample, "_words", missing)
    assert _resample._load_kernels() is None


def test_numba_may_be_told_not_to_compile():
    code = (
        "from sklearn_featx.images._resample import _load_kernels; print(_load_kernels() is None)"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout == "True\n"
