"""Composition: the estimators in another estimator, and the part of X that each gets."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.pipeline import FeatureUnion, Pipeline

from .._messages import cause, shown
from .._sklearn_compat import _safe_indexing
from ..estimators._image_estimator import ImageEstimator

_STACKING = StackingClassifier | StackingRegressor


class Part(NamedTuple):
    """An estimator in another one.

    Parameters
    ----------
    estimator : estimator
        The inner estimator.
    X : array-like
        Its X: all rows, often only some columns.
    """

    estimator: Any
    X: Any


def is_estimator(value: Any) -> bool:
    """Whether a value is an estimator, not a class."""
    return hasattr(value, "get_params") and hasattr(value, "fit") and not isinstance(value, type)


def holds_ours(estimator: Any) -> bool:
    """Whether an estimator is one of this package, or contains one."""
    if isinstance(estimator, ImageEstimator):
        return True
    return any(holds_ours(inner) for inner in _inner(estimator))


class Composition:
    """The parts of estimators; each is determined once."""

    def __init__(self, y: Any) -> None:
        self._y = y
        # The objects are kept alive, so that their ids stay unique.
        self._parts: dict[tuple[int, int], tuple[Any, Any, list[Part]]] = {}
        self._inputs: dict[Any, tuple[Any, Any]] = {}

    def parts(self, estimator: Any, X: Any) -> list[Part]:
        """Return the inner estimators that contain one of this package, each with its X."""
        name = (id(estimator), id(X))
        if name not in self._parts:
            self._parts[name] = (estimator, X, list(self._found(estimator, X)))
        return self._parts[name][2]

    def _found(self, estimator: Any, X: Any) -> Iterator[Part]:
        if isinstance(estimator, Pipeline):
            yield from self._first_of_steps(estimator, X)
        elif isinstance(estimator, ColumnTransformer):
            yield from self._of_columns(estimator, X)
        else:
            yield from (Part(inner, X) for inner in _inner(estimator) if holds_ours(inner))

    def _first_of_steps(self, pipeline: Pipeline, X: Any) -> Iterator[Part]:
        """Find the step that the images reach; later steps get its output."""
        for _, step in pipeline.steps:
            if holds_ours(step):
                yield Part(step, X)
                return
            if is_estimator(step) and any(holds_ours(later) for _, later in pipeline.steps):
                X = self._transformed(step, X)

    def _transformed(self, step: Any, X: Any) -> Any:
        """Transform X by a step of another package, fitted to all of X."""
        name = (id(X), type(step), repr(step.get_params()))
        if name not in self._inputs:
            # A step without `transform`, such as a sampler, changes only the rows.
            changed = X
            if hasattr(step, "transform"):
                fitted = clone(step)
                if hasattr(fitted, "fit_transform"):
                    changed = fitted.fit_transform(X, self._y)
                else:
                    changed = fitted.fit(X, self._y).transform(X)
            self._inputs[name] = (X, changed)
        return self._inputs[name][1]

    def _of_columns(self, transformer: ColumnTransformer, X: Any) -> Iterator[Part]:
        table = X if hasattr(X, "shape") else np.asarray(X, dtype=object)
        chosen = [
            columns(table) if callable(columns) else columns
            for _, _, columns in transformer.transformers
        ]
        for (_, inner, _), columns in zip(transformer.transformers, chosen, strict=True):
            if holds_ours(inner):
                yield Part(inner, self._selected(columns, table, X))
        if holds_ours(transformer.remainder):
            used = {position for columns in chosen for position in _positions(columns, table)}
            rest = [i for i in range(table.shape[1]) if i not in used]
            yield Part(transformer.remainder, self._selected(rest, table, X))

    def _selected(self, columns: Any, table: Any, X: Any) -> Any:
        name = (id(X), "columns", repr(columns))
        if name not in self._inputs:
            try:
                self._inputs[name] = (X, _safe_indexing(table, columns, axis=1))
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"ColumnTransformer: X has no columns {shown(columns)} ({cause(error)})."
                ) from error
        return self._inputs[name][1]


def _inner(estimator: Any) -> Iterator[Any]:
    """Estimators among the parameters of another one, except those that do not get its X."""
    if isinstance(estimator, Pipeline):
        yield from (step for _, step in estimator.steps if is_estimator(step))
    elif isinstance(estimator, FeatureUnion):
        yield from (part for _, part in estimator.transformer_list if is_estimator(part))
    elif isinstance(estimator, ColumnTransformer):
        parts = [part for _, part, _ in estimator.transformers]
        yield from (part for part in [*parts, estimator.remainder] if is_estimator(part))
    elif is_estimator(estimator):
        for name, value in estimator.get_params(deep=False).items():
            if isinstance(estimator, _STACKING) and name == "final_estimator":
                continue
            yield from _estimators_in(name, value)


def _estimators_in(name: str, value: Any) -> Iterator[Any]:
    if is_estimator(value):
        yield value
    elif name in ("param_grid", "param_distributions"):
        # Candidates may replace the estimator or one of its steps.
        for grid in [value] if isinstance(value, dict) else value:
            for values in grid.values():
                if isinstance(values, list | tuple):
                    yield from filter(is_estimator, values)
    elif isinstance(value, list | tuple):
        for entry in value:
            last = entry[-1] if isinstance(entry, tuple) and entry else entry
            if is_estimator(last):
                yield last


def _positions(columns: Any, table: Any) -> Sequence[int]:
    """Numbers of the columns in the specification of a ColumnTransformer."""
    names = [str(name) for name in getattr(table, "columns", ())]
    numbers = np.arange(table.shape[1])
    if isinstance(columns, str):
        return [names.index(columns)]
    if isinstance(columns, slice) and isinstance(columns.start or columns.stop, str):
        first = names.index(columns.start) if columns.start else 0
        last = names.index(columns.stop) + 1 if columns.stop else len(names)
        return range(first, last)
    if isinstance(columns, slice):
        return list(numbers[columns])
    chosen = list(np.atleast_1d(np.asarray(columns)))
    if chosen and isinstance(chosen[0], str):
        return [names.index(str(name)) for name in chosen]
    return list(numbers[np.asarray(chosen)]) if chosen else []
