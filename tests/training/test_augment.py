"""Augmentation: seeded, without a trace, named where its content can be known."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from sklearn_featx.training import make_augment


@pytest.fixture
def pixels(photographs):
    return photographs[0][:60, :80]


@pytest.mark.parametrize("augment", ["light", "strong", v2.RandomRotation(20)])
def test_a_view_is_a_function_of_image_and_seed(augment, pixels):
    made, again = make_augment(augment), make_augment(augment)
    state = torch.random.get_rng_state()
    views = [made(pixels, seed) for seed in range(6)]
    assert torch.equal(torch.random.get_rng_state(), state)
    with ThreadPoolExecutor(4) as pool:
        for view, threaded in zip(
            views, pool.map(lambda seed: again(pixels, seed), range(6)), strict=True
        ):
            np.testing.assert_array_equal(view, threaded)
    assert len({view.tobytes() for view in views}) > 1
    assert all(view.dtype == np.uint8 and view.shape[2] == 3 for view in views)


def test_light_keeps_most_of_the_image_and_gray_stays_gray(pixels):
    light = make_augment("light")
    areas = [np.prod(light(pixels, seed).shape[:2]) for seed in range(20)]
    assert min(areas) >= 0.65 * 60 * 80
    for name in ("light", "strong"):
        assert make_augment(name)(pixels[:, :, :1], 3).shape[2] == 1


def test_the_image_itself_is_left_as_it_was(pixels):
    before = pixels.copy()
    make_augment(v2.Lambda(lambda image: image.zero_()))(pixels, 0)
    np.testing.assert_array_equal(pixels, before)


def test_digests_tell_settings_apart():
    transforms = [
        "light",
        "strong",
        v2.RandomRotation(10),
        v2.RandomRotation(20),
        v2.Compose([v2.RandomRotation(10), v2.RandomHorizontalFlip()]),
        v2.Compose([v2.RandomHorizontalFlip(), v2.RandomRotation(10)]),
        # A difference that their repr does not show.
        v2.RandomAffine(3, fill={"others": 3}),
        v2.RandomAffine(3, fill={"others": 4}),
        v2.RandomApply([v2.GaussianBlur(3)], p=0.2),
        v2.RandAugment(),
    ]
    digests = [make_augment(transform).digest for transform in transforms]
    assert None not in digests
    assert len(set(digests)) == len(transforms)
    assert digests[2] == make_augment(v2.RandomRotation(10)).digest


def test_what_cannot_be_known_has_no_digest():
    class Own(v2.Transform):
        pass

    for transform in (lambda image: image, v2.Lambda(lambda image: image), Own()):
        assert make_augment(transform).digest is None
        assert make_augment(v2.Compose([v2.RandomRotation(10), transform])).digest is None


def test_pictures_may_come_back(pixels):
    made = make_augment(lambda image: Image.fromarray(image.numpy().transpose(1, 2, 0)))
    np.testing.assert_array_equal(made(pixels, 0), pixels)


def test_floats_are_refused_with_the_reason(pixels):
    with pytest.raises(ValueError, match=r"uint8.*float32.*preprocessing"):
        make_augment(v2.ToDtype(torch.float32, scale=True))(pixels, 0)
