"""`partial_fit` and `warm_start` continue only what they were started with."""

import numpy as np
import pytest

from sklearn_featx import FineTuneClassifier, FineTuneRegressor
from sklearn_featx.exceptions import WeightsError


def tuner(network, cls=FineTuneClassifier, **parameters):
    return cls(network, C=1.0, max_epochs=1, random_state=0, cache=False, **parameters)


class TestClassesOfPartialFit:
    @pytest.mark.parametrize("other", [[0, 1, 2, 3], [0, 1], ["a", "b", "c"], [0, 1, 5]])
    @pytest.mark.parametrize("method", ["partial_fit", "fit"])
    def test_others_are_refused(self, other, method, small_net, digits):
        X, y = digits
        classes = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
        model = getattr(tuner(small_net), method)(X, y, **classes)
        before = model.predict_proba(X)
        with pytest.raises(ValueError, match=r"^classes=.* is not the same as .*\[0, 1, 2\]\. "):
            model.partial_fit(X, y, classes=other)
        np.testing.assert_array_equal(model.predict_proba(X), before)

    @pytest.mark.parametrize("same", [None, [0, 1, 2], [2, 0, 1], np.array([1, 2, 0, 0])])
    def test_the_same_in_any_order(self, same, small_net, digits):
        X, y = digits
        first = tuner(small_net).partial_fit(X, y, classes=[1, 0, 2])
        expected = tuner(small_net).partial_fit(X, y, classes=[0, 1, 2]).partial_fit(X, y)
        first.partial_fit(X, y, classes=same)
        assert first.classes_.tolist() == [0, 1, 2]
        np.testing.assert_array_equal(first.predict_proba(X), expected.predict_proba(X))

    def test_balanced_weights_need_all_images(self, small_net, digits):
        # As SGDClassifier: those of a call would be of its images alone.
        model = tuner(small_net, class_weight="balanced").fit(*digits)
        before = model.predict_proba(digits[0])
        with pytest.raises(ValueError, match="class_weight='balanced' needs all images"):
            model.partial_fit(*digits)
        np.testing.assert_array_equal(model.predict_proba(digits[0]), before)

    def test_text(self, small_net, digits):
        X, y = digits
        names = np.array(["a", "b", "c"], dtype=object)
        model = tuner(small_net).partial_fit(X, names[y], classes=names)
        model.partial_fit(X, names[y], classes=["c", "b", "a"])
        with pytest.raises(ValueError, match="is not the same as"):
            model.partial_fit(X, names[y], classes=["a", "b"])

    def test_several_labels_have_no_classes(self, small_net, digits):
        X, y = digits
        labels = np.column_stack([y == 0, y == 1]).astype(int)
        model = tuner(small_net).partial_fit(X, labels).partial_fit(X, labels, classes=[0, 1])
        assert model.multilabel_


class TestWarmStart:
    @pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
    @pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), (1, 0), (0, 1)])
    def test_another_depth(self, first, second, cls, small_net, digits):
        model = tuner(small_net, cls, warm_start=True, unfreeze_depth=first).fit(*digits)
        before = model.predict(digits[0])
        said = rf"^unfreeze_depth={second} was set after fit, .* fit with warm_start=False\.$"
        with pytest.raises(ValueError, match=said):
            model.set_params(unfreeze_depth=second).fit(*digits)
        model.set_params(unfreeze_depth=first)
        np.testing.assert_array_equal(model.predict(digits[0]), before)
        cold = model.set_params(unfreeze_depth=second, warm_start=False).fit(*digits)
        fresh = tuner(small_net, cls, unfreeze_depth=second).fit(*digits)
        np.testing.assert_array_equal(cold.predict(digits[0]), fresh.predict(digits[0]))

    def test_two_names_of_one_depth(self, small_net, digits):
        model = tuner(small_net, warm_start=True, unfreeze_depth="all").fit(*digits)
        assert len(model.set_params(unfreeze_depth=3).fit(*digits).history_) == 1

    def test_other_layers_of_the_head(self, small_net, digits):
        model = tuner(small_net, warm_start=True).fit(*digits)
        with pytest.raises(ValueError, match=r"^head_layers='all' was set after fit"):
            model.set_params(head_layers="all").fit(*digits)

    def test_another_backbone(self, small_net, small_net_factory, digits):
        model = tuner(small_net, warm_start=True).fit(*digits)
        with pytest.raises(
            WeightsError, match=r"^warm_start=True continues only with the backbone"
        ):
            model.set_params(backbone=small_net_factory(seed=1)).fit(*digits)
        assert model.set_params(warm_start=False).fit(*digits).score(*digits) > 0.5
