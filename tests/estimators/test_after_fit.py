"""Every place where scikit-learn calls a fitted estimator, with 1 unreadable file of 40.

The oracle knows nothing of unreadable images: it is the same estimator, fitted and asked without
the bad file, and scikit-learn's dummy, fitted on the same rows, which answers for that file. What
scikit-learn makes of ours and of the oracle must be the same.
"""

import warnings

import numpy as np
import pytest
import sklearn
import torch
from packaging.version import Version
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    DetCurveDisplay,
    PrecisionRecallDisplay,
    PredictionErrorDisplay,
    RocCurveDisplay,
    get_scorer_names,
)
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    LeaveOneOut,
    RandomizedSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils.validation import check_is_fitted

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.ImageWarning")

BAD_ROW = 11
FOLDS = StratifiedKFold(3)


@pytest.fixture(scope="module")
def net(small_net_factory):
    return small_net_factory()


@pytest.fixture(scope="module")
def column(digit_files, tmp_path_factory):
    """40 files, one of them unreadable, as a column."""
    paths = list(digit_files[0][:40])
    bad = tmp_path_factory.mktemp("bad") / "bad.png"
    bad.write_bytes(b"no image")
    paths[BAD_ROW] = str(bad)
    # scikit-learn's ensembles want two dimensions.
    return np.array(paths, dtype=object)[:, None]


@pytest.fixture(scope="module")
def labels(digits):
    return np.array(["zero", "one", "two"])[digits[1][:40]]


@pytest.fixture(scope="module")
def binary(digits):
    # Not separable, so that no score is 1; the bad file is of the rarer class.
    noise = np.random.default_rng(0).random(40) < 0.25
    truth = (digits[1][:40] == 0) ^ noise
    truth[BAD_ROW] = True
    return truth.astype(int)


@pytest.fixture(scope="module")
def indicator(binary, digits):
    return np.stack([binary, digits[1][:40] == 1, digits[1][:40] % 2 == 0], axis=1).astype(int)


@pytest.fixture(scope="module")
def targets(digits):
    return 1.0 + digits[1][:40] + np.random.default_rng(1).random(40)


def is_bad(X):
    return np.array([str(path).endswith("bad.png") for path in np.asarray(X).ravel()])


class Oracle(BaseEstimator):
    """An estimator that never sees the bad file, and a dummy for it."""

    def __init__(self, model, dummy):
        self.model = model
        self.dummy = dummy

    def fit(self, X, y, sample_weight=None):
        good = ~is_bad(X)
        weights = None if sample_weight is None else np.asarray(sample_weight)[good]
        X, y = np.asarray(X)[good], np.asarray(y)[good]
        self.model_ = clone(self.model).fit(X, y, sample_weight=weights)
        self.dummy_ = clone(self.dummy).fit(X, y, sample_weight=weights)
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "model_")

    def predict(self, X):
        return self._merged("predict", np.asarray(X))

    def score(self, X, y, sample_weight=None):
        good = ~is_bad(X)
        if not good.any():
            return self.dummy_.score(X, y, sample_weight)
        weights = None if sample_weight is None else np.asarray(sample_weight)[good]
        return self.model_.score(np.asarray(X)[good], np.asarray(y)[good], weights)

    def _merged(self, method, X):
        check_is_fitted(self)
        bad = is_bad(X)
        answers = _of_dummy(self.dummy_, method, X)
        if not bad.all():
            # Of one type with those of the model, so that no label is cut.
            answers = np.array(answers, dtype=getattr(self.model_, method)(X[~bad]).dtype)
            answers[~bad] = getattr(self.model_, method)(X[~bad])
        return answers


def _of_dummy(dummy, method, X):
    if method == "decision_function":
        shares = dummy.predict_proba(X)
        if isinstance(shares, list):
            return np.stack([np.log(s[:, 1]) - np.log(s[:, 0]) for s in shares], axis=1)
        logs = np.log(shares)
        return logs[:, 1] - logs[:, 0] if logs.shape[1] == 2 else logs
    answers = getattr(dummy, method)(X)
    if isinstance(answers, list):
        # Of several labels: a list of (n, 2).
        return np.stack([each[:, 1] for each in answers], axis=1)
    return answers


