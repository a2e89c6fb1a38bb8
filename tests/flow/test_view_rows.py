"""`augment` and `n_views`: what training sees, and what is remembered of it."""

import numpy as np
import pytest
from sklearn.base import clone
from torchvision.transforms import v2

from sklearn_featx import FeatureStore, FineTuneClassifier, ImageReader, exceptions
from sklearn_featx.training import RowsDataset


def classifier(backbone, **parameters):
    settings = {
        "unfreeze_depth": 1, "max_epochs": 4, "random_state": 0, "C": 1.0, "image_size": 16,
        "lr": 1e-2, "augment": "light", "n_views": 3,
    }  # fmt: skip
    return FineTuneClassifier(backbone, **settings | parameters)


def assert_same_state(one, other, **tolerance):
    assert one.trained_state_.keys() == other.trained_state_.keys()
    for name, value in one.trained_state_.items():
        np.testing.assert_allclose(value, other.trained_state_[name], err_msg=name, **tolerance)


@pytest.fixture
def epochs(monkeypatch):
    """Rows that each epoch of the test trained on, by epoch, in the order of the images."""
    seen = {}
    original = RowsDataset.start_epoch

    def spy(dataset, epoch):
        original(dataset, epoch)
        seen[epoch] = np.array(dataset.rows[list(range(len(dataset)))])

    monkeypatch.setattr(RowsDataset, "start_epoch", spy)
    return seen


def test_remembered_views_train_like_computed_ones_to_the_bit(small_net, digits, tmp_path):
    computed = classifier(small_net, cache=False).fit(*digits)
    first = classifier(small_net, cache=tmp_path).fit(*digits)
    second = classifier(small_net, cache=tmp_path).fit(*digits)
    assert_same_state(computed, first, rtol=0, atol=0)
    assert_same_state(computed, second, rtol=0, atol=0)


def test_files_have_the_views_of_their_content(small_net, digit_files, tmp_path):
    # With a store the keys of files come from path, size and time; without one from their bytes.
    paths, labels = digit_files
    computed = classifier(small_net, cache=False).fit(paths[:20], labels[:20])
    remembered = classifier(small_net, cache=tmp_path, n_jobs=2)
    for _ in range(2):
        assert_same_state(computed, remembered.fit(paths[:20], labels[:20]), rtol=0, atol=0)


def test_views_go_through_the_trunk_once(small_net, digits, tmp_path, trunk_rows):
    # 60 plain images for the probe, and 3 views of each.
    classifier(small_net, cache=tmp_path).fit(*digits)
    assert sum(trunk_rows) == 60 + 180
    classifier(small_net, cache=tmp_path, max_epochs=7, lr=1e-3).fit(*digits)
    fold = np.arange(0, 60, 2)
    classifier(small_net, cache=tmp_path).fit(digits[0][fold], digits[1][fold])
    assert sum(trunk_rows) == 60 + 180
    classifier(small_net, cache=tmp_path, n_views=4).fit(*digits)
    assert sum(trunk_rows) == 60 + 240
    classifier(small_net, cache=tmp_path, random_state=1).fit(*digits)
    assert sum(trunk_rows) == 60 + 240 + 180


def test_epochs_see_the_views_in_turn(small_net, digits, epochs):
    classifier(small_net, max_epochs=5).fit(*digits)
    assert sorted(epochs) == [0, 1, 2, 3, 4]
    for epoch in (3, 4):
        np.testing.assert_array_equal(epochs[epoch], epochs[epoch - 3])
    assert not np.array_equal(epochs[0], epochs[1])


def test_fresh_views_are_those_of_as_many_views_as_epochs(small_net, digits, tmp_path):
    fixed = classifier(small_net, n_views=4).fit(*digits)
    store = FeatureStore(tmp_path)
    fresh = classifier(small_net, n_views=None, cache=store).fit(*digits)
    assert_same_state(fixed, fresh, rtol=1e-3, atol=1e-4)
    # The plain images are remembered, at the split and at the end; no view is.
    assert store.info().n_rows == 120


