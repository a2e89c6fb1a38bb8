"""Displays: what they take from a search or an estimator, and that they draw it."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_featx import (
    FineTuneClassifier,
    PretrainedFeatureExtractor,
    TrainingHistoryDisplay,
    UnfreezeDepthDisplay,
    exceptions,
)
from sklearn_featx.inspection import (
    EmbeddingDisplay,
    HeatMapDisplay,
    NeighborsDisplay,
    near_duplicates,
    nearest_images,
)

mpl.use("Agg")


@pytest.fixture
def pyplot():
    from matplotlib import pyplot as plt

    yield plt
    plt.close("all")


def tuner(backbone, **parameters):
    settings = {"max_epochs": 3, "random_state": 0, "C": 1.0, "image_size": 16}
    return FineTuneClassifier(backbone, **settings | parameters)


def search_over(estimator, grid, digits, **settings):
    return GridSearchCV(estimator, grid, cv=2, **settings).fit(*digits)


class TestUnfreezeDepth:
    def test_depths_in_order_with_what_they_train(self, small_net, digits, pyplot):
        depths = ["all", 2, (3, 3), 0]
        search = search_over(tuner(small_net), {"unfreeze_depth": depths}, digits)
        display = UnfreezeDepthDisplay.from_search(search)
        assert display.depths == [0, 2, "all", (3, 3)]
        stages = [small_net.stem, small_net.body, small_net.top]
        counts = [sum(p.numel() for p in stage.parameters()) for stage in stages]
        assert display.n_trained == [0, sum(counts[1:]), sum(counts), counts[0]]
        ticks = [tick.get_text() for tick in display.ax_.get_xticklabels()]
        assert ticks == display.labels
        assert ticks[0] == "0\nhead only"
        assert len(display.time_ax_.patches) == 4
        assert display.figure_ is display.ax_.figure

    def test_the_best_candidate_of_each_depth_is_shown(self, small_net, digits, pyplot):
        grid = {"unfreeze_depth": [1, 0], "lr": [1e-6, 3e-2]}
        search = search_over(tuner(small_net, head_init="random"), grid, digits)
        display = UnfreezeDepthDisplay.from_search(search)
        results = search.cv_results_
        scores = results["mean_test_score"]
        for depth, mean, std in zip(
            display.depths, display.mean_scores, display.std_scores, strict=True
        ):
            of_depth = np.flatnonzero(results["param_unfreeze_depth"] == depth)
            best = of_depth[np.argmax(scores[of_depth])]
            assert (mean, std) == (scores[best], results["std_test_score"][best])

    def test_in_a_pipeline_with_another_metric(self, small_net, digits, pyplot):
        pipe = Pipeline([("clf", tuner(small_net))])
        search = search_over(
            pipe, {"clf__unfreeze_depth": [0, 1]}, digits,
            scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss",
        )  # fmt: skip
        display = UnfreezeDepthDisplay.from_search(search)
        assert display.depths == [0, 1]
        assert display.ax_.get_ylabel() == "Neg_log_loss"
        assert all(score < 0 for score in display.mean_scores)

    def test_draws_on_given_axes(self, pyplot):
        figure, ax = pyplot.subplots()
        display = UnfreezeDepthDisplay([0, 1], [0.8, 0.9], [0.1, 0.1], [1.0, 2.0], [0, 1_500_000])
        assert display.plot(ax=ax) is display
        assert display.ax_ is ax
        assert display.figure_ is figure
        assert display.labels[1] == "1\n1.5 M"

    def test_another_search_is_refused(self, pyplot):
        X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
        search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2)
        with pytest.raises(NotFittedError, match="This GridSearchCV instance is not fitted yet"):
            UnfreezeDepthDisplay.from_search(search)
        with pytest.raises(TypeError, match="expected a fitted GridSearchCV"):
            UnfreezeDepthDisplay.from_search(LogisticRegression().fit(X, y))
        with pytest.raises(ValueError, match="not over 'unfreeze_depth'"):
            UnfreezeDepthDisplay.from_search(search.fit(X, y))


class TestTrainingHistory:
    def test_losses_and_best_epoch(self, small_net, digits, pyplot):
        clf = tuner(small_net, early_stopping=True, validation_fraction=0.3).fit(*digits)
        for estimator in (clf, Pipeline([("clf", clf)])):
            display = TrainingHistoryDisplay.from_estimator(estimator)
            valid = [epoch["valid_loss"] for epoch in clf.history_]
            assert display.train_loss == [epoch["train_loss"] for epoch in clf.history_]
            np.testing.assert_array_equal(display.lines_[1].get_ydata(), valid)
            assert display.best_epoch == int(np.argmin(valid)) + 1
            texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
            assert texts == ["training", "validation", f"best, epoch {display.best_epoch}"]

    def test_without_validation_there_is_one_curve(self, small_net, digits, pyplot):
        _, ax = pyplot.subplots()
        display = TrainingHistoryDisplay.from_estimator(tuner(small_net).fit(*digits), ax=ax)
        assert display.ax_ is ax
        assert display.valid_loss is display.best_epoch is None
        assert len(display.lines_) == 1

    def test_a_probe_has_no_history(self, small_net, digits):
        with pytest.raises(ValueError, match="linear probe"):
            TrainingHistoryDisplay.from_estimator(tuner(small_net, unfreeze_depth=0).fit(*digits))
        with pytest.raises(NotFittedError, match="This FineTuneClassifier instance"):
            TrainingHistoryDisplay.from_estimator(tuner(small_net))

    def test_of_a_search(self, small_net, digits, pyplot):
        search = GridSearchCV(tuner(small_net), {"lr": [1e-3]}, cv=2)
        with pytest.raises(NotFittedError, match="This GridSearchCV instance"):
            TrainingHistoryDisplay.from_estimator(search)
        display = TrainingHistoryDisplay.from_estimator(search.fit(*digits))
        losses = [epoch["train_loss"] for epoch in search.best_estimator_.history_]
        assert display.train_loss == losses

    def test_another_model_is_refused(self):
        X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
        with pytest.raises(TypeError, match="expected a fitted fine-tuner"):
            TrainingHistoryDisplay.from_estimator(LogisticRegression().fit(X, y))


@pytest.mark.parametrize(
    "function",
    [
        lambda model, X: TrainingHistoryDisplay.from_estimator(model),
        HeatMapDisplay.from_estimator,
        EmbeddingDisplay.from_estimator,
        lambda model, X: nearest_images(model, X, X),
        near_duplicates,
    ],
)
def test_a_pipeline_that_is_not_fitted_is_named_itself(function, small_net, digits):
    extractor = PretrainedFeatureExtractor(small_net)
    for model in (
        Pipeline([("extractor", extractor), ("classifier", LogisticRegression())]),
        Pipeline([("classifier", tuner(small_net))]),
    ):
        with pytest.raises(NotFittedError, match=r"This Pipeline instance is not fitted yet. Call"):
            function(model, digits[0])


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(exceptions.MissingDependencyError, match=r"sklearn-featx\[plot\]"):
        TrainingHistoryDisplay([1.0]).plot()


@pytest.mark.parametrize("module", ["_embedding_display", "_heat_maps", "_neighbors"])
def test_a_missing_matplotlib_is_named_before_anything_is_computed(monkeypatch, module):
    # github.com/scverse/scanpy/issues/3459: an hour of computation before the error
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(f"sklearn_featx.inspection.{module}.Model", None)
    draw = {
        "_embedding_display": lambda: EmbeddingDisplay.from_estimator(None, []),
        "_heat_maps": lambda: HeatMapDisplay.from_estimator(None, []),
        "_neighbors": lambda: NeighborsDisplay.from_estimator(None, [], []),
    }[module]
    with pytest.raises(exceptions.MissingDependencyError, match=r"sklearn-featx\[plot\]"):
        draw()