class OracleClassifier(ClassifierMixin, Oracle):
    score = Oracle.score

    @property
    def classes_(self):
        return self.model_.classes_

    def predict_proba(self, X):
        return self._merged("predict_proba", np.asarray(X))

    def decision_function(self, X):
        return self._merged("decision_function", np.asarray(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class OracleRegressor(RegressorMixin, Oracle):
    score = Oracle.score


def classifiers(net, **parameters):
    """Our classifier, and the oracle."""
    settings = {"unfreeze_depth": 0, "image_size": 16, "C": 0.1, "random_state": 0, "n_jobs": 1}
    settings |= parameters
    ours = FineTuneClassifier(net, on_error="nan", **settings)
    return ours, OracleClassifier(FineTuneClassifier(net, **settings), DummyClassifier())


def regressors(net, **parameters):
    settings = {"unfreeze_depth": 0, "image_size": 16, "C": 0.1, "random_state": 0, "n_jobs": 1}
    settings |= parameters
    ours = FineTuneRegressor(net, on_error="nan", **settings)
    return ours, OracleRegressor(FineTuneRegressor(net, **settings), DummyRegressor())


def fitted(combined, methods=("predict",)):
    """Answers, and the score, of an ensemble after its fit."""

    def call(model, X, y):
        whole = combined(model).fit(X, y)
        return [getattr(whole, method)(X) for method in methods] + [whole.score(X, y)]

    return call


def named(model, parameter):
    """Name of a parameter of ours in the oracle, or in a pipeline."""
    return next(
        name
        for name in (parameter, f"model__{parameter}", f"logisticregression__{parameter}")
        if name in model.get_params()
    )


def searched(search, X, y):
    """What a search found: all scores, the choice, and what the chosen says."""
    search.fit(X, y)
    scores = [v for name, v in sorted(search.cv_results_.items()) if "test_" in name]
    return [*scores, search.best_index_, search.predict(X), search.score(X, y)]


def logistic():
    return LogisticRegression(C=0.1)


PROBABLE = ("predict", "predict_proba")
# What scikit-learn does with a classifier, of any number of classes.
OF_CLASSIFIERS = {
    "cross_val_score": lambda m, X, y: cross_val_score(m, X, y, cv=FOLDS),
    "leave one out": lambda m, X, y: cross_val_score(m, X[4:14], y[4:14], cv=LeaveOneOut()),
    "cross_validate": lambda m, X, y: [
        values
        for name, values in cross_validate(
            m,
            X,
            y,
            cv=FOLDS,
            scoring=["accuracy", "neg_log_loss", "f1_macro"],
            return_train_score=True,
        ).items()
        if "time" not in name
    ],
    "cross_val_predict": lambda m, X, y: cross_val_predict(m, X, y, cv=FOLDS),
    "cross_val_predict_proba": lambda m, X, y: cross_val_predict(
        m, X, y, cv=FOLDS, method="predict_proba"
    ),
    "learning_curve": lambda m, X, y: learning_curve(
        m, X, y, cv=FOLDS, train_sizes=[0.6, 1.0], shuffle=True, random_state=0
    ),
    "learning_curve, log loss": lambda m, X, y: learning_curve(
        m, X, y, cv=FOLDS, train_sizes=[1.0], scoring="neg_log_loss"
    ),
    "permutation_test_score": lambda m, X, y: permutation_test_score(
        m, X, y, cv=FOLDS, n_permutations=3, random_state=0
    ),
    "calibrated": fitted(lambda m: CalibratedClassifierCV(m, cv=FOLDS), PROBABLE),
    "calibrated, isotonic": fitted(
        lambda m: CalibratedClassifierCV(m, cv=FOLDS, method="isotonic", ensemble=False), PROBABLE
    ),
    "stacking": fitted(lambda m: StackingClassifier([("a", m)], logistic(), cv=FOLDS), PROBABLE),
    "stacking, prefit": lambda m, X, y: (
        StackingClassifier([("a", clone(m).fit(X, y))], logistic(), cv="prefit")
        .fit(X, y)
        .predict_proba(X)
    ),
    "validation_curve": lambda m, X, y: validation_curve(
        m, X, y, param_name=named(m, "C"), param_range=[0.01, 1.0], cv=FOLDS
    ),
    "grid search": lambda m, X, y: searched(
        GridSearchCV(m, {named(m, "C"): [0.001, 1.0]}, cv=FOLDS), X, y
    ),
    "grid search, log loss": lambda m, X, y: searched(
        GridSearchCV(m, {named(m, "C"): [0.001, 1.0]}, cv=FOLDS, scoring="neg_log_loss"), X, y
    ),
    "grid search, several metrics": lambda m, X, y: searched(
        GridSearchCV(
            m,
            {named(m, "C"): [0.001, 1.0]},
            cv=FOLDS,
            refit="accuracy",
            scoring={"accuracy": "accuracy", "auc": "roc_auc_ovr", "loss": "neg_log_loss"},
        ),
        X,
        y,
    ),
    "randomized search": lambda m, X, y: searched(
        RandomizedSearchCV(
            m, {named(m, "C"): [0.001, 0.1, 1.0]}, n_iter=2, cv=FOLDS, random_state=0
        ),
        X,
        y,
    ),
    "halving": lambda m, X, y: searched(
        HalvingGridSearchCV(
            m, {named(m, "C"): [0.001, 1.0]}, cv=FOLDS, min_resources=18, random_state=0
        ),
        X,
        y,
    ),
    "halving at random": lambda m, X, y: searched(
        HalvingRandomSearchCV(
            m,
            {named(m, "C"): [0.001, 1.0]},
            n_candidates=2,
            cv=FOLDS,
            min_resources=18,
            scoring="accuracy",
            random_state=0,
        ),
        X,
        y,
    ),
    "voting, soft": fitted(
        lambda m: VotingClassifier([("a", m), ("b", clone(m))], voting="soft"), PROBABLE
    ),
    "voting, hard": fitted(lambda m: VotingClassifier([("a", m), ("b", clone(m))])),
    "bagging": fitted(lambda m: BaggingClassifier(m, n_estimators=3, random_state=0), PROBABLE),
    "bagging, out of bag": lambda m, X, y: (
        BaggingClassifier(m, n_estimators=15, oob_score=True, random_state=0).fit(X, y).oob_score_
    ),
    "boosting": fitted(lambda m: AdaBoostClassifier(m, n_estimators=3, random_state=0)),
    "one versus rest": fitted(OneVsRestClassifier, PROBABLE),
    "several outputs": lambda m, X, y: (
        MultiOutputClassifier(m).fit(X, np.stack([y, y], 1)).predict(X)
    ),
    "frozen": lambda m, X, y: cross_val_predict(
        FrozenEstimator(clone(m).fit(X, y)), X, y, cv=FOLDS
    ),
    "confusion": lambda m, X, y: (
        ConfusionMatrixDisplay.from_estimator(clone(m).fit(X, y), X, y).confusion_matrix
    ),
    "permutation importance": lambda m, X, y: (
        permutation_importance(
            clone(m).fit(X, y), X, y, scoring="neg_log_loss", n_repeats=2, random_state=0
        ).importances
    ),
    "permutation importance, score": lambda m, X, y: (
        permutation_importance(clone(m).fit(X, y), X, y, n_repeats=2, random_state=0).importances
    ),
}
if Version(sklearn.__version__) >= Version("1.8"):
    OF_CLASSIFIERS["calibrated, temperature"] = fitted(
        lambda m: CalibratedClassifierCV(m, cv=FOLDS, method="temperature"), PROBABLE
    )
# Two classes only.
OF_BINARY = {
    "tuned threshold": fitted(lambda m: TunedThresholdClassifierCV(m, cv=FOLDS), PROBABLE),
    "fixed threshold": fitted(lambda m: FixedThresholdClassifier(m, threshold=0.4), PROBABLE),
    "calibration display": lambda m, X, y: (
        CalibrationDisplay.from_estimator(clone(m).fit(X, y), X, y, n_bins=4).y_prob
    ),
    "roc": lambda m, X, y: RocCurveDisplay.from_estimator(clone(m).fit(X, y), X, y).tpr,
    "precision recall": lambda m, X, y: (
        PrecisionRecallDisplay.from_estimator(clone(m).fit(X, y), X, y).precision
    ),
    "det": lambda m, X, y: DetCurveDisplay.from_estimator(clone(m).fit(X, y), X, y).fpr,
}
OF_REGRESSORS = {
    "cross_val_score": lambda m, X, y: cross_val_score(m, X, y, cv=KFold(3)),
    "cross_val_predict": lambda m, X, y: cross_val_predict(m, X, y, cv=KFold(3)),
    "learning_curve": lambda m, X, y: learning_curve(m, X, y, cv=KFold(3), train_sizes=[0.5, 1.0]),
    "stacking": fitted(lambda m: StackingRegressor([("a", m)], Ridge(), cv=KFold(3))),
    "voting": fitted(lambda m: VotingRegressor([("a", m), ("b", clone(m))])),
    "bagging": fitted(lambda m: BaggingRegressor(m, n_estimators=3, random_state=0)),
    "boosting": fitted(lambda m: AdaBoostRegressor(m, n_estimators=3, random_state=0)),
    "several outputs": lambda m, X, y: (
        MultiOutputRegressor(m).fit(X, np.stack([y, -y], 1)).predict(X)
    ),
    "transformed target": fitted(
        lambda m: TransformedTargetRegressor(m, func=np.log, inverse_func=np.exp)
    ),
    "prediction error": lambda m, X, y: (
        PredictionErrorDisplay.from_estimator(clone(m).fit(X, y), X, y).y_pred
    ),
    "permutation importance": lambda m, X, y: (
        permutation_importance(clone(m).fit(X, y), X, y, n_repeats=2, random_state=0).importances
    ),
}


def same(call, ours, oracle, X, y):
    found, expected = call(ours, X, y), call(oracle, X, y)
    for one, other in zip(_arrays(found), _arrays(expected), strict=True):
        assert one.shape == other.shape
        if one.dtype.kind == "f":
            assert np.isfinite(one).all()
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
        else:
            np.testing.assert_array_equal(one, other)


def _arrays(values):
    parts = values if isinstance(values, list | tuple) else [values]
    return [np.asarray(part) for part in parts]


@pytest.mark.parametrize("name", OF_CLASSIFIERS)
def test_classifier(name, net, column, labels):
    same(OF_CLASSIFIERS[name], *classifiers(net), column, labels)


@pytest.mark.parametrize("name", OF_BINARY)
def test_binary_classifier(name, net, column, binary):
    same(OF_BINARY[name], *classifiers(net), column, binary)


@pytest.mark.parametrize("name", OF_REGRESSORS)
def test_regressor(name, net, column, targets):
    same(OF_REGRESSORS[name], *regressors(net), column, targets)


OF_LABEL_MATRICES = {
    "cross_val_score": lambda m, X, y: cross_val_score(m, X, y, cv=KFold(3)),
    "cross_val_predict": lambda m, X, y: cross_val_predict(m, X, y, cv=KFold(3)),
    "cross_val_predict_proba": lambda m, X, y: cross_val_predict(
        m, X, y, cv=KFold(3), method="predict_proba"
    ),
    "several metrics": lambda m, X, y: [
        cross_val_score(m, X, y, cv=KFold(3), scoring=scoring)
        for scoring in ("f1_samples", "jaccard_samples", "roc_auc_ovr", "average_precision")
    ],
}


@pytest.mark.parametrize("name", OF_LABEL_MATRICES)
def test_matrix_of_labels(name, net, column, indicator):
    same(OF_LABEL_MATRICES[name], *classifiers(net), column, indicator)


# scikit-learn's own boosting refuses NaN.
QUICK = {
    "cross_val_score",
    "cross_validate",
    "calibrated",
    "stacking",
    "grid search, several metrics",
}
IN_PIPELINES = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in OF_CLASSIFIERS
    if not name.startswith(("permutation importance", "boosting"))
]


@pytest.mark.parametrize("name", IN_PIPELINES)
def test_pipeline_with_an_imputer(name, net, column, labels):
    extractor = PretrainedFeatureExtractor(net, image_size=16, n_jobs=1)
    rest = make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression(C=0.1))
    # The same features, with the row set to NaN by hand.
    features = np.full((40, 32), np.nan, np.float32)
    features[np.arange(40) != BAD_ROW] = extractor.transform(np.delete(column, BAD_ROW, axis=0))
    ours = make_pipeline(clone(extractor).set_params(on_error="nan"), *clone(rest))
    found = OF_CLASSIFIERS[name](ours, column, labels)
    expected = OF_CLASSIFIERS[name](rest, features, labels)
    for one, other in zip(_arrays(found), _arrays(expected), strict=True):
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
        else:
            np.testing.assert_array_equal(one, other)


