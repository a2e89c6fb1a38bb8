"""Fitted estimators answer as fitted: a network or a structure that changed since is refused."""

import copy
import pickle
from types import MethodType

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
)
from sklearn_featx.backbones import _backbone, _registry
from sklearn_featx.exceptions import WeightsError
from sklearn_featx.inspection import HeatMapDisplay

CHANGED = "is not the one that this estimator was fitted on"


def add_to_a_weight(network):
    with torch.no_grad():
        network.stem[0].weight[0, 0, 0, 0] += 1


def set_a_setting(network):
    network.body[0].stride = (1, 1)


def replace_a_layer(network):
    network.top[2] = nn.Sigmoid()


def negated(network, x):
    return -type(network).forward(network, x)


def replace_forward(network):
    network.forward = MethodType(negated, network)


CHANGES = [add_to_a_weight, set_a_setting, replace_a_layer, replace_forward]


@pytest.fixture(params=[True, False], ids=["cached", "not cached"])
def extractor(request, small_net):
    return PretrainedFeatureExtractor(small_net, cache=request.param)


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
class TestNetworks:
    @pytest.mark.parametrize("change", CHANGES)
    def test_a_network_that_is_changed_in_place(self, change, extractor, digits):
        X, y = digits
        pipeline = make_pipeline(extractor, LogisticRegression()).fit(X, y)
        expected = pipeline.predict_proba(X)
        changed = extractor.backbone
        extractor.backbone = copy.deepcopy(changed)
        np.testing.assert_array_equal(pipeline.predict_proba(X), expected)
        extractor.backbone = changed
        change(changed)
        with pytest.raises(WeightsError, match=CHANGED) as error:
            pipeline.predict(X)
        assert "Fit again" in str(error.value)
        if change is not replace_forward:
            with pytest.raises(WeightsError, match=CHANGED):
                pickle.loads(pickle.dumps(pipeline)).predict(X)
        pipeline.fit(X, y)
        assert np.abs(pipeline.predict_proba(X) - expected).max() > 0

    def test_what_does_not_change_the_numbers(self, extractor, digits):
        X, _ = digits
        before = extractor.fit_transform(X)
        extractor.backbone.train().requires_grad_(False)
        np.testing.assert_array_equal(extractor.transform(X), before)

    def test_without_fit_the_network_of_now_counts(self, extractor, digits):
        X, _ = digits
        before = extractor.transform(X)
        add_to_a_weight(extractor.backbone)
        after = extractor.transform(X)
        assert np.abs(after - before).max() > 0
        np.testing.assert_array_equal(
            PretrainedFeatureExtractor(extractor.backbone).transform(X), after
        )

    def test_a_weights_file_that_is_replaced(self, tmp_path, digits):
        from torchvision.models import get_model

        files = tmp_path / "1.pth", tmp_path / "2.pth"
        for file in files:
            torch.save(get_model("shufflenet_v2_x0_5", weights=None).state_dict(), file)
        settings = {"weights": files[0], "image_size": 32}
        extractor = PretrainedFeatureExtractor("shufflenet_v2_x0_5", **settings).fit(digits[0][:2])
        files[0].write_bytes(files[1].read_bytes())
        with pytest.raises(WeightsError, match=CHANGED):
            extractor.transform(digits[0][:2])

    def test_heat_maps_explain_the_network_of_fit(self, small_net, digits):
        X, y = digits
        extractor = PretrainedFeatureExtractor(small_net)
        pipeline = make_pipeline(extractor, LogisticRegression()).fit(X, y)
        add_to_a_weight(small_net)
        with pytest.raises(WeightsError, match=CHANGED):
            HeatMapDisplay.from_estimator(pipeline, X[:1])

    def test_other_parameters_of_an_extractor_are_those_of_now(self, small_net, digits):
        X, _ = digits
        extractor = PretrainedFeatureExtractor(small_net).fit(X)
        extractor.set_params(layer="stem", pooling="max", image_size=10)
        other = PretrainedFeatureExtractor(small_net, layer="stem", pooling="max", image_size=10)
        np.testing.assert_array_equal(extractor.transform(X), other.transform(X))


