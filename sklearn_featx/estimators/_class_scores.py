"""Class scores: probabilities, log-probabilities and log-odds."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import log_softmax

from .._typing import FloatArray


class ClassScores:
    """Mixin of the fine-tuned classifier: scores from the logits of its net."""

    multilabel_: bool
    n_outputs_: int
    _predicted: Callable[[Any], FloatArray]

    def predict_proba(self, X: Any) -> FloatArray:
        """Probability of each class.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_images, n_classes), float64
            In the order of `classes_`. For multilabel targets, the probability of each label on
            its own. With ``on_error="nan"``, `class_prior_` for unreadable images.

        Raises
        ------
        NotFittedError, InputError, ImageError, WeightsError
            As in `predict`.
        """
        logits = self._predicted(X)
        if self.multilabel_:
            # The logistic function, in a form that does not overflow.
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
            Logarithms of `predict_proba`, without rounding small probabilities to 0.
        """
        logits = self._predicted(X)
        if self.multilabel_:
            of_each: FloatArray = -np.logaddexp(0, -logits)
            return of_each
        log_probabilities: FloatArray = log_softmax(logits, axis=1)
        return log_probabilities

    def decision_function(self, X: Any) -> FloatArray:
        """Compute the log-odds or log-probability of each class.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_images,) or (n_images, n_classes), float64
            For two classes, the log-odds of ``classes_[1]``; for more classes, log-probabilities;
            for multilabel targets, the log-odds of each label. With ``on_error="nan"``, the scores
            of `class_prior_` for unreadable images. Infinite scores are replaced by the largest or
            smallest float.

        Raises
        ------
        NotFittedError, InputError, ImageError, WeightsError
            As in `predict`.
        """
        logits = self._predicted(X)
        scores = logits
        if not self.multilabel_:
            # Training determines logits up to a constant.
            binary = self.n_outputs_ == 2
            scores = logits[:, 1] - logits[:, 0] if binary else log_softmax(logits, axis=1)
        # Scorers and calibration reject infinity.
        finite: FloatArray = np.nan_to_num(scores)
        return finite
