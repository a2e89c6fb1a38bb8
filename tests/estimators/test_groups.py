"""`groups` of `fit`: early stopping and out-of-fold embeddings keep them together."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from skorch.helper import predefined_split
from torch.utils.data import Subset

from sklearn_featx import FineTuneClassifier, FineTuneRegressor
from sklearn_featx.estimators import _finetune_base, _finetune_net
from sklearn_featx.exceptions import ImageWarning
from sklearn_featx.training import RowsDataset

GROUPS = np.arange(60) // 6
SEEN = []


class Held(Callback):
    """Notes the rows that a training holds out."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        train, valid = net.get_split_datasets(X, y)
        SEEN.append((list(train.indices), list(valid.indices)))


@pytest.fixture(autouse=True)
def _nothing_seen(monkeypatch):
    SEEN.clear()
    monkeypatch.setattr(_finetune_base, "probes", _finetune_net._Probes(2**26))


def tuner(net, kind=FineTuneClassifier, **parameters):
    settings = {"max_epochs": 1, "random_state": 0, "C": 1.0, "image_size": 8, "cache": False}
    settings |= {"early_stopping": True, "validation_fraction": 0.2, "callbacks": [Held]}
    return kind(net, **settings | parameters)


def separated(groups=GROUPS):
    """How many of the noted splits have a group in both parts."""
    return sum(bool(set(groups[train]) & set(groups[valid])) for train, valid in SEEN)


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
class TestEarlyStopping:
    def test_whole_groups_are_held_out(self, kind, small_net, digits):
        tuner(small_net, kind).fit(*digits, groups=GROUPS)
        ((train, valid),) = SEEN
        assert len(set(GROUPS[valid])) == 2
        assert len(train) + len(valid) == 60
        assert separated() == 0
        tuner(small_net, kind).fit(*digits)
        assert separated() == 1

    def test_groups_of_any_type(self, kind, small_net, digits):
        names = np.array([f"patient {g}" for g in GROUPS], dtype=object)
        first = tuner(small_net, kind).fit(*digits, groups=GROUPS)
        second = tuner(small_net, kind).fit(*digits, groups=list(names))
        for name, array in first.trained_state_.items():
            np.testing.assert_array_equal(second.trained_state_[name], array)

    def test_groups_of_the_wrong_length(self, kind, small_net, digits):
        with pytest.raises(ValueError, match="groups: Found input variables with inconsistent"):
            tuner(small_net, kind).fit(*digits, groups=GROUPS[:-1])

    @pytest.mark.parametrize("missing", [None, float("nan")])
    def test_a_row_without_a_group(self, kind, missing, small_net, digits):
        groups = [missing if row in (7, 9) else str(group) for row, group in enumerate(GROUPS)]
        with pytest.raises(ValueError, match=r"groups: row 7 has no group\. Name one"):
            tuner(small_net, kind).fit(*digits, groups=np.array(groups, dtype=object))

    def test_one_group(self, kind, small_net, digits):
        with pytest.raises(ValueError, match=r"cannot hold out .* whole groups"):
            tuner(small_net, kind).fit(*digits, groups=np.zeros(60))


def test_rows_that_do_not_count_leave_groups_aligned(small_net, digits, tmp_path):
    X = [*digits[0]]
    (tmp_path / "bad.png").write_bytes(b"bad")
    X[0] = str(tmp_path / "bad.png")
    weights = np.ones(60)
    weights[6:12] = 0
    with pytest.warns(ImageWarning):
        tuner(small_net, on_error="nan").fit(X, digits[1], weights, groups=GROUPS)
    assert separated(GROUPS[np.r_[1:6, 12:60]]) == 0


