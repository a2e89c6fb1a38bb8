import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from sklearn_featx._preprocess import Preprocess
from sklearn_featx.images import _geometry, prepare_geometry
from sklearn_featx.images._geometry import resize_and_crop


def by_torchvision(pixels, preprocess):
    crop = list(preprocess.crop)
    preset = ImageClassification(
        crop_size=1,
        resize_size=1,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation=InterpolationMode(preprocess.interpolation),
    )
    preset.crop_size = crop
    resize = preprocess.resize
    preset.resize_size = [resize] if isinstance(resize, int) else list(resize)
    tensor = preset(Image.fromarray(pixels))
    return np.rint(tensor.permute(1, 2, 0).numpy() * 255).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("by_sides", [False, True])
def test_equal_to_torchvision_to_the_last_bit(rng, interpolation, by_sides):
    for _ in range(60):
        height, width = rng.integers(1, 300, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        sides = tuple(int(n) for n in rng.integers(5, 150, 2))
        crop = tuple(int(n) for n in rng.integers(3, 170, 2))
        preprocess = Preprocess(sides if by_sides else sides[0], crop, interpolation)
        result = resize_and_crop(pixels, preprocess)
        np.testing.assert_array_equal(result, by_torchvision(pixels, preprocess))


@pytest.mark.parametrize(("resize", "crop"), [(256, (224, 224)), (232, (224, 224)), (64, (65, 63))])
def test_equal_on_a_photograph(photo, resize, crop):
    pixels = np.asarray(photo)
    for interpolation in ("bilinear", "bicubic"):
        preprocess = Preprocess(resize, crop, interpolation)
        result = resize_and_crop(pixels, preprocess)
        np.testing.assert_array_equal(result, by_torchvision(pixels, preprocess))


def test_gray_is_repeated_for_rgb(photo):
    preprocess = Preprocess(50, (48, 48))
    gray = np.asarray(photo.convert("L"))
    result = resize_and_crop(gray[:, :, None], preprocess)
    wanted = by_torchvision(np.asarray(photo.convert("L").convert("RGB")), preprocess)
    np.testing.assert_array_equal(result, wanted)
    assert result.flags.c_contiguous


def test_rgb_becomes_gray_before_the_resize(photo):
    result = resize_and_crop(np.asarray(photo), Preprocess(resize=(20, 30), channels=1))
    wanted = np.asarray(photo.convert("L").resize((30, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(result[:, :, 0], wanted)


def test_without_resize_and_crop_pixels_stay(photo):
    np.testing.assert_array_equal(resize_and_crop(np.asarray(photo), Preprocess()), photo)


def test_smaller_than_the_crop_is_padded_with_zeros():
    result = resize_and_crop(np.full((3, 4, 1), 9, np.uint8), Preprocess(crop=(6, 3), channels=1))
    assert result.shape == (6, 3, 1)
    np.testing.assert_array_equal(result[:, 0, 0], [0, 9, 9, 9, 0, 0])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(10, 900, 3), (700, 9, 3)])
def test_long_strips_are_resized_within_the_crop_alone(rng, monkeypatch, interpolation, shape):
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    preprocess = Preprocess(64, (56, 56), interpolation)
    whole = resize_and_crop(pixels, preprocess)
    monkeypatch.setattr(_geometry, "_MAX_RESIZED_PIXELS", 1000)
    fused = resize_and_crop(pixels, preprocess)
    assert np.abs(fused.astype(int) - whole).max() <= 1


def test_a_strip_of_30000_by_10_takes_little_memory():
    # The whole resized picture would have 768000 x 256 pixels: 590 MB.
    strip = np.full((10, 30000, 3), 77, np.uint8)
    result = resize_and_crop(strip, Preprocess(resize=256, crop=(224, 224)))
    assert (result == 77).all()


def test_prepare_geometry_is_the_recipe(photo):
    preprocess, pixels = Preprocess(50, (48, 48)), np.asarray(photo)
    prepared = prepare_geometry(preprocess)(pixels)
    np.testing.assert_array_equal(prepared, resize_and_crop(pixels, preprocess))
