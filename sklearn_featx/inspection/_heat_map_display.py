"""Heat maps over images, with one color scale for all."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from .._messages import shown
from .._typing import FloatArray
from ._axes import check_axes, short_name
from ._grid import axes_grid, nearly_square
from ._heat_maps import HeatMaps, Method, heat_maps
from ._model import Model
from ._pictures import Picture, file_view, network_view
from ._resample import for_the_eye

_COLORS = "RdBu_r"
# Pixels to a side of a drawn map, at most.
_DRAWN_SIDE = 224


class HeatMapDisplay:
    """Where the scores of images come from: heat maps over the images.

    Red raises the score, blue lowers it; all images have one scale. Use `from_estimator` to make
    one.

    Parameters
    ----------
    heat_maps : HeatMaps
        Result of `heat_maps`, at the resolution of the feature map.
    pictures : sequence of Picture
        Pixels of each image, and the place of the map in it; None for unreadable images.
    smooth : ndarray of shape (n_images, height, width), default=None
        The same maps, interpolated for the eye. None: `heat_maps` are interpolated.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, of shape (n_rows, n_columns)
        The axes of the plot.
    figure_ : matplotlib Figure
        The figure of `axes_`.
    colorbar_ : matplotlib Colorbar
        The scale: what one position of the feature map adds to the score.

    See Also
    --------
    heat_maps : The arrays.
    NeighborsDisplay : Which training images speak for a score.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_featx import HeatMapDisplay, PretrainedFeatureExtractor
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images[:30] / 16, digits.target[:30]
    >>> extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32)
    >>> model = make_pipeline(extractor, LogisticRegression()).fit(X, y)
    >>> display = HeatMapDisplay.from_estimator(model, X[:4])
    >>> display.heat_maps.method
    'exact'
    """

    def __init__(
        self,
        heat_maps: HeatMaps,
        pictures: Sequence[Picture | None],
        smooth: FloatArray | None = None,
    ) -> None:
        self.heat_maps = heat_maps
        self.pictures = pictures
        self.smooth = smooth

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        target: Any = None,
        *,
        view: Literal["network", "file"] = "network",
        method: Method = "auto",
        baseline: Any = None,
        ax: Any = None,
    ) -> Self:
        """Compute heat maps and draw them.

        Parameters
        ----------
        estimator : estimator
            The fitted model, as in `heat_maps`.
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            The images.
        target : label, int or array-like of shape (n_images,), default=None
            Class, or number of the output of a regressor; None: as in `heat_maps`.
        view : {"network", "file"}, default="network"
            Draw each image as the network sees it, or as it was given, where parts that were cut
            off have no map.
        method : {"auto", "exact", "shapley", "occlusion"}, default="auto"
            How the maps are found, as in `heat_maps`.
        baseline : "zero", images or None, default=None
            What a position is measured against, as in `heat_maps`.
        ax : array of matplotlib Axes, default=None
            Where to draw, one for each image; None: a new figure.

        Returns
        -------
        display : HeatMapDisplay
            The plot and its data.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        views = {"network": network_view, "file": file_view}
        if not isinstance(view, str) or view not in views:
            raise ValueError(f"view={shown(view)} must be one of {list(views)}.")
        check_axes(ax, "HeatMapDisplay.plot")
        found = heat_maps(estimator, X, target, method=method, baseline=baseline)
        model = Model(estimator, X)
        readable = np.isfinite(found.intercept)
        pictures = [
            views[view](model.images, model.recipe, i) if readable[i] else None
            for i in range(len(model.images))
        ]
        smooth = None
        if found.method == "exact" and len(model.recipe.taps) > 1:
            # Of several layers, each is interpolated by itself.
            finer = heat_maps(estimator, X, target, "image", method=method, baseline=baseline)
            smooth = finer.maps
        return cls(found, pictures, smooth).plot(ax=ax)

    @property
    def titles(self) -> list[str]:
        """Score and label of each image."""
        return [
            f"{short_name(label)}: {score:+.2f}" if np.isfinite(score) else "unreadable"
            for label, score in zip(self.heat_maps.target, self.heat_maps.scores, strict=True)
        ]

    def plot(self, *, ax: Any = None, opacity: float = 0.7) -> Self:
        """Draw the maps over the images.

        Parameters
        ----------
        ax : array of matplotlib Axes, default=None
            Where to draw, one for each image; None: a new figure.
        opacity : float, default=0.7
            Of the strongest color; weaker ones show more of the image.

        Returns
        -------
        self : HeatMapDisplay
            The display.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        if not isinstance(opacity, int | float | np.number) or not 0 <= opacity <= 1:
            raise ValueError(f"opacity={shown(opacity)}: expected a number from 0 to 1.")
        axes = axes_grid(ax, *_shape(ax, len(self.pictures)), "HeatMapDisplay.plot")
        maps = self.heat_maps.maps
        top = float(np.nanmax(np.abs(maps))) or 1.0
        smooth = self._drawn() if self.smooth is None else self.smooth
        per_position = maps[0].size
        for one, values, picture, title in zip(
            axes.ravel(), smooth, self.pictures, self.titles, strict=False
        ):
            one.set_title(title, fontsize="small")
            if picture is not None:
                _draw(one, values * (values.size / per_position), picture, top, opacity)
        first = axes[0, 0]
        self.colorbar_ = first.figure.colorbar(_scale(top), ax=axes, shrink=0.8)
        unit, method = self.heat_maps.unit, self.heat_maps.method
        self.colorbar_.set_label(f"{unit}\nper position ({method})", fontsize="small")
        self.axes_, self.figure_ = axes, first.figure
        return self

    def _drawn(self) -> FloatArray:
        maps = self.heat_maps.maps
        size = (max(maps.shape[1], _DRAWN_SIDE), max(maps.shape[2], _DRAWN_SIDE))
        return for_the_eye(maps, size, exact=self.heat_maps.method == "exact")


def _shape(ax: Any, n: int) -> tuple[int, int]:
    return nearly_square(n) if ax is None else (1, n)


def _draw(ax: Any, values: Any, picture: Picture, top: float, opacity: float) -> None:
    """Draw a gray picture, and a map whose stronger colors hide more of it."""
    height, width = picture.pixels.shape[:2]
    gray = picture.pixels.mean(2)
    ax.imshow(gray, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    smooth = values.clip(-top, top)
    ax.imshow(
        smooth, cmap=_COLORS, vmin=-top, vmax=top, extent=picture.extent,
        alpha=opacity * np.sqrt(np.abs(smooth) / top),
    )  # fmt: skip
    left, right, bottom, upper = picture.extent
    ax.set_xlim(min(0, left), max(width, right))
    ax.set_ylim(max(height, bottom), min(0, upper))


def _scale(top: float) -> Any:
    """Return the color scale, without the transparency of what is drawn."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(-top, top), _COLORS)
