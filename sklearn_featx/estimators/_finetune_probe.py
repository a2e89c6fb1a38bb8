"""The linear probe of an estimator: its penalty is chosen, then it is solved."""

from typing import Any

from .._typing import AnyArray
from ..training import (
    LinearModel,
    choose_alpha,
    choose_C,
    fit_linear_probe_classifier,
    fit_linear_probe_multilabel,
    fit_linear_probe_regressor,
)


def classifier_probe(
    estimator: Any, features: AnyArray, targets: AnyArray, weights: AnyArray | None
) -> LinearModel:
    if estimator.multilabel_:
        return _multilabel_probe(estimator, features, targets, weights)
    C = estimator.C
    if C == "auto":
        # The folds depend on the data alone: every seed of a search shares one probe.
        C = choose_C(features, targets, weights)
    return LinearModel(
        *fit_linear_probe_classifier(
            features, targets, estimator.n_outputs_, C=C, sample_weight=weights
        )
    )


def _multilabel_probe(
    estimator: Any, features: AnyArray, targets: AnyArray, weights: AnyArray | None
) -> LinearModel:
    """One logistic regression for each label, with a penalty of its own."""
    Cs = [
        choose_C(features, label, weights) if estimator.C == "auto" else estimator.C
        for label in targets.T.astype(int)
    ]
    return LinearModel(*fit_linear_probe_multilabel(features, targets, C=Cs, sample_weight=weights))


def regressor_probe(
    estimator: Any, features: AnyArray, targets: AnyArray, weights: AnyArray | None
) -> LinearModel:
    alpha = choose_alpha(features, targets, weights) if estimator.C == "auto" else 1 / estimator.C
    return LinearModel(
        *fit_linear_probe_regressor(features, targets, alpha=alpha, sample_weight=weights)
    )
