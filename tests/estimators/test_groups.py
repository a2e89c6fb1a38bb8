"""`groups` of `fit`: early stopping and out-of-fold embeddings keep them together."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit

from sklearn_featx import FineTuneClassifier, FineTuneRegressor
from sklearn_featx.exceptions import ImageWarning

GROUPS = np.arange(60) // 6
SEEN = []


class Held(Callback):
    """Notes the rows that a training holds out."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        train, valid = net.get_split_datasets(X, y)
        SEEN.append((list(train.indices), list(valid.indices)))


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()


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

    def test_one_group(self, kind, small_net, digits):
        with pytest.raises(ValueError, match=r"holds out part .* all rows are of one group"):
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

    def test_cross_validation(self, small_net, digits):
        clf = tuner(small_net).set_fit_request(groups=True)
        cross_validate(clone(clf), *digits, cv=GroupKFold(2), params={"groups": GROUPS})
        assert len(SEEN) == 2
