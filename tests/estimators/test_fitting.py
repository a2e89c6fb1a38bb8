"""A fit that fails changes nothing, and a call gives each warning once."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_featx import FineTuneClassifier, FineTuneRegressor, PretrainedFeatureExtractor
from sklearn_featx.exceptions import (
    DivergenceError,
    ImageWarning,
    RandomWeightsWarning,
    StoreWarning,
)

TUNERS = [FineTuneClassifier, FineTuneRegressor]
ALL = [PretrainedFeatureExtractor, *TUNERS]


def make(cls, backbone="efficientnet_lite0", **parameters):
    settings = {} if cls is PretrainedFeatureExtractor else {"C": 1.0, "max_epochs": 1}
    return cls(backbone, **{"cache": False} | settings | parameters)


def learned(estimator):
    return {name: value for name, value in vars(estimator).items() if name.endswith("_")}


class TestFailures:
    @pytest.mark.parametrize("cls", ALL)
    @pytest.mark.parametrize("method", ["fit", "fit_transform"])
    def test_columns_of_a_failed_fit_are_forgotten(self, cls, method, small_net, digits):
        X, y = digits
        model = make(cls, small_net)
        with pytest.raises(ValueError, match=r"0 sample|\S"):
            getattr(model, method)(pd.DataFrame({"p": []}), [])
        assert learned(model) == {}
        other = pd.DataFrame({"q": list(X)})
        if cls is PretrainedFeatureExtractor:
            np.testing.assert_array_equal(model.transform(other), model.transform(X))
        else:
            with pytest.raises(NotFittedError):
                model.predict(other)
        assert model.fit(other, y).feature_names_in_.tolist() == ["q"]

    @pytest.mark.parametrize("cls", TUNERS)
    @pytest.mark.parametrize("method", ["fit", "fit_transform"])
    def test_a_training_that_diverges(self, cls, method, small_net, digits):
        model = make(cls, small_net, lr=1e30, backbone_lr_ratio=1.0, max_epochs=5)
        with pytest.raises(DivergenceError):
            getattr(model, method)(*digits)
        assert learned(model) == {}

    def test_a_failed_part_of_several(self, small_net, digits):
        X, y = digits
        model = make(FineTuneClassifier, small_net)
        with pytest.raises(ValueError, match="not among the classes"):
            model.partial_fit(X, y, classes=[0, 1])
        assert learned(model) == {}
        model.partial_fit(X, y, classes=[0, 1, 2])
        before = learned(model)
        with pytest.raises(ValueError, match="not among the classes"):
            model.partial_fit(X, y + 1)
        assert learned(model) == before

    @pytest.mark.parametrize("cls", ALL)
    def test_an_earlier_fit_is_kept(self, cls, small_net, digits):
        X, y = digits
        model = make(cls, small_net).fit(pd.DataFrame({"p": list(X)}), y)
        before = learned(model)
        with pytest.raises(ValueError, match=r"\S"):
            model.fit(pd.DataFrame({"q": [*X[:-1], "lost.png"]}), y)
        after = learned(model)
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] for name in before)
        call = model.transform if cls is PretrainedFeatureExtractor else model.predict
        assert len(call(pd.DataFrame({"p": list(X)}))) == len(X)


class TestWarnings:
    @pytest.mark.parametrize("cls", ALL)
    @pytest.mark.parametrize("method", ["fit", "fit_transform", "transform", "predict"])
    @pytest.mark.parametrize(
        ("parameters", "category"),
        [({"weights": None}, RandomWeightsWarning), ({"cache": ""}, StoreWarning)],
    )
    def test_once_in_each_call(self, cls, method, parameters, category, digits):
        X, y = digits[0][:12], digits[1][:12]
        model = make(cls, image_size=32, **parameters)
        if not hasattr(model, method):
            pytest.skip("not a method of it")
        arguments = (X, y) if method.startswith("fit") else (X,)
        if len(arguments) == 1:
            with pytest.warns(category):
                model.fit(X, y)
        for _ in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                getattr(model, method)(*arguments)
            assert [w.category for w in caught] == [category]
        with pytest.warns(category):
            clone(model).fit(X, y)

    @pytest.mark.parametrize("cls", TUNERS)
    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_at_the_line_of_the_user(self, cls, method, digit_files):
        paths, y = [*digit_files[0][:20], "lost.png"], digit_files[1][:21]
        model = make(cls, image_size=32, on_error="nan", weights=None)
        more = {"classes": [0, 1, 2]} if (cls, method) == (TUNERS[0], "partial_fit") else {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(model, method)(paths, y, **more)
        assert {w.category for w in caught} == {ImageWarning, RandomWeightsWarning}
        assert {w.filename for w in caught} == {__file__}
