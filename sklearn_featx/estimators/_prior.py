"""The prior: what a fitted estimator answers for an image that cannot be read.

An image that cannot be read says nothing, so its prediction is the one without evidence: the share
of each class, or the mean of the targets, among the images that the estimator was trained on. It is
finite, so scorers and meta-estimators, which refuse NaN or take it for the first class, go on.
`score` itself leaves such images out.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.utils import _safe_indexing, check_consistent_length

from .._typing import AnyArray, FloatArray
from ..flow import Failure, readable, warn_of

# Of equal shares the first class is the most frequent, not the one that rounding favors.
_DECIMALS = 12


class ClassShares(NamedTuple):
    """Weighted share of each class among training images.

    Parameters
    ----------
    shares : ndarray of shape (n_classes,)
        From 0 to 1. They sum to 1, except for a matrix of labels: there each label has its own.
    total : float
        Summed weight of the images.
    """

    shares: FloatArray
    total: float

    @classmethod
    def of(cls, targets: AnyArray, weights: AnyArray | None, n_classes: int) -> Self:
        """Return the shares of the classes in checked targets.

        Parameters
        ----------
        targets : ndarray of shape (n_images,) or (n_images, n_classes)
            Codes of the classes, or a matrix of 0 and 1.
        weights : ndarray of shape (n_images,) or None
            Weights of the images; None: 1.
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
        """Return the shares among the images of both."""
        total = self.total + other.total
        sums = self.shares * self.total + other.shares * other.total
        return type(self)(sums / total if total else self.shares, total)

    def logits(self, *, multilabel: bool) -> FloatArray:
        """Return the logits whose probabilities are the shares.

        Parameters
        ----------
        multilabel : bool
            Whether each label has a probability of its own.
        """
        # A class of which nothing was seen has the logit minus infinity, and the probability 0.
        with np.errstate(divide="ignore"):
            logits: FloatArray = np.log(self.shares)
            if multilabel:
                logits -= np.log1p(-self.shares)
        rounded: FloatArray = np.round(logits, _DECIMALS)
        return rounded


def filled(
    outputs: FloatArray, n_images: int, failures: Sequence[Failure], prior: FloatArray
) -> FloatArray:
    """Put outputs in their places among all images; the others get the prior.

    Parameters
    ----------
    outputs : ndarray of shape (n_readable, n_outputs)
        Outputs for the images that could be read, in order.
    n_images : int
        How many images there were.
    failures : sequence of Failure
        The images that could not be read.
    prior : ndarray of shape (n_outputs,)
        Output without evidence.
    """
    aligned = np.tile(prior, (n_images, 1))
    aligned[readable(n_images, failures)] = outputs
    return aligned


def warn_of_prior(failures: Sequence[Failure], n_images: int) -> None:
    """Warn of images whose predictions are those of the prior.

    Parameters
    ----------
    failures : sequence of Failure
        The images that could not be read.
    n_images : int
        How many images there were.
    """
    # Through the estimator's method to its caller.
    warn_of(
        failures,
        n_images,
        "their predictions are the shares of the classes, or the mean, in the training data. "
        "failures_ lists them; on_error='raise' refuses them.",
    )


class ReadableScore:
    """Mixin of fine-tuned estimators: `score` leaves out images that cannot be read."""

    _metric: Callable[..., float]
    _outputs: Callable[[Any], tuple[FloatArray, list[Failure]]]
    _decided: Callable[[FloatArray], AnyArray]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Score predictions: accuracy of a classifier, R² of a regressor.

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
            1 at best. With ``on_error="nan"``, images that cannot be read are left out, with their
            weights; where no other counts, it is the score of `predict`.
        """
        outputs, failures = self._outputs(X)
        predicted = self._decided(outputs)
        if failures:
            check_consistent_length(y, predicted, sample_weight)
            left = readable(len(predicted), failures)
            weights = None if sample_weight is None else _safe_indexing(sample_weight, left)
            consequence = "no image is left to score, so the score is that of the prior."
            # A NaN of one fold would make the mean of a whole search NaN.
            if len(left) and (weights is None or np.any(weights)):
                y, predicted, sample_weight = _safe_indexing(y, left), predicted[left], weights
                consequence = "they are left out of the score."
            warn_of(failures, len(outputs), consequence, stacklevel=3)
        return float(self._metric(y, predicted, sample_weight=sample_weight))
