"""The score that a fitted model gives to rows of features, for each class or output."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from sklearn.base import is_clusterer

from .._messages import shown
from .._typing import AnyArray, FloatArray
from ..exceptions import UnsuitableModelError

# Log-odds beyond it have lost their digits: the probability is 1 but for rounding.
LOG_ODDS_LIMIT = 15.0
_TINY = 1e-300


Unit: TypeAlias = Literal["decision function", "log-odds", "probability", "value"]


class Score(NamedTuple):
    """Scores of rows by a model.

    Parameters
    ----------
    unit : {"decision function", "log-odds", "probability", "value"}
        Kind of the scores.
    labels : ndarray of shape (n_outputs,)
        Class or number of each output.
    of : callable
        From rows (n, n_features) to scores (n, n_outputs).
    limit : float, default=inf
        Scores beyond it are not precise.
    rest : callable, default=None
        From rows to what is added to all scores of a row, (n,): the logarithm of the sum of
        exponentials that log-probabilities are divided by.
    """

    unit: Unit
    labels: AnyArray
    of: Callable[[AnyArray], FloatArray]
    limit: float = np.inf
    rest: Callable[[AnyArray], FloatArray] | None = None

    def only(self, output: int) -> Callable[[AnyArray], FloatArray]:
        """Scores of one output, (n,)."""
        return lambda rows: self.of(rows)[:, output]

    def place(self, target: Any) -> int:
        """Position of a class or output."""
        matches = np.flatnonzero(self.labels == target)
        if len(matches) != 1:
            raise ValueError(
                f"target={shown(target)} is none of the classes or outputs: "
                f"{shown(self.labels.tolist())}."
            )
        return int(matches[0])


def scores_of(steps: Sequence[Any]) -> list[Score]:
    """Scores that fitted steps give; the second, if there is one, where the first is not affine.

    Parameters
    ----------
    steps : sequence of estimators
        Transformers and, last, a predictor.

    Raises
    ------
    TypeError
        If the last has no method that predicts.
    """
    final = steps[-1] if steps else None
    labels = _labels(final)

    def ask(name: str) -> Callable[[AnyArray], FloatArray]:
        def scores(rows: AnyArray) -> FloatArray:
            rows = transformed(steps[:-1], rows)
            with _without_names():
                found = _columns(getattr(final, name)(rows), name)
            if name == "decision_function" and found.shape[1] != len(labels):
                raise ValueError(
                    f"{shown(final)}: decision_function has {found.shape[1]} columns for "
                    f"{len(labels)} classes, one for each pair of them. Set "
                    "decision_function_shape='ovr', which needs no other fit."
                )
            return found

        return scores

    if hasattr(final, "decision_function"):
        if not hasattr(final, "classes_"):
            # Of outlier detectors: positive for inliers.
            labels = np.array([-1, 1])
        of = ask("decision_function")
        return [Score("decision function", labels, of)]
    if hasattr(final, "predict_proba"):
        of = ask("predict_proba")
        odds = Score("log-odds", labels, lambda rows: _log_odds(of(rows)), LOG_ODDS_LIMIT)
        return [odds, Score("probability", labels, of)]
    if hasattr(final, "predict") and not hasattr(final, "classes_") and not is_clusterer(final):
        return [Score("value", labels, ask("predict"))]
    raise UnsuitableModelError(_no_scores(final))


def _no_scores(final: Any) -> str:
    if final is None:
        return "nothing follows the extractor: there is no score to look into. Add a predictor."
    # The numbers of clusters are names.
    return (
        f"{shown(final)} after the extractor has no decision_function, predict_proba or values to "
        "predict: there is no score to look into. Take a classifier or regressor."
    )


def tuned_score(tuner: Any, outputs: Callable[[AnyArray], FloatArray]) -> Score:
    """Score of a fine-tuner, from the outputs of its head.

    Parameters
    ----------
    tuner : FineTuneClassifier or FineTuneRegressor
        Fitted.
    outputs : callable
        From rows to logits or standardized values.

    Returns
    -------
    score : Score
        What its `decision_function` or `predict` returns.
    """
    if not hasattr(tuner, "classes_"):
        values = np.arange(tuner.n_outputs_)
        return Score(
            "value", values, lambda rows: outputs(rows) * tuner.target_scale_ + tuner.target_mean_
        )
    if tuner.multilabel_:
        return Score("decision function", tuner.classes_, outputs)
    if tuner.n_outputs_ == 2:
        odds = np.array([[1.0, -1.0], [-1.0, 1.0]])
        return Score("decision function", tuner.classes_, lambda rows: outputs(rows) @ odds)

    def logits(rows: AnyArray) -> FloatArray:
        # They have a constant that training does not determine.
        found = outputs(rows)
        centered: FloatArray = found - found.mean(1, keepdims=True)
        return centered

    def rest(rows: AnyArray) -> FloatArray:
        found = logits(rows)
        top = found.max(1)
        less: FloatArray = -top - np.log(np.exp(found - top[:, np.newaxis]).sum(1))
        return less

    return Score("decision function", tuner.classes_, logits, rest=rest)


def transformed(steps: Sequence[Any], rows: AnyArray) -> AnyArray:
    """Rows after fitted transformers."""
    with _without_names():
        for step in steps:
            rows = step.transform(rows)
    return rows


@contextlib.contextmanager
def _without_names() -> Iterator[None]:
    """Context manager: names of columns say nothing here, their order is that of the fit."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        yield


def _columns(scores: Any, name: str) -> FloatArray:
    """Scores with one column for each class or output; a binary score has both signs."""
    if isinstance(scores, list):
        # Of several outputs of two classes: the probability of the second.
        widths = {np.shape(one)[-1] for one in scores}
        if widths != {2}:
            raise ValueError(
                f"The predictor has {len(scores)} outputs, and some have other than two classes. "
                "Look into one predictor for each output."
            )
        scores = np.stack([np.asarray(one)[:, 1] for one in scores], axis=1)
    found = np.asarray(scores, dtype=np.float64)
    if found.ndim == 1:
        column = found[:, np.newaxis]
        return np.hstack([-column, column]) if name == "decision_function" else column
    return found


def _labels(final: Any) -> AnyArray:
    classes = getattr(final, "classes_", None)
    if isinstance(classes, list):
        return np.arange(len(classes))
    if classes is not None and np.ndim(classes) == 1:
        return np.asarray(classes)
    coefficients = np.asarray(getattr(final, "coef_", ()))
    n_outputs = coefficients.shape[0] if coefficients.ndim == 2 else 1
    return np.arange(int(getattr(final, "n_outputs_", n_outputs)))


def _log_odds(probabilities: FloatArray) -> FloatArray:
    """Log-odds of each column; of several labels, probabilities of a row do not sum to 1."""
    if probabilities.shape[1] == 2 and np.allclose(probabilities.sum(1), 1):
        logs = np.log(probabilities.clip(_TINY))
        odds: FloatArray = logs - logs[:, ::-1]
    else:
        odds = np.log(probabilities.clip(_TINY) / (1 - probabilities).clip(_TINY))
    return odds
