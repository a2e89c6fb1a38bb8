"""Images beside the training images that are nearest, or that speak for and against them."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from .._typing import AnyArray
from ._axes import check_axes, short_name
from ._grid import axes_grid
from ._model import Model
from ._neighbors import NearestImages, nearest_images
from ._pictures import Picture, network_view


class NeighborsDisplay:
    """Images, and the training images that they resemble.

    The first column has the images; then come the nearest training images with their distances, or,
    where representer values are known, those that add most to the score and those that take most
    from it. Use `from_estimator` to make one.

    Parameters
    ----------
    neighbors : NearestImages
        Result of `nearest_images`.
    pictures : sequence of Picture
        The images.
    train_pictures : mapping of int to Picture
        The training images that are drawn, by position.
    shown : ndarray of int, shape (n_images, n_columns)
        Positions of the training images beside each image.
    labels : sequence, default=None
        Labels of the training images.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, of shape (n_images, 1 + n_columns)
        The axes of the plot.
    figure_ : matplotlib Figure
        The figure of `axes_`.

    See Also
    --------
    nearest_images : The arrays.
    HeatMapDisplay : Where in an image its score comes from.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_featx import NeighborsDisplay, PretrainedFeatureExtractor
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images[:30] / 16, digits.target[:30]
    >>> extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32)
    >>> model = make_pipeline(extractor, LogisticRegression()).fit(X[:20], y[:20])
    >>> display = NeighborsDisplay.from_estimator(model, X[20:22], X[:20], y[:20], n_neighbors=4)
    >>> display.shown.shape
    (2, 4)
    """

    def __init__(
        self,
        neighbors: NearestImages,
        pictures: Sequence[Picture],
        train_pictures: dict[int, Picture],
        shown: AnyArray,
        labels: Any = None,
    ) -> None:
        self.neighbors = neighbors
        self.pictures = pictures
        self.train_pictures = train_pictures
        self.shown = shown
        self.labels = labels

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        X_train: Any,
        y_train: Any = None,
        *,
        target: Any = None,
        n_neighbors: int = 6,
        ax: Any = None,
    ) -> Self:
        """Find training images and draw them.

        Parameters
        ----------
        estimator : estimator
            The fitted model, as in `nearest_images`.
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            Images whose neighbors are drawn.
        X_train : array-like, list, Series, DataFrame or Dataset of n_train images
            Images to find neighbors among.
        y_train : array-like of shape (n_train,), default=None
            Labels of the training images, drawn above them. With labels and an L2-penalized linear
            model, the images with the largest and smallest representer values are drawn. None: the
            nearest images.
        target : label or int, default=None
            Class or output that representer values are of, as in `nearest_images`.
        n_neighbors : int, default=6
            Training images beside each image. With representer values, the first half are those
            that speak for the target.
        ax : array of matplotlib Axes, default=None
            Where to draw, 1 + n_neighbors for each image; None: a new figure.

        Returns
        -------
        display : NeighborsDisplay
            The plot and its data.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_axes(ax, "NeighborsDisplay.plot")
        found = nearest_images(
            estimator, X, X_train, y_train, target=target, n_neighbors=n_neighbors
        )
        shown = found.indices if found.values is None else _extremes(found.values, n_neighbors)
        model, train = Model(estimator, X), Model(estimator, X_train)
        pictures = [network_view(model.images, model.recipe, i) for i in range(len(model.images))]
        near = {i: network_view(train.images, train.recipe, i) for i in np.unique(shown).tolist()}
        labels = None if y_train is None else np.asarray(y_train)
        return cls(found, pictures, near, shown, labels).plot(ax=ax)

    def title(self, row: int, column: int) -> str:
        """Return the title of a training image: label, and value or distance.

        Parameters
        ----------
        row, column : int
            Its place in `shown`.

        Returns
        -------
        title : str
            The text.
        """
        i, found = int(self.shown[row, column]), self.neighbors
        label = "" if self.labels is None else f"{short_name(self.labels[i])}: "
        if found.values is None:
            return f"{label}{found.distances[row, column]:.3g} away"
        return f"{label}{found.values[row, i]:+.2g}"

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the images, each with its training images to the right.

        Parameters
        ----------
        ax : array of matplotlib Axes, default=None
            Where to draw, 1 + n_columns for each image; None: a new figure.

        Returns
        -------
        self : NeighborsDisplay
            The display.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        n_rows, n_columns = self.shown.shape
        axes = axes_grid(ax, n_rows, 1 + n_columns, "NeighborsDisplay.plot")
        for row in range(n_rows):
            axes[row, 0].imshow(self.pictures[row].pixels)
            axes[row, 0].set_title(self._own_title(row), fontsize="small", fontweight="bold")
            for column, i in enumerate(self.shown[row].tolist()):
                one = axes[row, 1 + column]
                one.imshow(self.train_pictures[i].pixels)
                against = self.neighbors.values is not None and self.neighbors.values[row, i] < 0
                color = "tab:blue" if against else "tab:red"
                color = "black" if self.neighbors.values is None else color
                one.set_title(self.title(row, column), fontsize="small", color=color)
        self.axes_, self.figure_ = axes, axes[0, 0].figure
        return self

    def _own_title(self, row: int) -> str:
        found = self.neighbors
        if found.values is None or found.intercept is None or found.target is None:
            return f"image {row}"
        score = found.values[row].sum() + found.intercept[row]
        return f"{short_name(found.target[row])}: {score:+.2f}"


def _extremes(values: AnyArray, n: int) -> AnyArray:
    """Positions of the largest values and of the smallest, half of n each, (n_images, n)."""
    order = np.argsort(-values, axis=1, kind="stable")
    against = n // 2
    first = order[:, : n - against]
    extremes: AnyArray = np.hstack([first, order[:, ::-1][:, :against]])
    return extremes
