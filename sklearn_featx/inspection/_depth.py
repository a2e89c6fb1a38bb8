"""UnfreezeDepthDisplay: scores, times and parameter counts of a search over `unfreeze_depth`."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from .._arguments import check_length
from .._messages import shown
from .._typing import UnfreezeDepth
from ..backbones import StageInfo, backbone_stages
from ._axes import axes_for

_PARAMETER = "unfreeze_depth"


class UnfreezeDepthDisplay:
    r"""Score, fit time and number of trained parameters of each depth of a search.

    Use `from_search` to make one.

    Parameters
    ----------
    depths : sequence of int, "all" or (int, int)
        Values of `unfreeze_depth`.
    mean_scores : sequence of float
        Mean score over the folds of the best candidate of each depth.
    std_scores : sequence of float
        Standard deviation of the candidate's score over the folds.
    fit_seconds : sequence of float
        Mean time of fitting the candidate, in seconds.
    n_trained : sequence of int
        Number of parameters of the backbone that each depth trains.
    score_name : str, default="score"
        Name of the scores.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the plot.
    time_ax_ : matplotlib Axes
        The axes of the times, over the same depths.
    figure_ : matplotlib Figure
        The figure of `ax_`.

    See Also
    --------
    TrainingHistoryDisplay : The epochs of one training.

    Examples
    --------
    >>> from sklearn_featx import UnfreezeDepthDisplay
    >>> display = UnfreezeDepthDisplay([0, 1], [0.81, 0.83], [0.01, 0.02], [0.5, 3.0], [0, 412160])
    >>> display.labels
    ['0\nhead only', '1\n412 k']
    """

    def __init__(
        self,
        depths: Sequence[UnfreezeDepth],
        mean_scores: Sequence[float],
        std_scores: Sequence[float],
        fit_seconds: Sequence[float],
        n_trained: Sequence[int],
        score_name: str = "score",
    ) -> None:
        self.depths = depths
        self.mean_scores = mean_scores
        self.std_scores = std_scores
        self.fit_seconds = fit_seconds
        self.n_trained = n_trained
        self.score_name = score_name

    @classmethod
    def from_search(cls, search: Any, *, ax: Any = None) -> Self:
        """Plot a fitted search over `unfreeze_depth`.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or another with `cv_results_`
            A fitted search over `unfreeze_depth`, and over other parameters if you like. For each
            depth, the candidate with the best mean score is shown.
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        display : UnfreezeDepthDisplay
            The plot and its data.

        Raises
        ------
        TypeError
            If it is no search.
        ValueError
            If the search is not over `unfreeze_depth`.
        """
        if not (hasattr(search, "refit") or hasattr(search, "cv_results_")):
            raise TypeError(f"search={shown(search)}: expected a fitted GridSearchCV or the like.")
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        name = _parameter_name(results["params"])
        metric = search.refit if isinstance(getattr(search, "refit", None), str) else "score"
        if f"mean_test_{metric}" not in results:
            raise ValueError(
                "the search has several metrics and no refit that names one of them: there is no "
                "one score to plot."
            )
        best = _best_candidates(results["params"], results[f"mean_test_{metric}"], name)
        return cls(
            depths=[results["params"][i][name] for i in best],
            mean_scores=[float(results[f"mean_test_{metric}"][i]) for i in best],
            std_scores=[float(results[f"std_test_{metric}"][i]) for i in best],
            fit_seconds=[float(results["mean_fit_time"][i]) for i in best],
            n_trained=[_n_trained(search.estimator, results["params"][i], name) for i in best],
            score_name=_score_name(search, metric),
        ).plot(ax=ax)

    @property
    def labels(self) -> list[str]:
        """Depths, with their trained parts."""
        return [
            f"{depth}\n{_in_short(n) if n else 'head only'}"
            for depth, n in zip(self.depths, self.n_trained, strict=True)
        ]

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the scores with their spread, and the times behind them.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        self : UnfreezeDepthDisplay
            The display.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        for name in ("mean_scores", "std_scores", "fit_seconds", "n_trained"):
            check_length(getattr(self, name), name, self.depths, "depths", "depth")
        ax = axes_for(ax, "UnfreezeDepthDisplay.plot")
        places = np.arange(len(self.depths))
        times = ax.twinx()
        times.bar(places, self.fit_seconds, width=0.5, color="0.88")
        times.set_ylabel("Mean fit time [s]", color="0.45")
        times.tick_params(axis="y", colors="0.45")
        # A second pair of axes lies above the first; the scores are to lie above the bars.
        ax.set_zorder(times.get_zorder() + 1)
        ax.patch.set_visible(False)
        ax.errorbar(places, self.mean_scores, self.std_scores, marker="o", capsize=4)
        ax.set_xticks(places, self.labels)
        ax.set(xlabel="unfreeze_depth, parameters trained", ylabel=self.score_name.capitalize())
        self.ax_, self.time_ax_, self.figure_ = ax, times, ax.figure
        return self


def _parameter_name(candidates: Sequence[dict[str, Any]]) -> str:
    """Name of the parameter, which ends in the estimator's own inside a pipeline."""
    for name in sorted({name for candidate in candidates for name in candidate}):
        if name.rpartition("__")[2] == _PARAMETER and all(name in c for c in candidates):
            return name
    raise ValueError(
        f"the search is not over {_PARAMETER!r}: each of its candidates has to set it."
    )


def _best_candidates(
    candidates: Sequence[dict[str, Any]], scores: Sequence[float], name: str
) -> list[int]:
    """Position of the best candidate of each depth, the shallowest first."""
    best: dict[UnfreezeDepth, int] = {}
    for i in np.argsort(-np.nan_to_num(np.asarray(scores), nan=-np.inf), kind="stable").tolist():
        depth = candidates[i][name]
        best.setdefault(tuple(depth) if isinstance(depth, list) else depth, i)
    return [best[depth] for depth in sorted(best, key=_order)]


def _order(depth: UnfreezeDepth) -> tuple[int, tuple[int, ...]]:
    if isinstance(depth, tuple):
        return 2, depth
    return (1, ()) if isinstance(depth, str) else (0, (depth,))


def _n_trained(estimator: Any, candidate: dict[str, Any], name: str) -> int:
    """Count the parameters of the backbone that a candidate trains."""
    tuned = clone(estimator).set_params(**clone(candidate, safe=False))
    prefix = name.removesuffix(_PARAMETER).removesuffix("__")
    tuner = tuned.get_params()[prefix] if prefix else tuned
    stages = backbone_stages(tuner.backbone, granularity=tuner.granularity)
    return sum(stage.n_parameters for stage in _trained(stages, candidate[name]))


def _trained(stages: list[StageInfo], depth: UnfreezeDepth) -> list[StageInfo]:
    if isinstance(depth, tuple | list):
        return stages[len(stages) - depth[1] : len(stages) - depth[0] + 1]
    return stages if depth == "all" else stages[len(stages) - int(depth) :]


def _in_short(n: int) -> str:
    """Write a number of parameters with three digits."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return str(n)


def _score_name(search: Any, metric: str) -> str:
    if metric != "score":
        return metric
    return search.scoring if isinstance(search.scoring, str) else "score"
