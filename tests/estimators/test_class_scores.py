"""Probabilities, their logarithms and logits say the same."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sklearn_featx import FineTuneClassifier
from sklearn_featx.exceptions import ImageWarning


def fitted(small_net, images, labels, **parameters):
    settings = {"unfreeze_depth": 0, "C": 1.0, "image_size": 16, "random_state": 0}
    return FineTuneClassifier(small_net, **{**settings, **parameters}).fit(images, labels)


def test_two_classes(small_net, digits):
    images, labels = digits
    labels = np.array(["no", "yes"])[(labels > 0).astype(int)]
    clf = fitted(small_net, images, labels)
    odds, probabilities = clf.decision_function(images), clf.predict_proba(images)
    assert odds.shape == (60,)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), probabilities[:, 1], rtol=1e-12)
    np.testing.assert_array_equal(clf.classes_[(odds > 0).astype(int)], clf.predict(images))
    np.testing.assert_allclose(clf.predict_log_proba(images), np.log(probabilities), rtol=1e-9)
    assert roc_auc_score(labels, odds) == roc_auc_score(labels, probabilities[:, 1])


def test_three_classes(small_net, digits):
    clf = fitted(small_net, *digits)
    scores, probabilities = (clf.decision_function(digits[0]), clf.predict_proba(digits[0]))
    assert scores.shape == (60, 3)
    likelihood = np.exp(scores)
    np.testing.assert_allclose(likelihood / likelihood.sum(1, keepdims=True), probabilities)
    np.testing.assert_array_equal(clf.classes_[scores.argmax(1)], clf.predict(digits[0]))
    np.testing.assert_allclose(clf.predict_log_proba(digits[0]), np.log(probabilities), rtol=1e-9)


def test_several_labels(small_net, digits):
    images, labels = digits
    clf = fitted(small_net, images, np.stack([labels > 0, labels == 1], axis=1).astype(int))
    scores, probabilities = clf.decision_function(images), clf.predict_proba(images)
    assert scores.shape == (60, 2)
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), probabilities)
    np.testing.assert_array_equal((scores > 0).astype(int), clf.predict(images))
    np.testing.assert_allclose(clf.predict_log_proba(images), np.log(probabilities), rtol=1e-9)


def test_small_probabilities_have_a_logarithm(small_net, digits):
    clf = fitted(small_net, *digits)
    clf._outputs = lambda X: (np.array([[0.0, 2000.0, -1000.0]]), [])
    assert clf.predict_proba(digits[0])[0, 0] == 0
    np.testing.assert_array_equal(clf.predict_log_proba(digits[0]), [[-2000.0, 0.0, -3000.0]])


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 0, 1, 2]])
def test_an_unreadable_image_has_the_scores_of_the_prior(small_net, digit_files, labels):
    paths = digit_files[0][:4]
    clf = fitted(small_net, paths, labels, on_error="nan")
    with pytest.warns(ImageWarning):
        scores = clf.decision_function(["nowhere.png"])
    with pytest.warns(ImageWarning):
        logarithms = clf.predict_log_proba(["nowhere.png"])
    np.testing.assert_allclose(logarithms, np.log([clf.class_prior_]), rtol=1e-9)
    prior = np.log(clf.class_prior_)
    wanted = prior[1] - prior[0] if len(prior) == 2 else prior
    np.testing.assert_allclose(scores[0], wanted, rtol=1e-9)


def test_a_class_that_was_never_seen_has_a_finite_score(small_net, digit_files):
    clf = FineTuneClassifier(
        small_net, unfreeze_depth=0, image_size=16, on_error="nan", random_state=0
    )
    clf.partial_fit(digit_files[0][:2], [0, 0], classes=[0, 1])
    with pytest.warns(ImageWarning):
        assert clf.decision_function(["nowhere.png"])[0] == np.finfo(float).min
    with pytest.warns(ImageWarning):
        assert clf.predict_proba(["nowhere.png"])[0, 1] == 0