class Counting(nn.Module):
    """Counts its calls, and makes a table at the first one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.calls, self.table = 0, None

    def forward(self, x):
        assert float(x.detach().sum()) > -1e9
        self.calls += 1
        if self.table is None:
            self.table = torch.ones(1)
        return self.conv(x).mean((2, 3)) * self.table


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
def test_state_that_a_network_keeps_while_it_computes_is_no_change(cache, digits, monkeypatch):
    X, _ = digits
    extractor = PretrainedFeatureExtractor(Counting(), cache=cache)
    expected = extractor.transform(X)
    for _ in range(2):
        np.testing.assert_array_equal(extractor.fit(X).transform(X), expected)
    # As in another process, which has computed nothing yet.
    saved = pickle.dumps(extractor)
    monkeypatch.setattr(_registry, "_networks", _registry._Memo(8))
    monkeypatch.setattr(_registry, "_backbones", _registry._Memo(16))
    np.testing.assert_array_equal(pickle.loads(saved).transform(X), expected)


def test_the_network_is_digested_once(small_net, digits, monkeypatch):
    X, _ = digits
    digested = []
    original = _backbone.digest_module
    monkeypatch.setattr(
        _backbone, "digest_module", lambda stage: digested.append(stage) or original(stage)
    )
    small_net.stem[0].bias.data += 0.5
    extractor = PretrainedFeatureExtractor(small_net, cache=False).fit(X)
    for i in range(4):
        extractor.transform(X[i : i + 1])
    assert len(digested) == 3


@pytest.mark.parametrize("method", ["predict", "transform", "partial_fit", "get_feature_names_out"])
@pytest.mark.parametrize(
    ("parameter", "value", "said"),
    [
        ("head_layers", "all", "head_layers='all' was set after fit"),
        ("unfreeze_depth", 2, "unfreeze_depth=2 was set after fit"),
        ("unfreeze_depth", (2, 2), r"unfreeze_depth=\(2, 2\) was set after fit"),
        ("granularity", ["stem"], CHANGED),
        ("head", "mlp", "do not fit|does not fit the network"),
        ("batch_norm", "train", "does not fit the network"),
    ],
)
def test_the_structure_of_a_fine_tuner(parameter, value, said, method, small_net, digits):
    X, y = digits
    fitted = FineTuneClassifier(small_net, unfreeze_depth=1, C=1.0, max_epochs=1).fit(X[:9], y[:9])
    fitted.set_params(**{parameter: value})
    arguments = {"partial_fit": (X, y), "get_feature_names_out": ()}.get(method, (X,))
    if method == "get_feature_names_out" and "fit the network" in said:
        pytest.skip("the names do not depend on it")
    with pytest.raises(ValueError, match=said) as error:
        getattr(fitted, method)(*arguments)
    assert len(str(error.value)) <= 300


class Head(nn.Module):
    def __init__(self, n_inputs, n_outputs, factor=1.0):
        super().__init__()
        self.linear = nn.Linear(n_inputs, n_outputs)
        self.factor = factor

    def forward(self, x):
        return self.factor * self.linear(x)


class TestHeads:
    """An own head is compared when a net is built from the trained weights."""

    @pytest.fixture
    def fitted(self, small_net, digits):
        X, y = digits
        head = Head(small_net.top[0].out_channels, len(set(y)))
        classifier = FineTuneClassifier(small_net, head=head, C=1.0, max_epochs=1)
        return classifier.fit(X[:20], y[:20])

    def test_a_setting_that_is_edited(self, fitted, digits):
        X, _ = digits
        expected = fitted.predict_proba(X)
        fitted.head.factor = 2.0
        # The net of fit has a copy of the head.
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)
        loaded = pickle.loads(pickle.dumps(fitted))
        with pytest.raises(WeightsError, match=r"^head=.* is not the one") as error:
            loaded.predict(X)
        assert len(str(error.value)) <= 300
        loaded.head.factor = 1.0
        np.testing.assert_array_equal(loaded.predict_proba(X), expected)

    def test_another_head_with_the_same_names(self, fitted, digits):
        X, y = digits
        expected = fitted.predict_proba(X)
        fitted.set_params(head=lambda n, m: Head(n, m, 2.0))
        for call in (fitted.predict, lambda X: fitted.partial_fit(X, y)):
            with pytest.raises(WeightsError, match=r"^head=.* is not the one"):
                call(X)
        fitted.set_params(head=Head)
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)

    def test_its_weights_are_those_of_fit(self, fitted, digits):
        X, _ = digits
        expected = fitted.predict_proba(X)
        with torch.no_grad():
            fitted.head.linear.weight.fill_(3)
        loaded = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def test_two_names_of_one_depth(small_net, digits):
    X, y = digits
    fitted = FineTuneClassifier(small_net, unfreeze_depth="all", C=1.0, max_epochs=1)
    expected = fitted.fit(X[:9], y[:9]).predict_proba(X)
    for depth in (3, (1, 3)):
        fitted.set_params(unfreeze_depth=depth)
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)


@pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
def test_another_size_of_the_input(cls, small_net, digits):
    X, y = digits
    fitted = cls(small_net, unfreeze_depth=0, C=1.0, image_size=16, warm_start=True).fit(X, y)
    assert fitted.image_size_ == (16, 16)
    expected = fitted.predict(X)
    fitted.set_params(image_size=12)
    message = "^image_size=12 was set after fit, .* fit with warm_start=False"
    for call in (fitted.predict, fitted.transform, lambda X: fitted.fit(X, y)):
        with pytest.raises(ValueError, match=message):
            call(X)
    fitted.set_params(image_size=(16, 16))
    np.testing.assert_array_equal(fitted.predict(X), expected)
    assert fitted.set_params(image_size=12, warm_start=False).fit(X, y).image_size_ == (12, 12)


def test_a_reader_may_change(small_net, digits):
    X, y = digits
    fitted = FineTuneClassifier(small_net, unfreeze_depth=0, C=1.0).fit(X, y)
    expected = fitted.predict_proba(X)
    fitted.set_params(reader=ImageReader(image_shape=(8, 8)))
    np.testing.assert_array_equal(fitted.predict_proba(X.reshape(len(X), -1)), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("on_error", "Raise"), ("precision", "fp16"), ("reader", "x"), ("n_jobs", "two")],
)
def test_parameters_are_validated_where_they_are_used(name, value, small_net, digits):
    X, y = digits
    tuner = FineTuneClassifier(small_net, unfreeze_depth=0, C=1.0).fit(X, y)
    for estimator, method in (
        (tuner, tuner.predict_proba),
        (tuner, tuner.transform),
        (extractor := PretrainedFeatureExtractor(small_net), extractor.transform),
    ):
        estimator.set_params(**{name: value})
        with pytest.raises(InvalidParameterError, match=f"'{name}' parameter .* Got '{value}'"):
            method(X[:2])
