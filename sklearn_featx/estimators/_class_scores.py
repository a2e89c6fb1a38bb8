"""Scores of the classes: probabilities, their logarithms, logits."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import log_softmax

from .._typing import FloatArray
from ..flow import Failure
from ._prior import warn_of_prior


class ClassScores:
    """Mixin of the fine-tuned classifier: what it makes of the outputs of its net."""

    multilabel_: bool
    n_outputs_: int
    _outputs: Callable[[Any], tuple[FloatArray, list[Failure]]]

    def predict_proba(self, X: Any) -> FloatArray:
        """Probability of each class.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_images, n_classes), float64
            In the order of `classes_`. Of a matrix of labels: of each label by itself. With
            ``on_error="nan"``, `class_prior_` for images that cannot be read.
        """
        logits, failures = self._outputs(X)
        warn_of_prior(failures, len(logits))
        if self.multilabel_:
            # The logistic function, in a form that no logit overflows.
            each: FloatArray = (1 + np.tanh(logits / 2)) / 2
            return each
        likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: FloatArray = likelihood / likelihood.sum(axis=1, keepdims=True)
        return probabilities

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_images, n_classes), float64
            As `predict_proba`, without the rounding of small probabilities to 0.
        """
        logits, failures = self._outputs(X)
        warn_of_prior(failures, len(logits))
        if self.multilabel_:
            of_each: FloatArray = -np.logaddexp(0, -logits)
            return of_each
        log_probabilities: FloatArray = log_softmax(logits, axis=1)
        return log_probabilities

    def decision_function(self, X: Any) -> FloatArray:
        """Score of each class: its log-odds or log-probability.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_images,) or (n_images, n_classes), float64
            Of two classes: the logarithm of the odds of ``classes_[1]``. Of more classes: the
            logarithms of their probabilities. Of a matrix of labels: the logarithm of the odds of
            each label. With ``on_error="nan"``, those of `class_prior_` for images that
            cannot be read; where a probability is 0, the smallest float.
        """
        logits, failures = self._outputs(X)
        warn_of_prior(failures, len(logits))
        scores = logits
        if not self.multilabel_:
            # Logits have a constant that training does not determine.
            binary = self.n_outputs_ == 2
            scores = logits[:, 1] - logits[:, 0] if binary else log_softmax(logits, axis=1)
        # Scorers and calibration refuse infinity.
        finite: FloatArray = np.nan_to_num(scores)
        return finite
