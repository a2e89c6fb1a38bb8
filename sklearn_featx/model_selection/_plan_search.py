"""A dry run of a fit or a search: the number of passes, disk space and time.

It goes through the calls of the search in their order, and looks up which rows the store has. It
computes only the rows of a timed sample, and writes no rows. Files of unknown content are read, and
the store keeps their digests, so that the search need not read them again for their digests.
With folds, each image is read once more, to find related images in training and test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._arguments import check_flag, check_length
from ._calls import Calls, Fold
from ._candidates import is_search
from ._image_groups import numbered
from ._ledger import Ledger
from ._related_images import (
    Relation,
    copies,
    given,
    look_alikes,
    parts,
    patients,
    separated,
    together,
)
from ._timing import minutes


class Passes(NamedTuple):
    """Passes through one network, an entry of a `Plan`.

    Parameters
    ----------
    layers : str
        The network and its layers.
    n_passes : int
        Number of images that pass through it.
    """

    layers: str
    n_passes: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The computation of a fit or a search; the result of `plan_search`.

    Parameters
    ----------
    n_images : int
        Number of images in X.
    n_distinct : int
        Number of images of different content.
    n_passes_without_cache : int
        Number of images that pass through the trunk with ``cache=False``.
    n_passes : int
        Number of images that pass through the trunk, given the rows in the cache.
    n_passes_after_precompute : int
        Number of passes of `precompute` and the search after it; `precompute` computes all layers
        in one pass.
    passes : tuple of Passes
        `n_passes` by networks and layers.
    n_bytes : int
        Disk space of the new rows in the cache, in bytes.
    decisions : tuple of str
        For each kind of row, whether it is cached, and the reason.
    minutes : float or None
        An estimate of the time of the passes on this device, without the training of tails and of
        the estimators after an extractor. None if no sample was timed.
    groups : ndarray of shape (n_images,), int
        One number for each image, equal for related ones: the `groups` of `GroupKFold`.
    warning : str or None
        The kinds of related images that cross-validation separates, and a remedy. None: it
        separates none.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_featx import PretrainedFeatureExtractor, plan_search
    >>> extractor = PretrainedFeatureExtractor(image_size=32, cache=False)
    >>> plan = plan_search(extractor, load_digits().images[:6] / 16)
    >>> plan.n_images, plan.n_passes
    (6, 6)
    """

    n_images: int
    n_distinct: int
    n_passes_without_cache: int
    n_passes: int
    n_passes_after_precompute: int
    passes: tuple[Passes, ...]
    n_bytes: int
    decisions: tuple[str, ...]
    minutes: float | None
    groups: npt.NDArray[np.intp]
    warning: str | None

    def __str__(self) -> str:
        lines = [f"{self.n_images:,} images, {self.n_distinct:,} distinct", *self._about_passes()]
        lines += [f"{self.n_bytes / 1e6:,.1f} MB of disk space", *self.decisions]
        if self.minutes is not None:
            lines.append(f"about {_duration(self.minutes)} for the passes (an estimate)")
        if self.warning is not None:
            lines.append(f"warning: {self.warning}")
        return "\n".join(lines)

    def _about_passes(self) -> list[str]:
        lines = [
            f"{self.n_passes:,} passes ({self.n_passes_without_cache:,} without cache); a pass is "
            "one image, once through the frozen part of a network"
        ]
        lines += [f"  {n_passes:,} for {layers}" for layers, n_passes in self.passes]
        if self.n_passes_after_precompute < self.n_passes:
            lines.append(
                f"  {self.n_passes_after_precompute:,} after precompute, which computes all layers "
                "of an image in one pass"
            )
        return lines


def _duration(minutes: float) -> str:
    return f"{60 * minutes:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"


