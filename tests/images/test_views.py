"""Views: seeded, named by content, independent of place and order."""

import numpy as np
import pytest

from sklearn_featx import exceptions
from sklearn_featx.images import ReadOptions, Views, as_image_collection


class Noise:
    """Adds noise that depends on the seed."""

    def __init__(self, digest="noise"):
        self.digest = digest

    def __call__(self, pixels, seed):
        return pixels ^ np.random.default_rng(seed).integers(0, 256, pixels.shape, np.uint8)


def views_of(images, numbers=(0, 1), seed=0, variation=None):
    keys = [images.digest(i) for i in range(len(images))]
    return Views(images, keys, variation or Noise(), seed=seed, views=numbers)


@pytest.fixture
def images(digits):
    return as_image_collection(digits[0][:5])


def test_all_images_in_one_view_and_then_in_the_next(images):
    views = views_of(images, (3, 7))
    assert len(views) == 10
    assert len({views.digest(i) for i in range(10)}) == 10
    np.testing.assert_array_equal(views.load(6), views_of(images, (7,)).load(1))
    assert views.digest(6) == views_of(images, (7,)).digest(1)
    assert views.load(0).shape == images.load(0).shape


def test_a_view_depends_on_content_seed_and_number_alone(images):
    views = views_of(images)
    backwards = views_of(images.take([4, 3, 2, 1, 0]))
    for i in range(5):
        np.testing.assert_array_equal(views.load(i), backwards.load(4 - i))
        assert views.digest(i) == backwards.digest(4 - i)
    other = views_of(images, seed=1)
    assert views.digest(0) != other.digest(0)
    assert not np.array_equal(views.load(0), other.load(0))
    assert not np.array_equal(views.load(0), views.load(5))


def test_another_variation_has_other_digests(images):
    assert views_of(images).digest(0) != views_of(images, variation=Noise("other")).digest(0)
    assert views_of(images).digest(0) != images.digest(0)


def test_taken_views_are_the_same(images):
    views = views_of(images)
    taken = views.take([9, 0]).take([True, False])
    assert len(taken) == 1
    np.testing.assert_array_equal(taken.load(0), views.load(9))
    assert taken.digest(0) == views.digest(9)
    assert views.path(0) is None


def test_errors_name_the_item(tmp_path, digit_files):
    paths = list(digit_files[0][:2])
    views = Views(as_image_collection(paths), ["a", "b"], Noise(), seed=0, views=range(2))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    views = Views(
        as_image_collection([paths[0], broken]), ["a", "b"], Noise(), seed=0, views=range(2)
    )
    with pytest.raises(exceptions.ImageError, match=r"row 3 .*broken\.png"):
        views.load(3)


def test_plain_numbers_have_no_views():
    numbers = as_image_collection(np.ones((4, 3)), ReadOptions(image_shape=(1, -1)))
    with pytest.raises(exceptions.InputError, match="plain numbers"):
        Views(numbers, ["a"] * 4, Noise(), seed=0, views=[0])
