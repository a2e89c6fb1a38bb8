"""Heads that read all stages: where they start, what they cost, and what works with them."""

import pickle

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn

from sklearn_featx import FineTuneClassifier, FineTuneRegressor, PretrainedFeatureExtractor
from sklearn_featx.training import Scaling

# Means of nine cells of each stage, the mean of the last.
WIDTHS = [72, 144, 32]
DEPTHS = [0, 1, 2, "all", (2, 3)]


@pytest.fixture
def make(small_net):
    def make(cls=FineTuneClassifier, **parameters):
        settings = {"C": 1.0, "random_state": 0, "batch_size": 20, "max_epochs": 2, "lr": 0.01}
        return cls(small_net, head_layers="all", **settings | parameters)

    return make


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_every_depth_starts_at_the_probe_on_all_layers(make, digits, kind):
    X, y = digits
    cls = FineTuneRegressor if kind == "regression" else FineTuneClassifier
    y = np.eye(3, dtype=int)[y] if kind == "multilabel" else y
    output = "predict" if kind == "regression" else "predict_proba"
    probe = make(cls, unfreeze_depth=0).fit(X[:40], y[:40])
    assert probe.layer_widths_ == WIDTHS
    expected = getattr(probe, output)(X[40:])
    for depth in DEPTHS[1:]:
        started = make(cls, unfreeze_depth=depth, lr=1e-12, max_epochs=1).fit(X[:40], y[:40])
        np.testing.assert_allclose(getattr(started, output)(X[40:]), expected, atol=2e-4)


def test_depth_0_is_the_pipeline_on_all_layers(make, digits, small_net):
    X, y = digits
    solver = LogisticRegression(C=1.0, tol=1e-6, max_iter=1000)
    extractor = PretrainedFeatureExtractor(small_net, layer="all", pooling="grid3")
    features = extractor.fit_transform(X)
    scaling = Scaling.of(features[:40], None, WIDTHS)
    expected = solver.fit(scaling.apply(features[:40]), y[:40])
    probe = make(unfreeze_depth=0).fit(X[:40], y[:40])
    np.testing.assert_allclose(
        probe.predict_proba(X[40:]),
        expected.predict_proba(scaling.apply(features[40:])),
        atol=1e-4,
    )
    np.testing.assert_allclose(probe.transform(X), features, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_all_that_is_trained_moves_and_nothing_else(make, digits, depth):
    X, y = digits
    clf = make(unfreeze_depth=depth).fit(X, y)
    n_trained = {0: 0, 1: 1, 2: 2, "all": 3, (2, 3): 2}[depth]
    prefixes = {".".join(name.split(".")[:2]) for name in clf.trained_state_}
    assert len([p for p in prefixes if p.startswith("stages")]) == n_trained
    module = clf.net_.module_
    assert module.head[1].in_features == sum(WIDTHS)
    assert clf.score(X, y) > 0.8


@pytest.mark.parametrize("head", ["linear", "own"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_each_image_passes_the_trunk_once(make, digits, trunk_rows, depth, head, tmp_path):
    X, y = digits
    given = "linear" if head == "linear" else nn.Linear(sum(WIDTHS), 3)
    clf = make(unfreeze_depth=depth, head=given, max_epochs=1, cache=tmp_path).fit(X, y)
    clf.predict(X)
    # From pixels on, a head of one's own needs nothing of the frozen network.
    nothing = depth in ("all", (2, 3)) and head == "own"
    assert sum(trunk_rows) == (0 if nothing else len(X))


@pytest.mark.parametrize(
    "parameters",
    [
        {"augment": "light", "n_views": 2, "image_size": 8},
        {"augment": "light", "n_views": None, "image_size": 8},
        {"early_stopping": True},
        {"head": "mlp"},
        {"head": nn.Linear(sum(WIDTHS), 3)},
        {"head": nn.Linear},
        {"precision": "bfloat16"},
        {"batch_norm": "train"},
        {"n_jobs": 2},
        {"granularity": "block"},
        {"cache": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("depth", [0, 1, "all"])
def test_what_works_with_it(make, digits, parameters, depth):
    X, y = digits
    clf = make(unfreeze_depth=depth, **parameters).fit(X, y)
    outputs = clf.predict_proba(X[:20])
    assert np.isfinite(outputs).all()
    np.testing.assert_allclose(clf.predict_proba(X[3:4]), outputs[3:4], atol=1e-5)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(X[:20]), outputs)


def test_saved_by_skops(make, digits, tmp_path):
    X, y = digits
    clf = FineTuneClassifier(image_size=32, head_layers="all", unfreeze_depth=0, C=1.0).fit(
        X[:20], y[:20]
    )
    skops.io.dump(clf, tmp_path / "tuned.skops")
    trusted = skops.io.get_untrusted_types(file=tmp_path / "tuned.skops")
    loaded = skops.io.load(tmp_path / "tuned.skops", trusted=trusted)
    np.testing.assert_array_equal(loaded.predict_proba(X[:4]), clf.predict_proba(X[:4]))


@pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
def test_training_goes_on(make, digits, cls):
    X, y = digits
    classes = {"classes": [0, 1, 2]} if cls is FineTuneClassifier else {}
    model = make(cls).partial_fit(X[:30], y[:30], **classes)
    before = model.trained_state_["head.1.weight"].copy()
    model.partial_fit(X[30:], y[30:])
    assert len(model.history_) == 2
    assert not np.array_equal(model.trained_state_["head.1.weight"], before)
    warm = make(cls, warm_start=True).fit(X, y)
    first = warm.history_[-1]["train_loss"]
    assert warm.fit(X, y).history_[-1]["train_loss"] < first


def test_a_head_of_the_wrong_width_is_told_the_width(make, digits):
    with pytest.raises(ValueError, match=r"\(n_rows, 248\), whose width .* head_layers"):
        make(head=nn.Linear(32, 3)).fit(*digits)


def test_rows_that_do_not_fit_into_memory_are_read_when_needed(make, digits, monkeypatch):
    from sklearn_featx.flow import _activations

    X, y = digits
    expected = make().fit(X, y).predict_proba(X)
    monkeypatch.setattr(_activations, "_HELD_BYTES", 0)
    np.testing.assert_array_equal(make().fit(X, y).predict_proba(X), expected)


def test_images_of_another_size_can_be_predicted(make, digits):
    X, y = digits
    clf = make(max_epochs=1).fit(X, y)
    larger = np.repeat(np.repeat(X[:4], 2, axis=1), 2, axis=2)
    assert clf.predict_proba(larger).shape == (4, 3)


def test_last_is_one_layer(make, digits, small_net):
    clf = clone(make()).set_params(head_layers="last").fit(*digits)
    assert clf.layer_widths_ == [32]
    assert clf.n_embedding_ == 32
    assert isinstance(clf.net_.module_.head, nn.Module)
    rows = torch.rand(2, 16, 4, 4)
    assert clf.net_.module_.embed(rows).shape == (2, 32)
