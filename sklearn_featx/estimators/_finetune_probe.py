"""The linear probe of a fine-tuner, from its parameters and training rows."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from .._digest import digest_array
from .._typing import AnyArray
from ..training import (
    LinearModel,
    fit_linear_probe_classifier,
    fit_linear_probe_multilabel,
    fit_linear_probe_regressor,
)


class StartRows(NamedTuple):
    """Training rows that a head starts from.

    Parameters
    ----------
    embeddings : ndarray of shape (n_rows, n_features)
        Input of the head.
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Class codes, labels or values.
    weights : ndarray of shape (n_rows,) or None
        Weights of the rows.
    groups : ndarray of shape (n_rows,) or None
        Equal for rows that no choice separates.
    """

    embeddings: AnyArray
    targets: AnyArray
    weights: AnyArray | None
    groups: AnyArray | None

    def some(self, places: slice | AnyArray) -> "StartRows":
        """Return some of the rows."""
        embeddings, targets, *others = self
        weights, groups = (taken(part, places) for part in others)
        return StartRows(embeddings[places], targets[places], weights, groups)

    def key(self, C: float | str) -> tuple[str | None, ...]:
        """Return the digests of all that the probe depends on; a given C needs no groups."""
        parts = self if C == "auto" else self[:3]
        return tuple(None if part is None else digest_array(part) for part in parts)


def starts_at_probe(estimator: Any) -> bool:
    """Whether the head starts at the linear probe."""
    return bool(estimator.head_init == "probe" and estimator.head == "linear")


def taken(values: AnyArray | None, places: slice | AnyArray) -> AnyArray | None:
    """Return the values of some rows, if there are any values."""
    return None if values is None else values[places]


def classifier_probe(estimator: Any, rows: StartRows, widths: Sequence[int]) -> LinearModel:
    """Solve the probe of a classifier; `widths` are those of the layers in the embeddings."""
    # The folds that choose C depend only on the data: all seeds of a search share one probe.
    options: dict[str, Any] = {
        "C": estimator.C,
        "sample_weight": rows.weights,
        "widths": widths,
        "groups": rows.groups,
    }
    if estimator.multilabel_:
        return fit_linear_probe_multilabel(rows.embeddings, rows.targets, **options)
    return fit_linear_probe_classifier(
        rows.embeddings, rows.targets, estimator.n_outputs_, **options
    )


def regressor_probe(estimator: Any, rows: StartRows, widths: Sequence[int]) -> LinearModel:
    """Solve the probe of a regressor; `widths` are those of the layers in the embeddings."""
    alpha: float | Literal["auto"] = "auto" if estimator.C == "auto" else 1 / estimator.C
    model = fit_linear_probe_regressor(
        rows.embeddings,
        rows.targets,
        alpha=alpha,
        sample_weight=rows.weights,
        widths=widths,
        groups=rows.groups,
    )
    return model if estimator.C == "auto" else model._replace(C=estimator.C)