def plan_search(
    search_or_estimator: Any,
    X: Any,
    y: Any = None,
    *,
    cv: Any = None,
    groups: Any = None,
    near_copies: bool = True,
    timed: bool = True,
) -> Plan:
    """Count the passes of a fit or a search, without computing them.

    Related images in training and test make scores too high. The `warning` of the plan names the
    kinds that folds separate: copies of an image, near copies, slices or tiles of one file, images
    of one patient, or of one of `groups`. Near copies are images whose perceptual hashes, 16 x 16
    gray pixels, have a correlation of at least 0.995. Patients are read from the headers of DICOM
    files: `PatientID`, or `StudyInstanceUID` in a file without one. Related images, also through
    others, have one number in the `groups` of the plan.

    Parameters
    ----------
    search_or_estimator : estimator
        An estimator of this package, or one that contains some of them: a `Pipeline`,
        `ColumnTransformer`, `FeatureUnion`, a stacking, voting or calibrated estimator, or a
        search, also in each other. Any estimator with the parameters `estimator`, and `param_grid`
        or `param_distributions`, is a search.
    X : array-like, list, Series, DataFrame or Dataset of n_images images, or a table of them
        As in `fit`.
    y : array-like of shape (n_images,), default=None
        Targets, for stratified folds.
    cv : int, splitter or list of folds, default=None
        A cross-validation. None: that of the search; for other estimators, one fit to all images.
    groups : array-like of shape (n_images,), default=None
        Groups, such as patients, for a `cv` that needs them. None: the groups of the plan.
    near_copies : bool, default=True
        Whether to find near copies if there are folds, which reads each image.
    timed : bool, default=True
        Whether to time a sample of 8 images of each size, to estimate the time.

    Returns
    -------
    plan : Plan
        The numbers of passes of a search in one process, with one prediction for each fold. A
        random search with ``random_state=None`` will draw other candidates. Successive halving
        counts as if each candidate had all images, and an estimator that fits several clones, such
        as `MultiOutputClassifier`, as if there were one: with a cache, both are exact.
        Transformers of other packages before the images' estimator are fitted to all of X. Files
        are not decoded, so an unreadable image counts as well.

    Raises
    ------
    TypeError
        If it contains no estimator of this package, or the folds are an iterator, which can be used
        only once.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_featx import FineTuneClassifier, plan_search
    >>> digits = load_digits(n_class=2)
    >>> search = GridSearchCV(FineTuneClassifier(image_size=32), {"lr": [1e-3, 1e-2]}, cv=3)
    >>> planned = plan_search(search, digits.images[:30] / 16, digits.target[:30], timed=False)
    >>> planned.n_images, planned.n_passes_without_cache
    (30, 210)
    """
    check_flag(near_copies, "near_copies")
    check_flag(timed, "timed")
    search = search_or_estimator
    calls = Calls(X, y, asked_by="plan_search")
    calls.groups = None if groups is None else numbered(np.ravel(groups).tolist())
    jobs = calls.all_jobs(search)
    rows = np.arange(len(jobs[0].rows))
    if y is not None:
        check_length(y, "y", rows)
    has_folds = cv is not None or is_search(search)
    wanted = {"near_copies": has_folds and near_copies, "fetch": has_folds}
    relations = _relations(calls, groups, **wanted, n_jobs=jobs[0].settings.n_jobs)
    calls.groups = together(relations) if groups is None else relations[-1].groups
    folds: list[Fold] = []
    if has_folds:
        splitter = search.cv if cv is None else cv
        folds = calls.folds(splitter, rows, getattr(search, "estimator", search))
    ledger = Ledger()
    for call in calls.fit(search, rows) if cv is None else calls.cross_validated(search, folds):
        ledger.enter(call)
    return Plan(
        n_images=sum(map(len, calls.jobs.contents)),
        n_distinct=len(set().union(*calls.jobs.contents)),
        n_passes_without_cache=ledger.n_passes_without_cache,
        n_passes=ledger.n_passes,
        n_passes_after_precompute=ledger.n_passes_after_precompute,
        passes=tuple(Passes(*counted) for counted in ledger.by_layers() if counted[1]),
        n_bytes=ledger.n_bytes,
        decisions=tuple(dict.fromkeys(job.decision_in_words for job in jobs)),
        minutes=minutes(ledger.loads()) if timed else None,
        groups=together(relations),
        warning=_warning(relations, folds),
    )


def _relations(
    calls: Calls, groups: Any, *, near_copies: bool, fetch: bool, n_jobs: int | None
) -> list[Relation]:
    """Return the relations of the images; those of equal content first, the user's groups last."""
    relations = [copies(calls.jobs.sources)]
    inputs = calls.jobs.inputs
    if near_copies:
        relations.append(look_alikes(inputs, relations[0].groups, n_jobs))
    relations.append(parts(inputs, calls.jobs.sources))
    named = patients(inputs, fetch=fetch)
    if named is not None:
        relations.append(named)
    if groups is not None:
        relations.append(given(groups, len(inputs[0])))
    return relations


def _warning(relations: Sequence[Relation], folds: Sequence[Fold]) -> str | None:
    found = [(len(separated(relation.groups, folds)), relation.name) for relation in relations]
    listed = ", ".join(f"{name}: {n}" for n, name in found if n)
    if not listed:
        return None
    return (
        f"in training and test folds at once: {listed}. This makes scores too high. Keep them "
        "together: cv=GroupKFold() and fit(X, y, groups=plan.groups), with the groups of this plan."
    )
