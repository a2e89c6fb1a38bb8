"""FineTuneClassifier and FineTuneRegressor: what is trained, what is frozen, what comes out."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback, EpochScoring, GradientNormClipping
from torch import nn

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    PretrainedFeatureExtractor,
    exceptions,
)


class EvenScaler(TransformerMixin, BaseEstimator):
    """Centers the columns and divides all of them by one number, their root mean variance."""

    def fit(self, X, y=None):
        self.mean_, self.scale_ = X.mean(axis=0), np.sqrt(X.var(axis=0).mean())
        return self

    def transform(self, X):
        return (X - self.mean_) / self.scale_


def classifier(backbone, **parameters):
    settings = {"max_epochs": 3, "random_state": 0, "C": 1.0, "image_size": 16}
    return FineTuneClassifier(backbone, **settings | parameters)


class InOptimizer(Callback):
    """Notes the names of the parameters that the optimizer changes."""

    def on_train_begin(self, net, **kwargs):
        changed = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
        self.names_ = {n for n, p in net.module_.named_parameters() if id(p) in changed}


@pytest.fixture
def regression(digits):
    """Digits and the share of ink in each."""
    images, _ = digits
    return images, images.mean(axis=(1, 2))


class TestDepths:
    def test_probe_equals_logistic_regression_on_the_extractors_features(self, small_net, digits):
        images, labels = digits
        clf = classifier(small_net, unfreeze_depth=0, C=0.5).fit(images, labels)
        features = PretrainedFeatureExtractor(small_net, image_size=16).fit_transform(images)
        reference = make_pipeline(
            EvenScaler(), LogisticRegression(C=0.5, max_iter=10_000, tol=1e-10)
        ).fit(features.astype(np.float64), labels)
        np.testing.assert_allclose(
            clf.predict_proba(images), reference.predict_proba(features), atol=1e-5
        )
        assert clf.history_ == []

    def test_ridge_probe_equals_ridge(self, small_net, regression):
        images, ink = regression
        reg = FineTuneRegressor(small_net, unfreeze_depth=0, C=2.0, image_size=16)
        features = PretrainedFeatureExtractor(small_net, image_size=16).fit_transform(images)
        reference = make_pipeline(EvenScaler(), Ridge(alpha=0.5)).fit(features, ink)
        np.testing.assert_allclose(
            reg.fit(images, ink).predict(images), reference.predict(features), rtol=1e-4
        )

    @pytest.mark.parametrize("depth", [0, 1, 2, 3, "all", (2, 2), (1, 3), (3, 3)])
    def test_every_depth_trains_exactly_its_stages(self, depth, small_net, digits):
        images, labels = digits
        clf = classifier(
            small_net, unfreeze_depth=depth, head_init="random", callbacks=[InOptimizer()]
        ).fit(images, labels)
        first, last = depth if isinstance(depth, tuple) else (1, 3 if depth == "all" else depth)
        stages = ["top", "body", "stem"][first - 1 : last]
        expected = {
            name for name, _ in small_net.named_parameters() if name.split(".")[0] in stages
        }
        trained = {".".join(name.split(".")[2:]) for name in clf.trained_state_ if "stages" in name}
        assert trained == expected
        learned = {n for n in clf.trained_state_ if not n.endswith(("mean", "scale"))}
        assert clf.callbacks[0].names_ == learned

    def test_training_lowers_the_loss_and_learns(self, small_net, digits):
        images, labels = digits
        clf = classifier(
            small_net,
            unfreeze_depth="all",
            max_epochs=30,
            lr=1e-2,
            head_init="random",
            batch_norm="train",
        ).fit(images, labels)
        losses = [epoch["train_loss"] for epoch in clf.history_]
        assert losses[-1] < losses[0] / 3
        assert clf.score(images, labels) > 0.95

    @pytest.mark.parametrize(("precision", "mixed"), [("float32", False), ("bfloat16", True)])
    def test_mixed_precision_where_it_is_asked_for(self, precision, mixed, small_net, digits):
        images, labels = digits
        settings = {"unfreeze_depth": "all", "max_epochs": 30, "lr": 1e-2, "backbone_lr_ratio": 1.0}
        settings |= {"batch_norm": "train"}
        plain = classifier(small_net, **settings).fit(images, labels)
        clf = classifier(small_net, **settings, precision=precision).fit(images, labels)
        module = clf.net_.module_
        assert module.mixed_precision is mixed
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        same = np.array_equal(clf.predict_proba(images), plain.predict_proba(images))
        assert same is not mixed
        assert clf.score(images, labels) > 0.9

    def test_too_deep_lists_the_stages(self, small_net, digits):
        with pytest.raises(exceptions.UnknownLayerError, match="stem, body, top"):
            classifier(small_net, unfreeze_depth=4).fit(*digits)

    @pytest.mark.parametrize("granularity", ["block", ["stem", "body"]])
    def test_granularity(self, granularity, small_net, digits):
        clf = classifier(small_net, unfreeze_depth=1, granularity=granularity).fit(*digits)
        assert {name.split(".")[2] for name in clf.trained_state_ if "stages" in name} == {"top"}


class TestFrozen:
    @pytest.mark.parametrize("depth", [0, 1, 2, (3, 3), (2, 2)])
    @pytest.mark.parametrize("batch_norm", ["frozen", "train"])
    def test_the_trunk_is_bit_identical_after_fit(self, depth, batch_norm, small_net, digits):
        from sklearn_featx.backbones import get_backbone

        backbone = get_backbone(small_net).network.module
        before = {name: t.clone() for name, t in backbone.state_dict().items()}
        own = {name: t.clone() for name, t in small_net.state_dict().items()}
        clf = classifier(small_net, unfreeze_depth=depth, batch_norm=batch_norm, lr=0.1)
        clf.fit(*digits)
        assert all(torch.equal(before[name], t) for name, t in backbone.state_dict().items())
        assert all(torch.equal(own[name], t) for name, t in small_net.state_dict().items())
        module = clf.net_.module_
        for stage in module.frozen_stages():
            for name, tensor in stage.state_dict().items():
                assert torch.equal(tensor, own[name]), name

    def test_running_statistics_follow_batch_norm(self, small_net, digits):
        for mode, moves in (("frozen", False), ("train", True)):
            clf = classifier(small_net, unfreeze_depth=1, batch_norm=mode).fit(*digits)
            buffers = dict(clf.net_.module_.named_buffers())
            mean = next(b for name, b in buffers.items() if name.endswith("running_mean"))
            assert torch.equal(mean, small_net.top[1].running_mean) is not moves

    def test_the_trunk_runs_once_per_image(self, small_net, digits, trunk_rows):
        for depth in (0, 1, 2):
            trunk_rows.clear()
            classifier(small_net, unfreeze_depth=depth, max_epochs=5, cache=False).fit(*digits)
            assert sum(trunk_rows) == len(digits[0])

    def test_folds_do_not_leak(self, small_net, digits):
        images, labels = digits
        clf = classifier(small_net, unfreeze_depth="all", lr=0.1)
        first = clone(clf).fit(images[:30], labels[:30]).predict_proba(images)
        clone(clf).fit(images[30:], labels[30:])
        again = clone(clf).fit(images[:30], labels[:30]).predict_proba(images)
        np.testing.assert_array_equal(first, again)


class TestReproducibility:
    @pytest.mark.parametrize("depth", [1, "all"])
    def test_same_seed_same_result_other_seed_another(self, depth, small_net, digits):
        fits = [
            classifier(small_net, unfreeze_depth=depth, random_state=seed).fit(*digits)
            for seed in (0, 0, 1)
        ]
        for name, values in fits[0].trained_state_.items():
            np.testing.assert_array_equal(values, fits[1].trained_state_[name])
        assert any(
            not np.array_equal(values, fits[2].trained_state_[name])
            for name, values in fits[0].trained_state_.items()
        )
        # Durations differ, losses do not.
        losses = [[epoch["train_loss"] for epoch in clf.history_] for clf in fits]
        assert losses[0] == losses[1]

    def test_fitting_again_starts_from_the_pretrained_weights(self, small_net, digits):
        clf = classifier(small_net, unfreeze_depth="all", lr=0.1)
        first = clf.fit(*digits).predict_proba(digits[0])
        np.testing.assert_array_equal(clf.fit(*digits).predict_proba(digits[0]), first)

    def test_global_generators_are_left_alone(self, small_net, digits):
        state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 # the global one is the point
        clf = classifier(small_net, unfreeze_depth="all").fit(*digits)
        clf.predict(digits[0])
        assert torch.equal(torch.random.get_rng_state(), state)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


class TestLabelsAndWeights:
    @pytest.mark.parametrize(
        "names",
        [["nil", "one", "two"], [3, 7, 40], [0.0, 1.0, 2.0]],
    )
    def test_any_label_type(self, names, small_net, digits):
        images, labels = digits
        own = np.asarray(names)[labels]
        clf = classifier(small_net, unfreeze_depth=1).fit(images, own)
        assert clf.predict(images).dtype == own.dtype
        np.testing.assert_array_equal(clf.classes_, np.unique(own))
        assert clf.predict_proba(images).shape == (60, 3)
        np.testing.assert_allclose(clf.predict_proba(images).sum(axis=1), 1, rtol=1e-6)

    def test_boolean_labels(self, small_net, digits):
        images, labels = digits
        clf = classifier(small_net, unfreeze_depth=1).fit(images, labels == 1)
        assert clf.predict(images).dtype == bool

    @pytest.mark.parametrize("depth", [0, 1])
    def test_integer_weights_equal_repeated_rows(self, depth, small_net, digits):
        images, labels = digits
        small_net.dropout.p = 0.0  # its masks depend on the number of rows
        weights = np.random.default_rng(0).integers(0, 4, len(images))
        # At the probe's optimum gradients cancel, and Adam makes steps of what is left: rounding.
        start = "probe" if depth == 0 else "random"
        whole = {"batch_size": 256, "unfreeze_depth": depth, "head_init": start}
        weighted = classifier(small_net, **whole).fit(images, labels, sample_weight=weights)
        repeated = classifier(small_net, **whole).fit(
            np.repeat(images, weights, axis=0), np.repeat(labels, weights)
        )
        np.testing.assert_allclose(
            weighted.predict_proba(images), repeated.predict_proba(images), atol=1e-3
        )

    def test_balanced_classes_equal_their_weights(self, small_net, digits):
        images, labels = digits[0][:45], digits[1][:45].copy()
        labels[labels == 2] = 1
        counts = np.bincount(labels)
        assert counts[0] != counts[1]
        balanced = classifier(small_net, class_weight="balanced", unfreeze_depth=0)
        by_hand = classifier(small_net, unfreeze_depth=0)
        np.testing.assert_allclose(
            balanced.fit(images, labels).predict_proba(images),
            by_hand.fit(images, labels, sample_weight=45 / 2 / counts[labels]).predict_proba(
                images
            ),
            atol=1e-6,
        )

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (np.zeros(60, int), "one class"),
            (np.full(60, np.nan), "NaN"),
            (np.zeros(59, int), "inconsistent numbers of samples"),
            (np.linspace(0, 1, 60), "Unknown label type"),
            (None, "requires y"),
        ],
    )
    def test_bad_labels_fail_in_scikit_learns_words(self, y, message, small_net, digits):
        with pytest.raises(ValueError, match=message):
            classifier(small_net).fit(digits[0], y)

    def test_regression_of_several_targets(self, small_net, regression):
        images, ink = regression
        targets = np.column_stack([ink * 1e6, -ink])
        reg = FineTuneRegressor(small_net, unfreeze_depth=1, max_epochs=3, random_state=0)
        predicted = reg.fit(images, targets).predict(images)
        assert predicted.shape == targets.shape
        assert reg.score(images, targets) > 0.5
        assert reg.fit(images, ink).predict(images).shape == (60,)


class TestTrainingSettings:
    def test_callbacks_and_net_params_reach_skorch(self, small_net, digits):
        class Counter(Callback):
            epochs = 0

            def on_epoch_end(self, net, **kwargs):
                Counter.epochs += 1

        scoring = EpochScoring("accuracy", on_train=True, name="train_accuracy")
        clf = classifier(
            small_net,
            unfreeze_depth=1,
            callbacks=[Counter(), ("accuracy", scoring)],
            net_params={"iterator_train__drop_last": True, "max_epochs": 2},
        ).fit(*digits)
        assert Counter.epochs == len(clf.history_) == 2
        assert 0 <= clf.history_[-1]["train_accuracy"] <= 1
        with pytest.raises(ValueError, match="max_epoch"):
            classifier(small_net, net_params={"max_epoch": 2}).fit(*digits)

    def test_early_stopping_restores_the_best_epoch(self, small_net, digits):
        clf = classifier(
            small_net,
            unfreeze_depth="all",
            early_stopping=True,
            validation_fraction=0.3,
            n_iter_no_change=2,
            max_epochs=60,
            lr=0.05,
            backbone_lr_ratio=1.0,
        ).fit(*digits)
        losses = [epoch["valid_loss"] for epoch in clf.history_]
        assert len(losses) < 60
        assert int(np.argmin(losses)) < len(losses) - 1

    def test_own_heads(self, small_net, digits):
        given = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
        before = given[0].weight.clone()
        clf = classifier(small_net, head=given).fit(*digits)
        assert torch.equal(given[0].weight, before)
        assert clf.predict(digits[0]).shape == (60,)
        for head in ("mlp", lambda n_in, n_out: nn.Linear(n_in, n_out)):
            assert classifier(small_net, head=head).fit(*digits).predict(digits[0]).shape == (60,)
        with pytest.raises(ValueError, match="head"):
            classifier(small_net, head=nn.Linear(32, 5)).fit(*digits)

    def test_divergence_names_the_learning_rate(self, small_net, digits):
        clf = classifier(small_net, unfreeze_depth="all", lr=1e30, optimizer="sgd", max_epochs=20)
        with pytest.raises(exceptions.DivergenceError, match="lr=1e"):
            clf.fit(*digits)

    def test_partial_fit(self, small_net, digits):
        images, labels = digits
        clf = classifier(small_net, unfreeze_depth=1, lr=1e-2)
        with pytest.raises(ValueError, match="classes"):
            clf.partial_fit(images[:20], labels[:20])
        for _ in range(12):
            clf.partial_fit(images[:30], labels[:30], classes=[0, 1, 2])
            clf.partial_fit(images[30:], labels[30:])
        assert len(clf.history_) == 24
        assert clf.score(images, labels) > 0.9
        with pytest.raises(ValueError, match="not among the classes"):
            clf.partial_fit(images[:2], [0, 9])
        reg = FineTuneRegressor(small_net, image_size=16).partial_fit(images, labels)
        assert reg.partial_fit(images, labels).predict(images).shape == (60,)

    def test_a_feature_map_is_pooled_before_the_head(self, digits):
        maps = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3))
        for depth in (0, 1, "all"):
            clf = classifier(maps, unfreeze_depth=depth).fit(*digits)
            assert clf.n_embedding_ == 6
            assert clf.predict(digits[0]).shape == (60,)

    def test_real_weights_at_several_depths(self, digits):
        images, labels = digits
        for depth in (0, 1, 2):
            clf = FineTuneClassifier(
                unfreeze_depth=depth, image_size=32, max_epochs=2, random_state=0, C=1.0
            ).fit(images[:40], labels[:40])
            assert clf.score(images[40:], labels[40:]) > 0.7

    def test_errors_name_the_row_in_what_was_given(self, small_net, digits, tmp_path, monkeypatch):
        from PIL import Image

        from sklearn_featx.flow import _activations

        paths = []
        for i, image in enumerate(digits[0][:40]):
            paths.append(tmp_path / f"{i}.png")
            Image.fromarray(image).save(paths[-1])
        weights = np.r_[np.zeros(5), np.ones(35)]
        clf = classifier(small_net, unfreeze_depth=1, cache=False)
        fitted = clf.fit(paths, digits[1][:40], sample_weight=weights)
        paths[36].write_bytes(b"no picture")
        with pytest.raises(exceptions.ImageError, match=r"row 36 .*36\.png"):
            clf.fit(paths, digits[1][:40], sample_weight=weights)
        # As if only one batch of rows fitted into memory.
        monkeypatch.setattr(_activations, "_SLICE_BYTES", 1)
        with pytest.raises(exceptions.ImageError, match=r"row 36 .*36\.png"):
            fitted.predict(paths)


class TestTraining:
    @pytest.mark.parametrize(
        "change",
        [
            {"callbacks": [("schedule", None)]},
            {"callbacks": [GradientNormClipping(1e-3)]},
            {"net_params": {"criterion__label_smoothing": 0.2}},
        ],
        ids=["schedule", "clipping", "smoothing"],
    )
    def test_each_setting_changes_what_is_learned(self, small_net, digits, change):
        usual = classifier(small_net, lr=1e-2).fit(*digits)
        other = classifier(small_net, lr=1e-2, **change).fit(*digits)
        assert usual.trained_state_.keys() == other.trained_state_.keys()
        assert any(
            not np.array_equal(value, other.trained_state_[name])
            for name, value in usual.trained_state_.items()
        )

    def test_smoothed_labels_make_less_certain(self, small_net, digits):
        usual = classifier(small_net, lr=1e-2, max_epochs=20).fit(*digits)
        smooth = (
            clone(usual).set_params(net_params={"criterion__label_smoothing": 0.3}).fit(*digits)
        )
        certainty = [clf.predict_proba(digits[0]).max(axis=1).mean() for clf in (usual, smooth)]
        assert certainty[1] < certainty[0] - 0.02

    def test_divergence_names_the_rates_and_what_to_try(self, small_net, digits):
        with pytest.raises(exceptions.DivergenceError, match=r"lr=1e\+30.*Try a lower lr"):
            classifier(small_net, lr=1e30).fit(*digits)


@pytest.fixture
def several_labels(digits):
    """Digits, and a matrix: is it a zero, is it less than two."""
    images, labels = digits
    return images, np.column_stack([labels == 0, labels < 2]).astype(int)


class TestPenalty:
    def test_the_chosen_one_gives_the_same_model(self, small_net, digits):
        X, y = digits
        chosen = classifier(small_net, unfreeze_depth=0, C="auto").fit(X, y)
        assert chosen.C_ in 10.0 ** np.arange(-4, 5)
        given = classifier(small_net, unfreeze_depth=0, C=chosen.C_).fit(X, y)
        assert given.C_ == chosen.C_
        np.testing.assert_allclose(given.predict_proba(X), chosen.predict_proba(X), atol=1e-6)

    def test_of_a_regression(self, small_net, regression):
        settings = {"unfreeze_depth": 0, "image_size": 16}
        chosen = FineTuneRegressor(small_net, C="auto", **settings).fit(*regression)
        given = FineTuneRegressor(small_net, C=chosen.C_, **settings).fit(*regression)
        assert chosen.C_ in 10.0 ** np.arange(-4, 5)
        # 1 / (1 / 49) is another number.
        assert FineTuneRegressor(small_net, C=49.0, **settings).fit(*regression).C_ == 49.0
        images = regression[0]
        np.testing.assert_allclose(given.predict(images), chosen.predict(images), rtol=1e-5)

    def test_of_several_labels(self, small_net, several_labels):
        X, y = several_labels
        alone = [classifier(small_net, C="auto", unfreeze_depth=0).fit(X, label) for label in y.T]
        both = classifier(small_net, C="auto", unfreeze_depth=0).fit(X, y)
        assert list(both.C_) == [one.C_ for one in alone]

    @pytest.mark.parametrize("parameters", [{"head": "mlp"}, {"head_init": "random"}])
    def test_without_a_probe_there_is_none(self, parameters, small_net, digits):
        clf = classifier(small_net, unfreeze_depth=1).fit(*digits)
        assert clf.C_ == 1.0
        assert clf.set_params(**parameters).fit(*digits).C_ is None


class TestSeveralLabels:
    @pytest.mark.parametrize("depth", [0, 1])
    def test_outputs_have_the_form_of_scikit_learns(self, depth, small_net, several_labels):
        images, labels = several_labels
        small_net.dropout.p = 0.0  # it hurts a probe of few rows
        clf = classifier(small_net, unfreeze_depth=depth).fit(images, labels)
        probabilities, predicted = clf.predict_proba(images), clf.predict(images)
        assert probabilities.shape == predicted.shape == (60, 2)
        assert set(np.unique(predicted)) == {0, 1}
        np.testing.assert_array_equal(predicted, probabilities > 0.5)
        np.testing.assert_array_equal(clf.classes_, [0, 1])
        # The share of images with every label right.
        assert clf.score(images, labels) == np.mean((predicted == labels).all(axis=1)) > 0.9
        assert clf.__sklearn_tags__().classifier_tags.multi_label

    def test_the_probe_is_a_logistic_regression_for_each_label(self, small_net, several_labels):
        from sklearn.multiclass import OneVsRestClassifier

        images, labels = several_labels
        clf = classifier(small_net, unfreeze_depth=0, C=0.5).fit(images, labels)
        features = PretrainedFeatureExtractor(small_net, image_size=16).fit_transform(images)
        logistic = LogisticRegression(C=0.5, max_iter=10_000, tol=1e-10)
        reference = make_pipeline(EvenScaler(), OneVsRestClassifier(logistic))
        reference.fit(features.astype(np.float64), labels)
        np.testing.assert_allclose(
            clf.predict_proba(images), reference.predict_proba(features), atol=1e-5
        )

    def test_search_weights_stopping_and_partial_fit(self, small_net, several_labels):
        from sklearn.model_selection import GridSearchCV

        images, labels = several_labels
        clf = classifier(small_net, C="auto", early_stopping=True)
        search = GridSearchCV(clf, {"unfreeze_depth": [0, 1]}, cv=2, scoring="f1_micro")
        assert search.fit(images, labels).best_score_ > 0.8
        weights = np.r_[np.zeros(10), np.ones(50)]
        weighted = classifier(small_net).fit(images, labels, sample_weight=weights)
        fewer = classifier(small_net).fit(images[10:], labels[10:])
        np.testing.assert_array_equal(weighted.predict_proba(images), fewer.predict_proba(images))
        first = classifier(small_net, lr=1e-2)
        for _ in range(20):
            first.partial_fit(images, labels)
        assert first.score(images, labels) > 0.7

    def test_a_label_that_no_image_has_is_improbable(self, small_net, several_labels):
        images, labels = several_labels
        labels = np.column_stack([labels, np.zeros(60, int)])
        clf = classifier(small_net, unfreeze_depth=0).fit(images, labels)
        assert clf.predict_proba(images)[:, 2].max() < 0.01

    def test_sparse_matrices_are_taken(self, small_net, several_labels):
        from scipy.sparse import csr_array

        images, labels = several_labels
        dense = classifier(small_net, unfreeze_depth=0).fit(images, labels)
        sparse = classifier(small_net, unfreeze_depth=0).fit(images, csr_array(labels))
        np.testing.assert_array_equal(sparse.predict(images), dense.predict(images))

    def test_class_weights_need_exclusive_classes(self, small_net, several_labels):
        with pytest.raises(ValueError, match="class_weight"):
            classifier(small_net, class_weight="balanced").fit(*several_labels)


class TestBalance:
    def test_balanced_equals_repeated_rows(self, small_net, digits):
        """Half as many of one class: its rows twice, and a penalty for the sum of the weights."""
        images, labels = digits
        rows = np.r_[np.flatnonzero(labels == 0)[:9], np.flatnonzero(labels == 1)[:18]]
        images, labels = images[rows], labels[rows]
        # Weights sum to 27, repeated rows to 36.
        balanced = classifier(small_net, unfreeze_depth=0, class_weight="balanced", C=1.0)
        repeated = classifier(small_net, unfreeze_depth=0, C=0.75)
        twice = np.r_[np.arange(9), np.arange(27)]
        np.testing.assert_allclose(
            balanced.fit(images, labels).predict_proba(images),
            repeated.fit(images[twice], labels[twice]).predict_proba(images),
            atol=1e-6,
        )

    def test_weights_are_routed_to_fit_and_score(self, small_net, digits):
        import sklearn
        from sklearn.metrics import accuracy_score
        from sklearn.model_selection import GridSearchCV, StratifiedKFold

        images, labels = digits
        wrong = labels.copy()
        wrong[::3] = (wrong[::3] + 1) % 3
        weights = np.where(np.arange(60) % 3 == 0, 1e-6, 1.0)
        folds = list(StratifiedKFold(2).split(images, wrong))
        with sklearn.config_context(enable_metadata_routing=True):
            clf = classifier(small_net, unfreeze_depth=0)
            clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            search = GridSearchCV(clf, {"C": [1.0]}, cv=folds)
            search.fit(images, wrong, sample_weight=weights)
        expected = []
        for train, test in folds:
            fold = classifier(small_net, unfreeze_depth=0)
            fold.fit(images[train], wrong[train], sample_weight=weights[train])
            predicted = fold.predict(images[test])
            expected.append(accuracy_score(wrong[test], predicted, sample_weight=weights[test]))
        np.testing.assert_allclose(search.best_score_, np.mean(expected))
        assert search.best_score_ > 0.8


class TestWarmStart:
    def test_fitting_goes_on_from_the_weights(self, small_net, digits):
        clf = classifier(small_net, warm_start=True, lr=1e-2, max_epochs=5, head_init="random")
        losses = []
        for _ in range(3):
            clf.fit(*digits)
            losses.append(clf.history_[0]["train_loss"])
        assert losses[2] < losses[1] < losses[0]
        cold = clone(clf).set_params(warm_start=False)
        first = [cold.fit(*digits).history_[0]["train_loss"] for _ in range(2)]
        assert first[0] == first[1] == losses[0]

    def test_without_a_step_the_weights_are_those_before(self, small_net, digits):
        clf = classifier(small_net, warm_start=True, lr=1e-2).fit(*digits)
        before = {name: value.copy() for name, value in clf.trained_state_.items()}
        clf.set_params(lr=1e-12).fit(*digits)
        for name, value in before.items():
            np.testing.assert_allclose(clf.trained_state_[name], value, atol=1e-9)

    def test_other_classes_or_depths_are_refused(self, small_net, digits):
        images, labels = digits
        clf = classifier(small_net, warm_start=True).fit(images, labels)
        with pytest.raises(ValueError, match=r"warm_start=True.*\[0, 1, 2\].*\[0, 1\]"):
            clf.fit(images[labels < 2], labels[labels < 2])
        with pytest.raises(ValueError, match="unfreeze_depth=2 was set after fit"):
            clf.set_params(unfreeze_depth=2).fit(images, labels)

    def test_regression_keeps_the_scale_of_its_targets(self, small_net, regression):
        images, ink = regression
        reg = FineTuneRegressor(small_net, warm_start=True, image_size=16, random_state=0)
        reg.fit(images, ink)
        mean = reg.target_mean_.copy()
        reg.fit(images[:30], ink[:30] + 1)
        np.testing.assert_array_equal(reg.target_mean_, mean)
        with pytest.raises(ValueError, match="2 targets"):
            reg.fit(images, np.column_stack([ink, ink]))

    def test_a_probe_is_solved_anew(self, small_net, digits):
        images, labels = digits
        warm = classifier(small_net, warm_start=True, unfreeze_depth=0)
        warm.fit(images[:30], labels[:30]).fit(images, labels)
        cold = classifier(small_net, unfreeze_depth=0).fit(images, labels)
        np.testing.assert_array_equal(warm.predict_proba(images), cold.predict_proba(images))
