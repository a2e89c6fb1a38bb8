"""The prior: the prediction of a fitted estimator for an unreadable image.

It is the prediction without evidence: the share of each class, or the mean of the targets, in the
training data. It is finite, because scorers and meta-estimators reject NaN or count it as the first
class. `score` leaves unreadable images out.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.utils import check_consistent_length

from .._sklearn_compat import _safe_indexing
from .._typing import AnyArray, FloatArray
from ..flow import Failure, readable, warn_of

# Rounding makes equal shares equal logits, so that `predict` returns the first of these classes.
_DECIMALS = 12
_CONSEQUENCE = "they get the shares of the classes, or the mean; on_error='raise' refuses them."


class ClassShares(NamedTuple):
    """Weighted share of each class in the training data.

    Parameters
    ----------
    shares : ndarray of shape (n_classes,)
        From 0 to 1. Their sum is 1, except for multilabel targets: each label has its own share.
    total : float
        Sum of the weights of the images.
    """

    shares: FloatArray
    total: float

    @classmethod
    def of(cls, targets: AnyArray, weights: AnyArray | None, n_classes: int) -> Self:
        """Return the shares of the classes in validated targets.

        Parameters
        ----------
        targets : ndarray of shape (n_images,) or (n_images, n_classes)
            Class codes, or a multilabel indicator matrix.
        weights : ndarray of shape (n_images,) or None
            Weights of the images. None: all are 1.
        n_classes : int
            Number of classes.
        """
        weights = np.ones(len(targets)) if weights is None else weights.astype(np.float64)
        if targets.ndim == 2:
            sums = weights @ targets.astype(np.float64)
        else:
            sums = np.bincount(targets, weights, minlength=n_classes)
        total = float(weights.sum())
        return cls(sums / total if total else np.zeros(n_classes), total)

    def joined(self, other: Self) -> Self:
        """Return the shares in the union of two sets of images."""
        total = self.total + other.total
        sums = self.shares * self.total + other.shares * other.total
        return type(self)(sums / total if total else self.shares, total)

    def logits(self, *, multilabel: bool) -> FloatArray:
        """Return logits whose probabilities are the shares.

        Parameters
        ----------
        multilabel : bool
            Whether each label has its own probability.
        """
        # A class without images has the logit minus infinity, and the probability 0.
        with np.errstate(divide="ignore"):
            logits: FloatArray = np.log(self.shares)
            if multilabel:
                logits -= np.log1p(-self.shares)
        rounded: FloatArray = np.round(logits, _DECIMALS)
        return rounded


def filled(
    outputs: FloatArray, n_images: int, failures: Sequence[Failure], prior: FloatArray
) -> FloatArray:
    """Align outputs with all images; unreadable images get the prior.

    Parameters
    ----------
    outputs : ndarray of shape (n_readable, n_outputs)
        Outputs of the readable images, in order.
    n_images : int
        Number of images.
    failures : sequence of Failure
        The unreadable images.
    prior : ndarray of shape (n_outputs,)
        Output without evidence.

    Returns
    -------
    aligned : ndarray of shape (n_images, n_outputs)
        Outputs of all images.
    """
    aligned = np.tile(prior, (n_images, 1))
    aligned[readable(n_images, failures)] = outputs
    return aligned


class PriorForUnreadable:
    """Mixin of the fine-tuners: unreadable images in predictions and scores."""

    _metric: Callable[..., float]
    _outputs: Callable[[Any], tuple[FloatArray, list[Failure]]]
    _decided: Callable[[FloatArray], AnyArray]

    def _predicted(self, X: Any) -> FloatArray:
        """Return the outputs for all images, with one warning about the unreadable ones."""
        outputs, failures = self._outputs(X)
        warn_of(failures, len(outputs), _CONSEQUENCE)
        return outputs

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of a classifier, or the R² of a regressor.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            True labels or targets.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.

        Returns
        -------
        score : float
            The best score is 1. With ``on_error="nan"``, unreadable images and their weights are
            left out; if no image remains, the score of the prior.
        """
        outputs, failures = self._outputs(X)
        predicted = self._decided(outputs)
        if failures:
            check_consistent_length(y, predicted, sample_weight)
            left = readable(len(predicted), failures)
            weights = None if sample_weight is None else _safe_indexing(sample_weight, left)
            consequence = "no image is left to score, so the score is that of the prior."
            # The score of a fold without readable images is finite: NaN would make the mean NaN.
            if len(left) and (weights is None or np.any(weights)):
                y, predicted, sample_weight = _safe_indexing(y, left), predicted[left], weights
                consequence = "they are left out of the score."
            warn_of(failures, len(outputs), consequence, stacklevel=3)
        return float(self._metric(y, predicted, sample_weight=sample_weight))
