"""Computation of all rows of a search in one pass over the images, before the search."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .._messages import shown
from ..flow import Recipe, Tap, decide, stream
from ._calls import Calls
from ._jobs import Job


def precompute(search_or_estimator: Any, X: Any, *, verbose: int = 0) -> None:
    """Compute and cache the rows that a fit or a search will need.

    A search computes and caches missing rows itself, with the same result. `precompute` has two
    advantages. With ``n_jobs`` worker processes and a GPU, only this process loads the backbone on
    the GPU, and the workers read rows. And each image passes through the network once for all
    depths or layers of the search, while a search makes a pass for each new layer.

    Parameters
    ----------
    search_or_estimator : estimator
        As in `plan_search`.
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        As in `fit`.
    verbose : int, default=0
        1 shows a progress bar.

    Raises
    ------
    TypeError
        If it contains no estimator of this package.
    ValueError
        If none of its rows are cached.

    See Also
    --------
    plan_search : Count the passes without computing them.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_featx import FineTuneClassifier, plan_search, precompute
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images[:30] / 16, digits.target[:30]
    >>> search = GridSearchCV(FineTuneClassifier(image_size=32), {"unfreeze_depth": [0, 1]}, cv=3)
    >>> precompute(search, X)
    >>> plan_search(search, X, y, timed=False).n_passes
    0
    """
    if not isinstance(verbose, int | float) or verbose < 0:
        raise ValueError(f"verbose={shown(verbose)}: expected 0, or 1 for a progress bar.")
    jobs = Calls(X, None, asked_by="precompute").all_jobs(search_or_estimator)
    cached = [job for job in jobs if job.decision.cached]
    if not cached:
        raise ValueError(f"precompute: no rows are cached ({jobs[0].decision_in_words}).")
    for _, group in itertools.groupby(sorted(cached, key=_pass_key), key=_pass_key):
        alike = list(group)
        settings = alike[0].settings._replace(verbose=verbose)
        for recipe in _recipes(alike):
            for _ in stream(alike[0].images, recipe, settings):
                pass


def _pass_key(job: Job) -> str:
    return repr(job.pass_key)


def _recipes(alike: list[Job]) -> Iterator[Recipe]:
    """One recipe with all taps; or one for each job, if so many rows would not be cached."""
    taps: dict[Tap, None] = {}
    for job in alike:
        taps |= dict.fromkeys([*job.fitting.taps, *job.predicting.taps])
    first = alike[0]
    whole = replace(first.fitting, taps=tuple(taps))
    shapes = whole.row_shapes(first.images)
    if decide(whole, shapes, len(first.images), first.store).cached:
        yield whole
    else:
        yield from (job.fitting for job in alike)
