"""Labels that are probably wrong, from out-of-fold predictions."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from .._optional import import_optional
from .._typing import AnyArray, FloatArray
from ._predictions import predictions_of

_PURPOSE = "label_issues"


class LabelIssues(NamedTuple):
    """Result of `label_issues`.

    Parameters
    ----------
    order : ndarray of shape (n_images,)
        All rows, the most suspicious label first.
    quality : ndarray of shape (n_images,)
        Quality of each label, from 0 to 1.
    is_issue : ndarray of bool, shape (n_images,)
        Whether cleanlab estimates the label to be wrong.
    suggested : ndarray of shape (n_images,)
        The most probable class.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx import LabelIssues
    >>> issues = LabelIssues(
    ...     order=np.array([1, 0]),
    ...     quality=np.array([0.9, 0.2]),
    ...     is_issue=np.array([False, True]),
    ...     suggested=np.array(["cat", "dog"]),
    ... )
    >>> issues.suggested[issues.order[:1]]
    array(['dog'], dtype='<U3')
    """

    order: AnyArray
    quality: FloatArray
    is_issue: AnyArray
    suggested: AnyArray


def label_issues(y: Any, probabilities: Any, *, classes: Any = None) -> LabelIssues:
    """Find labels that are probably wrong, with cleanlab.

    Confident learning [1]_ compares each label with the probabilities of a model that has not seen
    it: those of `cross_val_predict` with ``method="predict_proba"``.

    Parameters
    ----------
    y : array-like of shape (n_images,)
        The labels.
    probabilities : array-like of shape (n_images, n_classes)
        Out-of-fold probabilities.
    classes : array-like of shape (n_classes,), default=None
        Classes of the columns. None: the labels of `y`, sorted.

    Returns
    -------
    issues : LabelIssues
        Order, quality, issues, suggestions.

    Raises
    ------
    MissingDependencyError
        If cleanlab is not installed.
    ValueError
        If these are no probabilities, or sizes do not fit.

    See Also
    --------
    MistakesDisplay : Draws the most confident mistakes.
    near_duplicates : Images that are nearly the same.

    References
    ----------
    .. [1] C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident learning: estimating uncertainty in
       dataset labels", JAIR 70, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_featx import label_issues
    >>> y = np.array(["cat", "cat", "dog", "dog", "dog", "cat"])
    >>> p = np.array([0.9, 0.8, 0.1, 0.2, 0.95, 0.9])
    >>> issues = label_issues(y, np.stack([p, 1 - p], axis=1))
    >>> int(issues.order[0]), str(issues.suggested[4])
    (4, 'cat')
    """
    ranking = import_optional("cleanlab.rank", extra="cleanlab", purpose=_PURPOSE)
    filtering = import_optional("cleanlab.filter", extra="cleanlab", purpose=_PURPOSE)
    found = predictions_of(y, probabilities, classes, "probabilities")
    if found.unit != "probability":
        raise ValueError(
            "probabilities: rows are no probabilities of the classes. Call cross_val_predict with "
            "method='predict_proba'."
        )
    p = np.asarray(probabilities, dtype=float)
    quality = ranking.get_label_quality_scores(found.true, p)
    with warnings.catch_warnings():
        # The warning is of classes without images; `order` has all rows.
        warnings.filterwarnings("ignore", message="May not flag all label issues")
        # One process: the rows are few, and workers would import everything again.
        is_issue = filtering.find_label_issues(found.true, p, n_jobs=1)
    order = np.argsort(quality, kind="stable")
    return LabelIssues(order, quality, is_issue, found.classes[found.predicted])
