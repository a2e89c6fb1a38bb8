"""A dry run: what a fit or a search will compute, before hours are spent.

It goes through the calls that the search will make, in their order, and asks the store which rows
are there. It computes no row but those of a timed sample, and writes none. Files whose content the
store does not know are read, and their digests remembered: the run need not read them for that.
With folds, each image is read once more, to find related images in training and test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._calls import Calls, Fold
from ._candidates import is_search
from ._ledger import Ledger
from ._related_images import Relation, copies, given, look_alikes, patients, separated, together
from ._timing import minutes


class Passes(NamedTuple):
    """Passes through one network, as a `Plan` lists them.

    Parameters
    ----------
    layers : str
        The network and the layers at which its rows are taken.
    n_passes : int
        Number of images that go through it.
    """

    layers: str
    n_passes: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What a fit or a search will compute; made by `plan_search`.

    Parameters
    ----------
    n_images : int
        Images in X.
    n_distinct : int
        Images of different content.
    n_passes_without_cache : int
        Images that would go through the trunk with ``cache=False``.
    n_passes : int
        Images that will go through it, given what the cache holds already.
    n_passes_after_precompute : int
        Those of `precompute` and the search after it, which computes all layers in one pass.
    passes : tuple of Passes
        `n_passes` by networks and layers.
    n_bytes : int
        Disk space that new rows will take in the cache.
    decisions : tuple of str
        For each kind of row, whether it will be remembered, and why.
    minutes : float or None
        An estimate of the time for the passes, on this device: the training of tails and of what
        comes after the features is not in it. None when no sample was timed.
    groups : ndarray of shape (n_images,), int
        One number for each image, equal for related ones: the `groups` of `GroupKFold`.
    warning : str or None
        What to do where cross-validation would separate related images.
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
                f"  precompute makes it {self.n_passes_after_precompute:,}: all layers of an image "
                "in one pass"
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
    """Say what a fit or a search will compute, without doing it.

    It also warns where a fold has related images in training and test, which makes scores too
    high: copies of one image, near copies, images of one patient, and those of one of `groups`.
    Near copies are images whose perceptual hashes, 16 x 16 gray pixels, correlate by at least
    0.995. Patients are those that the headers of DICOM files name. Related images, also through
    others, have one number in the `groups` of the plan.

    Parameters
    ----------
    search_or_estimator : estimator
        One of this package, or what holds some of them: a `Pipeline`, `ColumnTransformer`,
        `FeatureUnion`, a stacking, voting or calibrated estimator, or a search, also one inside
        another. A search of another kind counts if it has `estimator`, and `param_grid` or
        `param_distributions`.
    X : array-like, list, Series, DataFrame or Dataset of n_images images, or a table of them
        As in `fit`.
    y : array-like of shape (n_images,), default=None
        Targets, for folds that are stratified.
    cv : int, splitter or list of folds, default=None
        None: that of the search; for an estimator, one fit to all images. Else a cross-validation.
    groups : array-like of shape (n_images,), default=None
        The patients, for instance, for a `cv` that needs groups. None: the groups of the plan.
    near_copies : bool, default=True
        Whether to look for near copies, which reads each image, where there are folds.
    timed : bool, default=True
        Whether to put a sample of 8 images through each trunk, to estimate the time.

    Returns
    -------
    plan : Plan
        The numbers of passes are those of a search in one process, with one prediction for each
        fold. A random search whose `random_state` is None will draw other candidates. Successive
        halving counts as if each candidate had all images, and an estimator that fits copies of
        ours, such as `MultiOutputClassifier`, as if there were one: both are exact with a cache.
        Transformers of other packages before ours are fitted to all of X.

    Raises
    ------
    TypeError
        If there is no estimator of this package in it, or the folds are an iterator,
        which can be used once only.

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
    search = search_or_estimator
    calls = Calls(X, y, asked_by="plan_search")
    jobs = calls.all_jobs(search)
    rows = np.arange(len(jobs[0].images))
    has_folds = cv is not None or is_search(search)
    n_jobs = jobs[0].settings.n_jobs
    relations = _relations(calls, groups, near_copies=has_folds and near_copies, n_jobs=n_jobs)
    calls.groups = together(relations) if groups is None else relations[-1].groups
    folds: list[Fold] = []
    if has_folds:
        folds = calls.folds(
            search.cv if cv is None else cv, rows, getattr(search, "estimator", search)
        )
    ledger = Ledger()
    made = calls.fit(search, rows) if cv is None else calls.cross_validated(search, folds)
    for call in made:
        ledger.enter(call)
    return Plan(
        n_images=len(rows) * len(calls.jobs.sources),
        n_distinct=len(set().union(*calls.jobs.sources)),
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
    calls: Calls, groups: Any, *, near_copies: bool, n_jobs: int | None
) -> list[Relation]:
    """Return the relations of the images; those of equal content first, the user's groups last."""
    relations = [copies(calls.jobs.sources)]
    inputs = calls.jobs.inputs
    if near_copies:
        relations.append(look_alikes(inputs, relations[0].groups, n_jobs))
    named = patients(inputs)
    if named is not None:
        relations.append(named)
    if groups is not None:
        relations.append(given(groups, len(inputs[0])))
    return relations


def _warning(relations: Sequence[Relation], folds: Sequence[Fold]) -> str | None:
    found = [(len(separated(relation.groups, folds)), relation.name) for relation in relations]
    listed = ", ".join(f"{n} {name}" for n, name in found if n)
    if not listed:
        return None
    return (
        f"in training and test folds at once: {listed}. This makes scores too high. Keep them "
        "together: cv=GroupKFold() and fit(X, y, groups=plan.groups), with the groups of this plan."
    )
