"""All rows that a search needs, in one pass of the images, before it starts its workers."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..flow import Recipe, Tap, decide, stream
from ._calls import Calls
from ._jobs import Job


def precompute(search_or_estimator: Any, X: Any, *, verbose: int = 0) -> None:
    """Compute and remember the rows that a fit or a search will need.

    A search finds its rows as it goes, and remembers them: this is never needed for the result.
    It helps in two cases. With ``n_jobs`` workers and a GPU, only this process puts the backbone
    on it; the workers read. And each image goes through the network once for all depths or layers
    of the search, where a search that meets them one after the other needs a pass for each.

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
        If there is no estimator of this package in it.
    ValueError
        If none of its rows are remembered.

    See Also
    --------
    plan_search : Says what this would compute.

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
    jobs = Calls(X, None, asked_by="precompute").all_jobs(search_or_estimator)
    remembered = [job for job in jobs if job.decision.cached]
    if not remembered:
        raise ValueError(f"precompute: no rows are remembered ({jobs[0].decision_in_words}).")
    for _, group in itertools.groupby(sorted(remembered, key=_by_way), key=_by_way):
        alike = list(group)
        settings = alike[0].settings._replace(verbose=verbose)
        for recipe in _recipes(alike):
            for _ in stream(alike[0].images, recipe, settings):
                pass


def _by_way(job: Job) -> str:
    return repr(job.way)


def _recipes(alike: list[Job]) -> Iterator[Recipe]:
    """One recipe with all taps, or those of each job where so much would not be remembered."""
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
