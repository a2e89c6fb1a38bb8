"""scikit-learn's own checks, all of them, on our own classes and tags.

The backbone is a tiny module that takes (n, d) for any d, and the reader makes X a table of plain
numbers: nothing else about the estimators differs from their use on images.
"""

import pytest
import sklearn
from packaging.version import Version
from sklearn.base import clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
)

TABLE = ImageReader(image_shape=(1, -1))

# An optimizer's path depends on how the same gradient is summed; scikit-learn exempts its own
# stochastic estimators (SGDClassifier, MLPClassifier) from this check, too.
STOCHASTIC = {
    "check_sample_weight_equivalence_on_dense_data": "rounding of the gradient's sum is amplified"
}
# joblib.hash of equal modules differs from one copy to the next (joblib#1282).
INSTANCE = {"check_estimators_overwrite_params": "joblib.hash of an nn.Module is not stable"}

# Checks that scikit-learn runs on its own estimators and `check_estimator` does not yield.
EXTRA_TRANSFORMER = (
    "check_get_feature_names_out_error",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_dataframe_column_names_consistency",
    "check_param_validation",
    "check_inplace_ensure_writeable",
)
EXTRA_PREDICTOR = (
    "check_dataframe_column_names_consistency",
    "check_param_validation",
    "check_all_zero_sample_weights_error",
    "check_inplace_ensure_writeable",
)


def statuses(estimator, expected=None):
    results = check_estimator(
        estimator, on_fail=None, on_skip=None, expected_failed_checks=expected or {}
    )
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] != "passed"}
    return len(results), failed


def probe(cls, backbone, **parameters):
    return cls(backbone, reader=TABLE, unfreeze_depth=0, C=1.0, random_state=0, **parameters)


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_extractor_passes_every_check(on_error, plain_factory):
    extractor = PretrainedFeatureExtractor(plain_factory, reader=TABLE, on_error=on_error)
    count, failed = statuses(extractor)
    assert failed == {}
    # scikit-learn 1.6 has one check fewer, and one is for estimators that refuse NaN.
    least = 46 if Version(sklearn.__version__) >= Version("1.7") else 45
    assert count >= least - (on_error == "nan")


@pytest.mark.parametrize("on_error", ["raise", "nan"])
@pytest.mark.parametrize(("cls", "least"), [(FineTuneClassifier, 55), (FineTuneRegressor, 55)])
def test_fine_tuner_passes_every_check(cls, least, on_error, plain_factory):
    count, failed = statuses(probe(cls, plain_factory, on_error=on_error))
    assert failed == {}
    assert count >= least


@pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
def test_trained_fine_tuner_passes_every_check_but_the_stochastic_one(cls, plain_factory):
    estimator = probe(cls, plain_factory, max_epochs=3).set_params(unfreeze_depth=1, batch_size=256)
    count, failed = statuses(estimator, STOCHASTIC)
    assert set(failed) <= set(STOCHASTIC)
    assert count >= 55


@pytest.mark.parametrize("cls", [PretrainedFeatureExtractor, FineTuneClassifier])
def test_module_instance_fails_only_where_its_hash_is_unstable(cls, plain_factory):
    if cls is PretrainedFeatureExtractor:
        estimator = cls(plain_factory(), reader=TABLE)
    else:
        estimator = probe(cls, plain_factory())
    _, failed = statuses(estimator, INSTANCE)
    assert set(failed) <= set(INSTANCE)


def run_extra(name, estimator):
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip(f"this scikit-learn has no {name}")
    check(type(estimator).__name__, clone(estimator))


# These checks mix frames and arrays in fit and transform; scikit-learn's scalers warn, too.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.parametrize("name", EXTRA_TRANSFORMER)
def test_extractor_passes_the_checks_of_scikit_learns_own(name, plain_factory):
    run_extra(name, PretrainedFeatureExtractor(plain_factory, reader=TABLE))


@pytest.mark.parametrize("name", EXTRA_PREDICTOR)
@pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
def test_fine_tuner_passes_the_checks_of_scikit_learns_own(name, cls, plain_factory):
    run_extra(name, probe(cls, plain_factory))