def test_a_split_of_the_user_gets_the_groups(small_net, digits):
    split = ValidSplit(GroupKFold(5))
    tuner(small_net, net_params={"train_split": split}).fit(*digits, groups=GROUPS)
    assert separated() == 0
    assert len(SEEN[0][1]) == 12


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
class TestPenalty:
    """``C="auto"``: the folds that choose the penalty keep groups together."""

    @pytest.fixture
    def folds(self, monkeypatch):
        """The groups that training and test share, for each inner fold."""
        shared = []
        for splitter in (StratifiedGroupKFold, GroupKFold, StratifiedKFold):
            original = splitter.split

            def spy(cv, X, y=None, groups=None, _original=original):
                for train, test in _original(cv, X, y, groups):
                    shared.append(
                        None if groups is None else set(groups[train]) & set(groups[test])
                    )
                    yield train, test

            monkeypatch.setattr(splitter, "split", spy)
        return shared

    @pytest.mark.parametrize("depth", [0, 1])
    def test_inner_folds(self, kind, depth, small_net, digits, folds):
        settings = {"C": "auto", "unfreeze_depth": depth, "early_stopping": False}
        tuner(small_net, kind, **settings, callbacks=None).fit(*digits, groups=GROUPS)
        assert folds == [set()] * 5
        # Without groups: single rows.
        folds.clear()
        tuner(small_net, kind, **settings, callbacks=None).fit(*digits)
        assert folds == ([None] * 5 if kind is FineTuneClassifier else [])

    def test_the_probe_of_other_groups_is_another(self, kind, small_net, digits, monkeypatch):
        solved = []
        original = kind._probe

        def spy(self, rows, widths):
            solved.append(rows.groups)
            return original(self, rows, widths)

        monkeypatch.setattr(kind, "_probe", spy)
        clf = tuner(small_net, kind, C="auto", unfreeze_depth=0, early_stopping=False)
        clf.set_params(callbacks=None)
        for groups in (None, GROUPS, GROUPS, GROUPS[::-1] // 2, None):
            clf.fit(*digits, groups=groups)
        assert len(solved) == 3
        solved.clear()
        clf.set_params(C=0.125)
        for groups in (None, GROUPS, GROUPS // 2):
            clf.fit(*digits, groups=groups)
        assert len(solved) == 1


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
@pytest.mark.parametrize("groups", [None, GROUPS])
def test_the_head_starts_without_the_rows_that_are_held_out(
    kind, groups, small_net, digits, monkeypatch
):
    started = []
    original = kind._probe

    def spy(self, rows, widths):
        started.append(rows)
        return original(self, rows, widths)

    monkeypatch.setattr(kind, "_probe", spy)
    tuner(small_net, kind).fit(*digits, groups=groups)
    ((train, valid),), (rows,) = SEEN, started
    assert len(train) + len(valid) == 60
    assert len(rows.embeddings) == len(rows.targets) == len(train)
    if groups is not None:
        np.testing.assert_array_equal(rows.groups, GROUPS[train])
    # Without early stopping it starts with all of them.
    tuner(small_net, kind, early_stopping=False, callbacks=None).fit(*digits)
    assert len(started[-1].targets) == 60


def test_a_split_without_a_seed_is_made_once(small_net, digits, monkeypatch):
    calls = []

    def split(dataset, y, groups=None):
        calls.append(len(calls))
        rows = np.random.default_rng(len(calls)).permutation(len(dataset)).tolist()
        return Subset(dataset, rows[:40]), Subset(dataset, rows[40:])

    tuner(small_net, net_params={"train_split": split}).fit(*digits)
    assert calls == [0]
    assert len(SEEN[0][0]) == 40


def test_other_rows_for_the_validation(small_net, digits, monkeypatch):
    """skorch's predefined split: the head starts with all rows."""
    solved = []
    original = FineTuneClassifier._probe

    def spy(self, rows, widths):
        solved.append(len(rows.targets))
        return original(self, rows, widths)

    monkeypatch.setattr(FineTuneClassifier, "_probe", spy)
    others = RowsDataset(np.zeros((4, 16, 4, 4), np.float32), np.zeros(4, int))
    split = predefined_split(others)
    tuner(small_net, callbacks=None, net_params={"train_split": split}).fit(*digits)
    assert solved == [60]


def test_out_of_fold_embeddings(small_net, digits):
    clf = tuner(small_net, cross_fit=3, early_stopping=False, callbacks=None)
    noted = []
    original = FineTuneClassifier._folds

    class Noting(FineTuneClassifier):
        def _folds(self, rows, targets, groups):
            found = original(self, rows, targets, groups)
            noted.extend(found)
            return found

    Noting(**clf.get_params(deep=False)).fit_transform(*digits, groups=GROUPS)
    assert len(noted) == 3
    assert not any(set(GROUPS[train]) & set(GROUPS[test]) for train, test in noted)


def test_fewer_groups_than_folds_of_cross_fit(small_net, digits, trunk_rows):
    clf = tuner(small_net, cross_fit=3, early_stopping=False, callbacks=None)
    with pytest.raises(ValueError, match=r"cross_fit=3 folds .* and there are 2\. Use fewer"):
        clf.fit_transform(*digits, groups=GROUPS // 5)
    assert trunk_rows == []


class TestRouting:
    @pytest.fixture(autouse=True)
    def _routing(self):
        with sklearn.config_context(enable_metadata_routing=True):
            yield

    def test_a_search_passes_groups_to_splitter_and_fit(self, small_net, digits):
        clf = tuner(small_net).set_fit_request(groups=True)
        search = GridSearchCV(clf, {"lr": [1e-3]}, cv=GroupKFold(2))
        search.fit(*digits, groups=GROUPS)
        # Two folds and the refit.
        assert len(SEEN) == 3
        folds = [train for train, _ in GroupKFold(2).split(*digits, GROUPS)]
        for rows, (train, valid) in zip([*folds, np.arange(60)], SEEN, strict=True):
            assert not set(GROUPS[rows[train]]) & set(GROUPS[rows[valid]])

    def test_a_pipeline_in_a_search(self, small_net, digits):
        clf = tuner(small_net, unfreeze_depth=1).set_fit_request(groups=True)
        pipe = make_pipeline(FunctionTransformer(), clf)
        grid = {"finetuneclassifier__lr": [1e-3, 1e-2]}
        search = GridSearchCV(pipe, grid, cv=GroupKFold(2)).fit(*digits, groups=GROUPS)
        assert search.best_estimator_[-1].trained_state_
        # Two candidates on two folds, and the refit.
        assert len(SEEN) == 5
        for train, valid in SEEN[:4]:
            assert len(train) + len(valid) == 30
        folds = [train for train, _ in GroupKFold(2).split(*digits, GROUPS)]
        for rows, (train, valid) in zip([*folds, *folds, np.arange(60)], SEEN, strict=True):
            assert not set(GROUPS[rows[train]]) & set(GROUPS[rows[valid]])

    def test_cross_validation(self, small_net, digits):
        clf = tuner(small_net).set_fit_request(groups=True)
        cross_validate(clone(clf), *digits, cv=GroupKFold(2), params={"groups": GROUPS})
        assert len(SEEN) == 2
