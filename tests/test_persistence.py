"""Saved estimators: small, complete, and checked against the backbone they were fitted on."""

import copy
import io
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor, exceptions


@pytest.fixture(scope="module")
def fitted(digits):
    images, labels = digits
    return FineTuneClassifier(
        unfreeze_depth=1, image_size=32, max_epochs=1, random_state=0, C=1.0
    ).fit(images[:30], labels[:30])


def by_pickle(estimator):
    return pickle.loads(pickle.dumps(estimator))


def by_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("save_and_load", [by_pickle, by_joblib, copy.deepcopy])
def test_round_trip_predicts_the_same(save_and_load, fitted, digits):
    again = save_and_load(fitted)
    np.testing.assert_array_equal(again.predict_proba(digits[0]), fitted.predict_proba(digits[0]))
    assert again.history_ == fitted.history_
    assert again.net_ is not fitted.net_


def test_only_what_was_trained_is_saved(fitted, digits):
    trained = sum(values.nbytes for values in fitted.trained_state_.values())
    assert len(pickle.dumps(fitted)) < 1.1 * trained
    probe = FineTuneClassifier(unfreeze_depth=0, image_size=32, C=1.0)
    probe.fit(digits[0][:20], digits[1][:20])
    assert len(pickle.dumps(probe)) < 200_000
    assert len(pickle.dumps(PretrainedFeatureExtractor().fit(digits[0]))) < 10_000


def test_another_process_predicts_the_same(fitted, digits, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib")
    np.save(tmp_path / "images.npy", digits[0][:4])
    script = (
        "import joblib, numpy, sys, torch; torch.set_num_threads(1);"
        "model = joblib.load(sys.argv[1] + '/model.joblib');"
        "images = numpy.load(sys.argv[1] + '/images.npy');"
        "numpy.save(sys.argv[1] + '/out.npy', model.predict_proba(images))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), fitted.predict_proba(digits[0][:4]), atol=1e-6
    )


def test_another_backbone_under_the_same_name_is_an_error(small_net, digits):
    clf = FineTuneClassifier(small_net, unfreeze_depth=1, max_epochs=1, C=1.0).fit(*digits)
    saved = pickle.loads(pickle.dumps(clf))
    with torch.no_grad():
        saved.backbone.stem[0].weight[0] += 1
    with pytest.raises(exceptions.WeightsError, match="not the one that this estimator"):
        saved.predict(digits[0])


def test_training_goes_on_after_loading(fitted, digits):
    again = by_pickle(fitted).partial_fit(digits[0][:30], digits[1][:30])
    assert again.predict(digits[0]).shape == (60,)