def test_a_transform_without_a_digest_is_not_remembered(small_net, digits, tmp_path):
    store = FeatureStore(tmp_path)
    own = v2.Lambda(lambda image: image.flip(-1))
    classifier(small_net, augment=own, cache=store).fit(*digits)
    assert store.info().n_rows == 120
    # It has a method `get_params` that is none of scikit-learn's.
    named = clone(classifier(small_net, augment=v2.RandomRotation(10), cache=store))
    named.fit(*digits)
    assert store.info().n_rows == 120 + 180


@pytest.mark.parametrize("n_views", [2, None])
def test_validation_is_on_plain_images(small_net, digits, n_views, monkeypatch):
    datasets = []
    original = RowsDataset.for_validation

    def spy(dataset):
        found = original(dataset)
        datasets.append((dataset, found))
        return found

    monkeypatch.setattr(RowsDataset, "for_validation", spy)
    clf = classifier(small_net, early_stopping=True, n_views=n_views, validation_fraction=0.2)
    clf.fit(*digits)
    # The split is made once before, for the start of the head.
    training, validation = datasets[-1]
    plain, _ = clf._rows(clf._images(digits[0], reset=False), clf._backbone())
    np.testing.assert_array_equal(validation.rows[:], plain)
    # One row for each image, whatever the view: no image is on both sides of the split.
    assert len(training) == len(validation) == 60
    assert not np.array_equal(training.rows[list(range(60))], plain)
    assert "valid_loss" in clf.history_[0]


def test_prediction_and_probe_see_plain_images(small_net, digits):
    probe = classifier(small_net, unfreeze_depth=0)
    np.testing.assert_array_equal(
        probe.fit(*digits).predict_proba(digits[0]),
        clone(probe).set_params(augment=None).fit(*digits).predict_proba(digits[0]),
    )
    # One whose views are black learns nothing from them, and still predicts on images.
    black = classifier(small_net, augment=v2.Lambda(lambda image: image * 0), lr=1e-6)
    assert black.fit(*digits).score(*digits) > 0.9


@pytest.mark.parametrize("depth", [2, "all", (2, 3)])
def test_every_depth_trains_on_views(small_net, digits, depth):
    views = classifier(small_net, unfreeze_depth=depth, augment="strong").fit(*digits)
    plain = clone(views).set_params(augment=None).fit(*digits)
    name = next(name for name in views.trained_state_ if "stages" in name)
    assert not np.array_equal(views.trained_state_[name], plain.trained_state_[name])


def test_partial_fit_takes_the_views_in_turn(small_net, digits, epochs):
    clf = classifier(small_net, n_views=2)
    for _ in range(3):
        clf.partial_fit(*digits, classes=[0, 1, 2])
    np.testing.assert_array_equal(epochs[0], epochs[2])
    assert not np.array_equal(epochs[0], epochs[1])


def test_weights_belong_to_images(small_net, digits, epochs):
    weights = (digits[1] != 0).astype(float)
    classifier(small_net).fit(*digits, sample_weight=weights)
    assert len(epochs[0]) == int(weights.sum())


@pytest.mark.parametrize("n_views", [2, None])
def test_errors_name_the_row_in_what_was_given(small_net, digits, n_views):
    def fails(image):
        if np.array_equal(image[0], digits[0][37]):
            raise exceptions.ImageError("cannot be varied", row=None)
        return image

    clf = classifier(small_net, augment=fails, n_views=n_views, cache=False)
    # Rows of weight 0 are left out.
    with pytest.raises(exceptions.ImageError, match="row 37: cannot be varied"):
        clf.fit(*digits, sample_weight=np.arange(60) > 30)


def test_tables_of_numbers_have_no_views(plain_factory):
    clf = FineTuneClassifier(
        plain_factory, reader=ImageReader(image_shape=(1, -1)), augment="light", C=1.0
    )
    with pytest.raises(exceptions.InputError, match="plain numbers"):
        clf.fit(np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2)
