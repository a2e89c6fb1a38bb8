"""The linear probe of a fine-tuner, from its parameters."""

from collections.abc import Sequence
from typing import Any, Literal

from .._typing import AnyArray
from ..training import (
    LinearModel,
    fit_linear_probe_classifier,
    fit_linear_probe_multilabel,
    fit_linear_probe_regressor,
)


def classifier_probe(
    estimator: Any,
    features: AnyArray,
    targets: AnyArray,
    weights: AnyArray | None,
    widths: Sequence[int] | None = None,
) -> LinearModel:
    """Solve the probe of a classifier; `widths` are the widths of the layers in `features`."""
    # The folds that choose C depend only on the data: all seeds of a search share one probe.
    C = estimator.C
    if estimator.multilabel_:
        return fit_linear_probe_multilabel(
            features, targets, C=C, sample_weight=weights, widths=widths
        )
    return fit_linear_probe_classifier(
        features, targets, estimator.n_outputs_, C=C, sample_weight=weights, widths=widths
    )


def regressor_probe(
    estimator: Any,
    features: AnyArray,
    targets: AnyArray,
    weights: AnyArray | None,
    widths: Sequence[int] | None = None,
) -> LinearModel:
    """Solve the probe of a regressor; `widths` are the widths of the layers in `features`."""
    alpha: float | Literal["auto"] = "auto" if estimator.C == "auto" else 1 / estimator.C
    return fit_linear_probe_regressor(
        features, targets, alpha=alpha, sample_weight=weights, widths=widths
    )
