"""Fitted estimators that are changed in place: prediction follows, as a loaded copy does."""

import gc
import pickle
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import FineTuneClassifier, FineTuneRegressor
from sklearn_featx.estimators._tuned_network import tuned_network
from sklearn_featx.exceptions import WeightsError


def assign_arrays(model):
    for name, array in model.trained_state_.items():
        model.trained_state_[name] = array * 0.5


def change_classes(model):
    model.classes_[:] = model.classes_ + 5


def change_scale(model):
    model.target_scale_ *= 2
    model.target_mean_ -= 1


@pytest.fixture(scope="module")
def fitted(small_net_factory, digits):
    images, labels = digits
    net = small_net_factory()
    settings = {"image_size": 16, "max_epochs": 1, "random_state": 0, "C": 1.0}
    return {
        kind: pickle.dumps(kind(net, **settings).fit(images[:20], labels[:20]))
        for kind in (FineTuneClassifier, FineTuneRegressor)
    }


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (FineTuneClassifier, assign_arrays),
        (FineTuneRegressor, assign_arrays),
        (FineTuneClassifier, change_classes),
        (FineTuneRegressor, change_scale),
    ],
)
def test_prediction_follows_a_change_in_place(kind, change, fitted, digits):
    images, _ = digits
    model = pickle.loads(fitted[kind])
    before = model.predict(images[:20])
    change(model)
    after = model.predict(images[:20])
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, pickle.loads(pickle.dumps(model)).predict(images[:20]))


def test_training_continues_from_a_changed_state(fitted, digits):
    images, labels = digits
    model = pickle.loads(fitted[FineTuneRegressor]).partial_fit(images[:20], labels[:20])
    assign_arrays(model)
    copied = pickle.loads(pickle.dumps(model))
    for one in (model, copied):
        one.partial_fit(images[:20], labels[:20])
    for name, array in model.trained_state_.items():
        np.testing.assert_array_equal(array, copied.trained_state_[name])


def test_arrays_of_the_state_are_read_only(fitted, digits):
    model = pickle.loads(fitted[FineTuneClassifier])
    model.predict(digits[0][:2])
    for array in model.trained_state_.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_missing_array_is_named(fitted, digits):
    model = pickle.loads(fitted[FineTuneClassifier])
    model.predict(digits[0][:2])
    name, _ = model.trained_state_.popitem()
    with pytest.raises(WeightsError, match=name):
        model.predict(digits[0][:2])


def test_nets_are_neither_copied_nor_saved(fitted, digits):
    model = pickle.loads(fitted[FineTuneClassifier])
    unused = pickle.dumps(model)
    model.predict(digits[0][:2])
    assert pickle.dumps(model) == unused


def test_the_tuned_backbone_follows_too(fitted, digits):
    images, _ = digits
    model = pickle.loads(fitted[FineTuneRegressor])
    first, again = (tuned_network(model, images[:4]).work.fitting.backbone for _ in range(2))
    assert first is again
    assign_arrays(model)
    changed = tuned_network(model, images[:4]).work.fitting.backbone
    assert changed.digest(len(changed.stages)) != first.digest(len(first.stages))
    itself = weakref.ref(model)
    model.head = SimpleNamespace(owner=model)
    del model
    gc.collect()
    assert itself() is None


class Joining(nn.Module):
    """Joins the axes of its maps by `view`, which needs contiguous maps."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.linear = nn.Linear(4 * 6 * 6, 8)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        return torch.relu(self.linear(x.view(x.size(0), -1)))


@pytest.mark.parametrize("head_layers", ["last", "all"])
@pytest.mark.parametrize("depth", [0, 1, "all"])
def test_networks_that_join_axes_by_view_are_trained(depth, head_layers, digits):
    X, y = digits
    model = FineTuneClassifier(
        Joining(), unfreeze_depth=depth, head_layers=head_layers, max_epochs=1, C=1.0
    )
    assert model.fit(X, y).predict_proba(X).shape == (60, 3)