def finite_scores(scorers, model, X, y):
    scores = {}
    for name in scorers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score = cross_val_score(model, X, y, cv=KFold(2), scoring=name)
        if np.isfinite(score).all():
            scores[name] = score
    return scores


def assert_same_scores(ours, oracle, X, y, at_least):
    expected = finite_scores(get_scorer_names(), oracle, X, y)
    found = finite_scores(expected, ours, X, y)
    assert found.keys() == expected.keys()
    assert len(found) >= at_least
    for name, score in found.items():
        np.testing.assert_allclose(score, expected[name], rtol=1e-6, err_msg=name)


class TestEveryScorer:
    @pytest.mark.slow
    def test_two_classes(self, net, column, binary):
        assert_same_scores(*classifiers(net), column, binary, 40)

    @pytest.mark.slow
    def test_three_classes(self, net, column, labels):
        assert_same_scores(*classifiers(net), column, labels, 30)

    @pytest.mark.slow
    def test_numbers(self, net, column, targets):
        assert_same_scores(*regressors(net), column, targets, 15)


class FailsOn:
    """A preprocessing that fails for one picture: tables of pixels have unreadable rows as well."""

    def __init__(self, picture):
        self.picture = picture

    def __call__(self, picture):
        pixels = np.asarray(picture)
        if np.array_equal(pixels, self.picture):
            raise RuntimeError("unreadable")
        return torch.from_numpy(pixels / 255.0).float()[None]


OF_NUMBERS = {
    "self training": lambda m, X, y: SelfTrainingClassifier(m, threshold=0.6, max_iter=2).fit(
        X, np.where(X[:, 20] % 3 == 2, -1, y)
    ),
    "one versus one": lambda m, X, y: OneVsOneClassifier(m).fit(X, y),
    "output code": lambda m, X, y: OutputCodeClassifier(m, random_state=0).fit(X, y),
}


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_rows_of_numbers(name, net, digits):
    X, y = digits[0][:40].reshape(40, 64), digits[1][:40]
    bad = digits[0][BAD_ROW]
    ours = FineTuneClassifier(
        net, unfreeze_depth=0, reader=ImageReader(image_shape=(8, 8)), C=0.1, on_error="nan",
        cache=False, n_jobs=1, preprocessing=FailsOn(bad),
    )  # fmt: skip
    found = OF_NUMBERS[name](ours, X, y).predict(X)
    good = np.delete(np.arange(40), BAD_ROW)
    expected = OF_NUMBERS[name](clone(ours), X[good], y[good]).predict(X[good])
    np.testing.assert_array_equal(found[good], expected)
    assert found[BAD_ROW] in y
