"""Strong penalties for noise, weak ones for signal."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GroupKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.training import _probe_penalty, fit_linear_probe_multilabel
from sklearn_featx.training._probe_rows import ProbeRows


def choose_C(features, codes, weights=None, groups=None):
    rows = ProbeRows(features, weights)
    kept = None if groups is None else rows.counted(groups)
    return _probe_penalty.choose_C(rows, rows.counted(codes), kept)


def choose_alpha(features, targets, weights=None, groups=None):
    rows = ProbeRows(features, weights)
    kept = None if groups is None else rows.counted(groups)
    return _probe_penalty.choose_alpha(rows, rows.counted(targets), kept)


@pytest.fixture
def noise():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 20)), np.arange(60) % 3


def test_noise_wants_a_strong_penalty_and_signal_a_weak_one(noise):
    features, codes = noise
    signal = features.copy()
    signal[:, :3] += 8 * np.eye(3)[codes]
    assert choose_C(features, codes) <= 1e-2
    assert choose_C(signal, codes) >= 1.0


def test_the_same_choice_each_time(noise):
    features, codes = noise
    chosen = [choose_C(features, codes) for _ in range(2)]
    assert chosen[0] == chosen[1]
    assert isinstance(chosen[0], float)


def test_rows_without_weight_have_no_influence(noise):
    features, codes = noise
    weights = np.ones(60)
    weights[::7] = 0
    wild = features.copy()
    wild[::7] = 1e6
    assert choose_C(features, codes, weights) == choose_C(wild, codes, weights)


def test_a_class_of_one_row_gets_the_default():
    assert choose_C(np.eye(5), [0, 0, 1, 1, 2]) == 1.0
    assert choose_C(np.eye(3), [0, 0, 0]) == 1.0


def test_alpha_follows_the_noise(noise):
    features, _ = noise
    target = features[:, 0] * 2
    unrelated = np.random.default_rng(1).normal(size=60)
    assert choose_alpha(features, target) < choose_alpha(features, unrelated)
    both = choose_alpha(features, np.stack([target, target], axis=1), np.ones(60))
    assert isinstance(both, float)


def test_the_losses_are_those_of_logistic_regressions(noise):
    features, codes = noise
    features = features + 2 * np.eye(20)[codes]
    losses = []
    splits = StratifiedKFold(5, shuffle=True, random_state=0)
    scaled = (features - features.mean(0)) / np.sqrt(features.var(0).mean())
    for C in _probe_penalty.CANDIDATES:
        model = LogisticRegression(C=C, max_iter=10_000)
        losses.append(-cross_val_score(model, scaled, codes, cv=splits, scoring="neg_log_loss"))
    expected = _probe_penalty.CANDIDATES[np.mean(losses, axis=1).argmin()]
    assert 1e-4 < expected < 1e4
    assert choose_C(features, codes) == expected


@pytest.mark.parametrize(("n_images", "image_size"), [(100, 32), (150, 64), (150, 32)])
def test_the_choice_is_that_of_exact_solutions(n_images, image_size):
    """Digits are separable from a weak penalty on: losses of solutions far off look small."""
    digits = load_digits()
    images, codes = digits.images[:n_images] / 16, digits.target[:n_images]
    features = PretrainedFeatureExtractor(image_size=image_size).fit_transform(images)
    rows = ProbeRows(features.astype(np.float64), None)
    losses = np.zeros(9)
    for train, test in _probe_penalty._splits(codes, None):
        for i, C in enumerate(_probe_penalty.CANDIDATES):
            model = LogisticRegression(C=C, max_iter=10_000).fit(
                rows.coordinates[train], codes[train]
            )
            given = model.predict_proba(rows.coordinates[test])
            losses[i] += log_loss(codes[test], given, normalize=False, labels=model.classes_)
    # Two candidates may be equally good.
    chosen = np.flatnonzero(_probe_penalty.choose_C(rows, codes) == _probe_penalty.CANDIDATES)
    assert losses[chosen] < 1.02 * losses.min()


def test_the_loss_counts_a_held_out_row_by_its_weight(noise):
    features, codes = noise
    train, test, repeats = np.arange(45), np.arange(45, 60), np.arange(15)
    weights = np.concatenate([np.ones(45), repeats])
    weighted = _probe_penalty._Fold(features, codes, weights, train, test)
    repeated = _probe_penalty._Fold(features, codes, np.ones(60), train, np.repeat(test, repeats))
    assert weighted.loss(1.0) == pytest.approx(repeated.loss(1.0))


def test_alpha_follows_the_weights(noise):
    features, _ = noise
    target = features[:, 0] * 2
    target[30:] = np.random.default_rng(1).normal(size=30)
    weights = np.where(np.arange(60) < 30, 1, 1e-6)
    assert choose_alpha(features, target, weights) < choose_alpha(features, target)


def test_the_search_ends_after_two_candidates_without_gain():
    losses, asked = [3, 4, 2, 5, 6, 1, 1, 1, 1], []

    class Fold:
        def loss(self, C):
            asked.append(C)
            return losses[len(asked) - 1]

    candidates = _probe_penalty.CANDIDATES
    assert _probe_penalty._valley(candidates, [Fold()]) == candidates[2]
    assert asked == candidates[:5].tolist()


class TestGroups:
    """Rows of a group are near each other: separated, they are told by their neighbors."""

    @pytest.fixture
    def patients(self):
        rng = np.random.default_rng(0)
        groups = np.arange(60) // 3
        codes = rng.permutation(20)[groups] % 2
        marks = rng.normal(size=(20, 12))[groups]
        features = 3 * marks + np.eye(2, 12)[codes] + rng.normal(scale=0.1, size=(60, 12))
        return features, codes, groups

    def test_the_losses_are_those_of_whole_groups(self, patients):
        features, codes, groups = patients
        splits = list(
            StratifiedGroupKFold(5, shuffle=True, random_state=0).split(features, codes, groups)
        )
        scaled = (features - features.mean(0)) / np.sqrt(features.var(0).mean())
        losses = [
            np.sum(
                [
                    log_loss(
                        codes[test],
                        LogisticRegression(C=C, max_iter=10_000)
                        .fit(scaled[train], codes[train])
                        .predict_proba(scaled[test]),
                        labels=np.unique(codes),
                        normalize=False,
                    )
                    for train, test in splits
                ]
            )
            for C in _probe_penalty.CANDIDATES[:7]
        ]
        expected = _probe_penalty.CANDIDATES[np.argmin(losses)]
        chosen = choose_C(features, codes, groups=groups)
        assert chosen == expected < choose_C(features, codes)
        names = np.array([f"patient {g:02d}" for g in groups])
        assert choose_C(features, codes, groups=names) == chosen

    def test_alpha_is_that_of_ridge_on_whole_groups(self, patients):
        features, codes, groups = patients
        targets = np.column_stack([codes, codes**2]).astype(float)
        weights = np.random.default_rng(1).uniform(0.5, 2, 60)
        rows = ProbeRows(features, weights)
        errors = []
        for alpha in _probe_penalty.CANDIDATES:
            total = 0.0
            for train, test in GroupKFold(5).split(features, groups=groups):
                ridge = Ridge(alpha=alpha)
                ridge.fit(rows.coordinates[train], targets[train], sample_weight=weights[train])
                residuals = targets[test] - ridge.predict(rows.coordinates[test])
                total += weights[test] @ (residuals**2).sum(1)
            errors.append(total)
        found = sum(
            _probe_penalty._ridge_errors(rows.coordinates, targets, weights, *split)
            for split in GroupKFold(5).split(features, groups=groups)
        )
        np.testing.assert_allclose(found, errors, rtol=1e-6)
        expected = _probe_penalty.CANDIDATES[np.argmin(errors)]
        chosen = choose_alpha(features, targets, weights, groups=groups)
        assert chosen == expected > choose_alpha(features, targets, weights)

    def test_labels_get_the_penalty_of_whole_groups(self, patients):
        features, codes, groups = patients
        labels, C = codes[:, np.newaxis], choose_C(features, codes, groups=groups)
        chosen, given = (
            fit_linear_probe_multilabel(features, labels, C=value, groups=groups)
            for value in ("auto", C)
        )
        np.testing.assert_array_equal(chosen.weight, given.weight)

    def test_too_few_groups_get_the_default(self, patients):
        features, codes, groups = patients
        assert choose_C(features, codes, groups=codes) == 1.0
        assert choose_C(features, codes, groups=np.zeros(60)) == 1.0
        assert choose_alpha(features, codes, groups=np.zeros(60)) == 1.0
        # One class is of one group.
        assert choose_C(features, np.where(groups == 0, 7, codes), groups=groups) == 1.0

    def test_classes_that_a_fold_lacks_in_training(self):
        """The greedy folds put both groups of a class into one."""
        groups, codes = np.arange(40) // 2, np.zeros(40, int)
        codes[:4], codes[4:8] = 1, 2
        for train, test in _probe_penalty._splits(codes, groups):
            assert set(codes[test]) <= set(codes[train])
            assert not set(groups[test]) & set(groups[train])
        features = np.eye(3)[codes] + np.random.default_rng(0).normal(size=(40, 3))
        assert choose_C(features, codes, groups=groups) in _probe_penalty.CANDIDATES
