"""scikit-learn's callbacks: one task for each epoch, alone and in a search."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_featx import FineTuneClassifier, FineTuneRegressor
from sklearn_featx.estimators import _fit_tasks

callback = pytest.importorskip("sklearn.callback")


def tuner(small_net, cls=FineTuneClassifier, **parameters):
    settings = {"C": 1.0, "max_epochs": 3, "image_size": 16, "random_state": 0, "lr": 1e-2}
    return cls(small_net, **{**settings, **parameters})


class Notes:
    """A callback that notes the tasks, and may stop one."""

    def __init__(self, last=None):
        self.calls, self.last = [], last

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.calls.append(("end", context.task_name, context.task_id))
        return context.task_name == "epoch" and context.task_id == self.last


@pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
def test_the_tasks_of_a_fit(small_net, digits, cls):
    notes = Notes()
    tuned = tuner(small_net, cls, max_epochs=2).set_callbacks(notes).fit(*digits)
    assert notes.calls == [
        "setup", ("begin", "fit", 0), ("begin", "epoch", 0), ("end", "epoch", 0),
        ("begin", "epoch", 1), ("end", "epoch", 1), ("end", "fit", 0), "teardown",
    ]  # fmt: skip
    plain = tuner(small_net, cls, max_epochs=2).fit(*digits)
    for name, value in plain.trained_state_.items():
        np.testing.assert_array_equal(tuned.trained_state_[name], value)


def test_a_callback_stops_the_training(small_net, digits):
    notes = Notes(last=0)
    tuned = tuner(small_net).set_callbacks(notes).fit(*digits)
    assert len(tuned.history_) == 1
    assert notes.calls[-2:] == [("end", "fit", 0), "teardown"]


def test_early_stopping_leaves_no_task_open(small_net, digits):
    notes = Notes()
    settings = {"early_stopping": True, "n_iter_no_change": 1, "lr": 1e-9, "max_epochs": 9}
    tuned = tuner(small_net, **settings).set_callbacks(notes).fit(*digits)
    assert len(tuned.history_) < 9
    begun, ended = ([c for c in notes.calls if c[0] == word] for word in ("begin", "end"))
    assert len(begun) == len(ended) == len(tuned.history_) + 1


def test_a_probe_has_no_epochs(small_net, digits):
    notes = Notes()
    tuner(small_net, unfreeze_depth=0).set_callbacks(notes).fit(*digits)
    assert notes.calls == ["setup", ("begin", "fit", 0), ("end", "fit", 0), "teardown"]


def test_scores_of_each_epoch(small_net, digits):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    tuned = tuner(small_net).set_callbacks(monitor).fit(*digits)
    rows = monitor.get_logs().data
    scores = [row["accuracy"] for row in rows if row["task_name"] == "epoch"]
    assert len(scores) == 3
    assert scores[-1] == tuned.score(*digits)
    # What the callback predicts changes nothing in the training.
    plain = tuner(small_net).fit(*digits)
    np.testing.assert_array_equal(plain.predict_proba(digits[0]), tuned.predict_proba(digits[0]))


def test_in_a_search(small_net, digits, capsys):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    clf = tuner(small_net, max_epochs=2)
    clf.set_callbacks(monitor)
    assert clone(clf)._skl_callbacks == [monitor]
    search = GridSearchCV(clf, {"unfreeze_depth": [0, 1]}, cv=2, error_score="raise")
    search.set_callbacks(callback.ProgressBar()).fit(*digits)
    rows = monitor.get_logs().data
    # Two folds of depth 1; of the best depth, once more on all images.
    n_refit = 2 if search.best_params_["unfreeze_depth"] else 0
    assert sum(row["task_name"] == "epoch" for row in rows) == 2 * 2 + n_refit
    assert hasattr(search.best_estimator_, "trained_state_")


def test_older_versions_have_no_tasks():
    net = type("Net", (), {"callbacks": ["own"]})()
    tasks = _fit_tasks.FitTasks(object(), None, None, None)
    tasks.begin(net, 3)
    tasks.end()
    assert net.callbacks == ["own"]
