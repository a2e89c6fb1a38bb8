"""The tuned embedding as columns for another estimator, out of fold on the training images."""

import copy
from abc import abstractmethod
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._messages import shown
from .._sklearn_compat import _check_feature_names_in
from .._typing import AnyArray, FloatArray
from ..flow import Failure, warn_of
from ..images import ImageCollection
from ..training import embed_rows
from ._fit_tasks import FitTasks
from ._fitting import fitting
from ._head_layers import embedding_taps
from ._image_estimator import ROWS_ARE_NAN
from ._prior import filled
from ._targets import check_groups
from ._unchanged import check_unchanged


class TunedEmbedding(TransformerMixin):
    """Mixin of the fine-tuners: `transform` returns the input of the head."""

    @fitting
    def fit_transform(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> FloatArray:
        """Train the tail and the head, then return the embeddings of the training images.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.
        y : array-like of shape (n_images,) or (n_images, n_outputs)
            Targets, as in `fit`.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the images.
        groups : array-like of shape (n_images,), default=None
            Groups of the images, as in `fit`: `cross_fit` does not separate them either.

        Returns
        -------
        embeddings : ndarray of shape (n_images, n_embedding_), float32
            With `cross_fit`, from networks that were not trained on the image.
        """
        images, targets, weights = self._prepared(X, y, sample_weight)
        codes = check_groups(groups, len(images))
        everything = np.arange(len(images))
        self._check_cross_fit(everything, targets, codes)
        tasks = FitTasks(self, X, y, sample_weight, groups)
        self._fit_rows(images, targets, weights, tasks, codes)
        # Again at every depth, without the images that turned out to be unreadable.
        known = np.setdiff1d(everything, [failure.row for failure in self.failures_])
        self._check_cross_fit(known, targets, codes)
        if self.cross_fit is None or not self._embedding_is_tuned():
            return self._embeddings(images)[0]
        return self._out_of_fold(images, known, targets, weights, codes)

    def transform(self, X: Any) -> FloatArray:
        """Compute the embeddings of images: the input of the head, before its scaling.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            As in `fit`.

        Returns
        -------
        embeddings : ndarray of shape (n_images, n_embedding_), float32
            Pooled activations of the layers that the head reads. With ``on_error="nan"``, NaN for
            unreadable images.

        Raises
        ------
        NotFittedError, InputError, ImageError, WeightsError
            As in `predict`.
        """
        check_is_fitted(self, "trained_state_")
        embeddings, failures = self._embeddings(self._images(X, reset=False))
        warn_of(failures, len(embeddings), ROWS_ARE_NAN)
        return embeddings

    def get_feature_names_out(self, input_features: Any = None) -> AnyArray:
        """Return the names of the columns: estimator, stage, pooling and number.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Checked against the names seen in `fit`; not used.

        Returns
        -------
        names : ndarray of shape (n_embedding_,), object
            ``finetuneclassifier_blocks.4_avg_012`` and so on.
        """
        check_is_fitted(self, "trained_state_")
        _check_feature_names_in(self, input_features, generate_names=False)
        backbone = self._backbone()
        check_unchanged(self, backbone)
        stages = backbone.stages
        prefixes = [
            f"{type(self).__name__.lower()}_{stages[int(layer) - 1].name}_{pooling}"
            for layer, pooling in embedding_taps(len(stages), self.head_layers)
        ]
        names: AnyArray = self._column_names(prefixes, self.layer_widths_)
        return names

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _embedding_is_tuned(self) -> bool:
        """Whether the embedding depends on the targets."""
        backbone = self._backbone()
        return bool(self._split(backbone) < len(backbone.stages))

    def _embeddings(self, images: ImageCollection) -> tuple[FloatArray, list[Failure]]:
        embeddings, failures = self._computed(images, embed_rows, self.n_embedding_)
        if failures:
            missing = np.full(self.n_embedding_, np.nan)
            embeddings = filled(embeddings, len(images), failures, missing)
        return embeddings.astype(np.float32), failures

    def _out_of_fold(
        self,
        images: ImageCollection,
        known: AnyArray,
        targets: AnyArray,
        weights: AnyArray | None,
        groups: AnyArray | None,
    ) -> FloatArray:
        """Embeddings of each fold, from a network that was trained on the other folds."""
        embeddings = np.full((len(images), self.n_embedding_), np.nan, np.float32)
        for train, test in self._folds(known, targets, groups):
            # A copy without warm start: the estimator itself has seen all targets.
            fold = copy.copy(self)
            fold.warm_start = False
            own = None if weights is None else weights[train]
            kept = None if groups is None else groups[train]
            left = fold._targets_left(targets[train], own)
            fold._fit_rows(images.take(train), left, own, groups=kept)
            embeddings[test], _ = fold._embeddings(images.take(test))
        return embeddings

    def _check_cross_fit(self, rows: AnyArray, targets: AnyArray, groups: AnyArray | None) -> None:
        """Raise an error for fewer rows of each class, or fewer groups, than folds."""
        if self.cross_fit is None:
            return
        n_groups = None if groups is None else len(np.unique(groups[rows]))
        if n_groups is not None and n_groups < self.cross_fit:
            raise ValueError(
                f"cross_fit={self.cross_fit} folds of whole groups need as many groups, and there "
                f"are {n_groups}. Use fewer folds, at least 2, or fit without groups."
            )
        if groups is None and len(rows) < self.cross_fit:
            raise ValueError(
                f"cross_fit={self.cross_fit} folds need as many rows, and there are {len(rows)}. "
                "Use fewer folds, at least 2, or cross_fit=None."
            )
        if self._task == "classification":
            _check_classes_in_folds(self, targets[rows], rows if groups is None else groups[rows])

    def _folds(
        self, rows: AnyArray, targets: AnyArray, groups: AnyArray | None
    ) -> list[tuple[AnyArray, AnyArray]]:
        # Imported here, because the import is slow.
        from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

        stratified = self._task == "classification"
        if groups is None:
            make = StratifiedKFold if stratified else KFold
        else:
            make, groups = StratifiedGroupKFold if stratified else GroupKFold, groups[rows]
        folds = make(self.cross_fit, shuffle=True, random_state=self.seed_)
        found = folds.split(rows, targets[rows], groups)
        return [(rows[train], rows[test]) for train, test in found]

    @abstractmethod
    def _prepared(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[ImageCollection, AnyArray, AnyArray | None]:
        """Validate and return the images, targets and weights of a fit."""


def _check_classes_in_folds(estimator: Any, codes: AnyArray, units: AnyArray) -> None:
    """Refuse folds that scikit-learn cannot stratify, and a fold that trains on one class.

    Parameters
    ----------
    estimator : FineTuneClassifier
        Has `cross_fit` and `classes_`.
    codes : ndarray of shape (n_rows,)
        Class codes.
    units : ndarray of shape (n_rows,)
        Equal for rows that no fold separates.
    """
    n_folds, classes = estimator.cross_fit, estimator.classes_.tolist()
    counts = np.bincount(codes, minlength=len(classes))
    largest = int(counts.argmax())
    if counts[largest] < n_folds:
        fewer = f"cross_fit={counts[largest]} or " if counts[largest] > 1 else ""
        raise ValueError(
            f"cross_fit={n_folds} folds need a class of as many rows, and the largest, "
            f"{shown(classes[largest])}, has {counts[largest]}. Set {fewer}cross_fit=None, or add "
            "images."
        )
    spread = [len(np.unique(units[codes == code])) for code in range(len(classes))]
    if len(classes) == 2 and min(spread) < 2:
        rare = int(np.argmin(spread))
        raise ValueError(
            f"cross_fit={n_folds}: the fold that holds out class {shown(classes[rare])} would "
            f"train on {shown(classes[1 - rare])} only, because it has one row or "
            "one group only. Add images of it, or set cross_fit=None."
        )
