"""Mistakes of a model: the most confident ones, and a confusion matrix whose cells show images."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np

from .._arguments import check_count
from .._messages import shown
from .._typing import AnyArray
from ..estimators._image_reader import ImageReader
from ..flow import warn_of_range
from ._axes import axes_for, check_axes, short_name
from ._grid import axes_grid, nearly_square
from ._pictures import images_of, thumbnail
from ._predictions import Predictions, predictions_of

# Letters that fit under the columns of a matrix.
_LETTERS = 50
# Letters of two names that fit in one line over a picture.
_LETTERS_IN_TITLE = 16


class MistakesDisplay:
    """The most confident mistakes among predictions.

    Use `from_predictions` to make one.

    Parameters
    ----------
    predictions : Predictions
        True and predicted classes, and the confidence in what was predicted.
    rows : ndarray of int
        Positions of the mistakes that are drawn, the most confident first.
    thumbnails : dict of int to ndarray of shape (side, side, 3)
        The images that are drawn, by position.
    examples : dict of (int, int) to int
        For each cell of the confusion matrix, true and predicted class, the position of its most
        confident image.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, or matplotlib Axes
        The axes of the plot.
    figure_ : matplotlib Figure
        The figure of `axes_`.

    See Also
    --------
    label_issues : Labels that are probably wrong.
    HeatMapDisplay : Where in an image its score comes from.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_predict
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_featx import MistakesDisplay, PretrainedFeatureExtractor
    >>> digits = load_digits(n_class=3)
    >>> X, y = digits.images[:60] / 16, digits.target[:60]
    >>> extractor = PretrainedFeatureExtractor(layer="blocks.0", image_size=32)
    >>> model = make_pipeline(extractor, LogisticRegression(C=1e-3))
    >>> predicted = cross_val_predict(model, X, y, method="predict_proba", cv=3)
    >>> display = MistakesDisplay.from_predictions(X, y, predicted)
    >>> bool((display.predictions.true != display.predictions.predicted)[display.rows].all())
    True
    """

    def __init__(
        self,
        predictions: Predictions,
        rows: AnyArray,
        thumbnails: Mapping[int, AnyArray],
        examples: Mapping[tuple[int, int], int],
    ) -> None:
        self.predictions = predictions
        self.rows = rows
        self.thumbnails = thumbnails
        self.examples = examples

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        y: Any,
        predicted: Any,
        *,
        classes: Any = None,
        n_mistakes: int = 12,
        kind: Literal["mistakes", "matrix"] = "mistakes",
        thumbnail_size: int = 96,
        reader: ImageReader | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the mistakes of predictions, such as `cross_val_predict` returns.

        Parameters
        ----------
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            The images.
        y : array-like of shape (n_images,)
            Their labels.
        predicted : array-like of shape (n_images,) or (n_images, n_classes)
            Labels; or, with ``method="predict_proba"`` or ``"decision_function"``, probabilities or
            scores, whose columns are the classes in order.
        classes : array-like of shape (n_classes,), default=None
            Classes of the columns. None: the labels of `y`, sorted.
        n_mistakes : int, default=12
            How many mistakes are drawn.
        kind : {"mistakes", "matrix"}, default="mistakes"
            Draw the most confident mistakes, or the confusion matrix.
        thumbnail_size : int, default=96
            Side of a picture in pixels.
        reader : ImageReader, default=None
            How an entry of X becomes a picture.
        ax : array of matplotlib Axes, or one, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        display : MistakesDisplay
            The plot and its data.

        Raises
        ------
        ValueError
            If sizes or classes do not fit.
        MissingDependencyError
            If matplotlib is not installed.
        """
        if kind not in ("mistakes", "matrix"):
            raise ValueError(f"kind={shown(kind)} must be one of ['mistakes', 'matrix'].")
        check_axes(ax, "MistakesDisplay.plot")
        check_count(n_mistakes, "n_mistakes", 0)
        check_count(thumbnail_size, "thumbnail_size")
        found = predictions_of(y, predicted, classes)
        images = images_of(X, reader)
        if len(images) != len(found.true):
            raise ValueError(f"X has {len(images)} images, and y has {len(found.true)} labels.")
        order = np.argsort(-found.confidence, kind="stable")
        mistakes = order[found.true[order] != found.predicted[order]][:n_mistakes]
        examples: dict[tuple[int, int], int] = {}
        for i in order.tolist():
            examples.setdefault((int(found.true[i]), int(found.predicted[i])), i)
        drawn = {*mistakes.tolist(), *examples.values()}
        thumbnails = {i: thumbnail(images, i, thumbnail_size) for i in sorted(drawn)}
        warn_of_range(images)
        display = cls(found, mistakes, thumbnails, examples)
        return display.plot(ax=ax) if kind == "mistakes" else display.plot_matrix(ax=ax)

    @property
    def matrix(self) -> AnyArray:
        """Numbers of images by true and predicted class, (n_classes, n_classes)."""
        n = len(self.predictions.classes)
        counts: AnyArray = np.zeros((n, n), int)
        np.add.at(counts, (self.predictions.true, self.predictions.predicted), 1)
        return counts

    def title(self, row: int) -> str:
        """Return the title of an image: true and predicted class, and the confidence.

        Parameters
        ----------
        row : int
            Position of the image.

        Returns
        -------
        title : str
            The text.
        """
        found = self.predictions
        true, predicted = (
            short_name(found.classes[codes[row]]) for codes in (found.true, found.predicted)
        )
        between = "\n" if len(true + predicted) > _LETTERS_IN_TITLE else " "
        names = f"{true} →{between}{predicted}"
        if found.unit == "label":
            return names
        value = found.confidence[row]
        return f"{names}, {value:.0%}" if found.unit == "probability" else f"{names}, {value:+.2g}"

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the most confident mistakes; true class, arrow, predicted class over each.

        Parameters
        ----------
        ax : array of matplotlib Axes, default=None
            Where to draw, one for each mistake; None: a new figure.

        Returns
        -------
        self : MistakesDisplay
            The display.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        n = len(self.rows)
        shape = nearly_square(n) if ax is None else (1, n)
        axes = axes_grid(ax, *shape, "MistakesDisplay.plot")
        for one, i in zip(axes.ravel(), self.rows.tolist(), strict=False):
            one.imshow(self.thumbnails[i])
            one.set_title(self.title(i), fontsize="small")
        if not n:
            axes.flat[0].set_title("no mistakes", fontsize="small")
        self.axes_, self.figure_ = axes, axes.flat[0].figure
        return self

    def plot_matrix(self, *, ax: Any = None) -> Self:
        """Draw the confusion matrix: in each cell its count and its most confident image.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        self : MistakesDisplay
            The display.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        ax = axes_for(ax, "MistakesDisplay.plot_matrix")
        matrix, classes = self.matrix, self.predictions.classes
        n = len(classes)
        for (true, predicted), i in self.examples.items():
            edges = (predicted - 0.45, predicted + 0.45, true + 0.45, true - 0.45)
            ax.imshow(self.thumbnails[i], extent=edges)
            ax.text(
                predicted - 0.42, true + 0.42, str(matrix[true, predicted]), va="bottom",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
                color="black" if true == predicted else "tab:red",
            )  # fmt: skip
        names = [short_name(k) for k in classes]
        ax.set_yticks(range(n), names)
        long = sum(map(len, names)) > _LETTERS
        ax.set_xticks(range(n), names, rotation=45 if long else 0, ha="right" if long else "center")
        ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="predicted", ylabel="true")
        self.axes_, self.figure_ = ax, ax.figure
        return self
