"""A map of a data set: images at the places where a projection puts their features."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA

from .._arguments import check_count, check_length
from .._messages import cause, said, shown
from .._typing import AnyArray, FloatArray
from ..exceptions import ImageError
from ._axes import axes_for, check_axes, short_name
from ._embedding_page import embedding_page
from ._model import Model
from ._pictures import thumbnail

_MOST_CLASSES = 20
# Thumbnails that a plot draws at most, and their cells to a side of the plot.
_CELLS = 12
_PIXELS_IN_PLOT = 22


class MapColumns(NamedTuple):
    """Columns of the images of a map.

    Parameters
    ----------
    labels : ndarray of shape (n_points,) or None
        Labels or values.
    predictions : ndarray of shape (n_points,) or None
        Predictions.
    scores : ndarray of shape (n_points,) or None
        Score of each prediction.
    paths : list of str
        Files; empty strings where images have none.
    others : dict of str to ndarray of shape (n_points,)
        The user's columns.
    """

    labels: AnyArray | None = None
    predictions: AnyArray | None = None
    scores: AnyArray | None = None
    paths: Sequence[str] = ()
    others: Mapping[str, AnyArray] = {}

    def by_name(self) -> dict[str, AnyArray]:
        """Columns that points can be colored by."""
        own = {"label": self.labels, "prediction": self.predictions, "score": self.scores}
        return {k: v for k, v in own.items() if v is not None} | dict(self.others)


class EmbeddingDisplay:
    """A map of images, in which images with similar features lie near each other.

    Use `from_estimator` to make one.

    Parameters
    ----------
    points : ndarray of shape (n_points, 2)
        Places of the images.
    thumbnails : ndarray of shape (n_points, side, side, 3), uint8
        The images, small.
    columns : MapColumns
        Labels, predictions, scores, paths.
    rows : ndarray of shape (n_points,)
        Position of each image in X; those that cannot be read are left out.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the plot.
    figure_ : matplotlib Figure
        The figure of `ax_`.

    See Also
    --------
    near_duplicates : Groups of images that are nearly the same.
    label_issues : Labels that are probably wrong.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_featx import EmbeddingDisplay, PretrainedFeatureExtractor
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images[:30] / 16, digits.target[:30]
    >>> extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32)
    >>> display = EmbeddingDisplay.from_estimator(extractor, X, y)
    >>> display.points.shape
    (30, 2)
    """

    def __init__(
        self, points: FloatArray, thumbnails: AnyArray, columns: MapColumns, rows: AnyArray
    ) -> None:
        self.points = points
        self.thumbnails = thumbnails
        self.columns = columns
        self.rows = rows

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        projection: Any = None,
        columns: Mapping[str, Any] | None = None,
        thumbnail_size: int = 48,
        ax: Any = None,
    ) -> Self:
        """Compute features, project them to two columns and draw the map.

        Parameters
        ----------
        estimator : estimator
            A `PretrainedFeatureExtractor`, fitted or not; a fine-tuner; or a fitted pipeline with
            one of them. Features are those that its predictor gets; the predictor, if there is one,
            gives predictions and scores.
        X : array-like, list, Series, DataFrame or Dataset of n_images images
            The images.
        y : array-like of shape (n_images,), default=None
            Labels or values.
        projection : transformer, default=None
            Transformer whose first two columns are the places on the map, such as `PCA`, `TSNE` or
            UMAP. A copy is fitted to the features. None: ``PCA(2)``.
        columns : mapping of str to array-like of shape (n_images,), default=None
            Further columns that points of the page can be colored by.
        thumbnail_size : int, default=48
            Side of a thumbnail in pixels; a page holds one for each image.
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        display : EmbeddingDisplay
            The plot and its data.

        Raises
        ------
        ValueError
            If `y` or a column has another length than X, PCA has fewer than two images, all images
            have the same features, or the projection is no transformer, fails, or gives one column.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_count(thumbnail_size, "thumbnail_size")
        check_axes(ax, "EmbeddingDisplay.plot")
        _check_projection(projection)
        model = Model(estimator, X)
        _check_columns(y, columns, model)
        features = model.rows(X)
        rows, tiles = _tiles(model, features, thumbnail_size)
        features = features[rows]
        if len(rows) < 2 and projection is None:
            raise ValueError(
                f"X: {len(rows)} of {len(model.images)} images can be read, and a map by PCA "
                "needs at least 2. Pass more images."
            )
        points = _projected(features, PCA(2) if projection is None else projection)
        known = MapColumns(
            None if y is None else np.asarray(y)[rows],
            *_said(model, features),
            [model.images.path(i) or "" for i in rows.tolist()],
            {name: np.asarray(values)[rows] for name, values in (columns or {}).items()},
        )
        return cls(points, tiles, known, rows).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw points, and thumbnails where there is room for them.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        self : EmbeddingDisplay
            The display.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        ax = axes_for(ax, "EmbeddingDisplay.plot")
        labels, colors = self.columns.labels, None
        classes, codes = (None, None) if labels is None else _classes(labels)
        if classes is None or codes is None or labels is None or len(classes) > _MOST_CLASSES:
            values = labels if labels is not None and labels.dtype.kind in "iuf" else None
            marks = ax.scatter(*self.points.T, c=values, s=8)
            if values is not None:
                ax.figure.colorbar(marks, ax=ax, label="label")
        else:
            colors = [f"C{place % 10}" for place in codes]
            for place, k in enumerate(classes):
                at = self.points[codes == place].T
                ax.scatter(*at, s=8, label=short_name(k), color=f"C{place % 10}")
            ax.legend(title="label", fontsize="small")
        # Room for the thumbnails of points at the edges.
        ax.margins(0.5 / _CELLS)
        self._draw_thumbnails(ax, colors)
        ax.set(xlabel="first column", ylabel="second column")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_html(self, path: Any) -> Path:
        """Write an interactive page: one file, which needs no server and no connection.

        The wheel zooms, a drag pans, hovering shows the image with label, score and path; points
        are colored by any column. Near views show thumbnails in place of points.

        Parameters
        ----------
        path : str or path-like
            Where to write.

        Returns
        -------
        path : Path
            The file; one that exists is replaced.

        Raises
        ------
        TypeError
            If it is no path.
        OSError
            If the file cannot be written.
        """
        if not isinstance(path, str | PathLike):
            raise TypeError(f"path={shown(path)}: expected the path of a file, such as 'map.html'.")
        file = Path(path)
        page = embedding_page(
            self.points, self.thumbnails, self.columns.by_name(), self.columns.paths
        )
        try:
            file.write_text(page, encoding="utf-8")
        except OSError as error:
            raise type(error)(
                f"path={shown(str(path))}: the page cannot be written: {said(error)}. Pass a file "
                "in a folder that exists."
            ) from error
        return file

    def _draw_thumbnails(self, ax: Any, colors: Sequence[str] | None) -> None:
        """Draw images in frames of their colors, those nearest to centers of cells."""
        from matplotlib.offsetbox import AnnotationBbox, OffsetImage

        low, high = self.points.min(0), self.points.max(0)
        places = (self.points - low) / np.where(high > low, high - low, 1) * (_CELLS - 1e-9)
        cells = places.astype(int)
        far = ((places - cells - 0.5) ** 2).sum(1)
        order = np.lexsort((far, cells[:, 1], cells[:, 0]))
        first = np.unique(cells[order], axis=0, return_index=True)[1]
        zoom = _PIXELS_IN_PLOT / self.thumbnails.shape[1]
        drawn: list[int] = []
        for i in order[first].tolist():
            if drawn and np.abs(places[drawn] - places[i]).max(1).min() < 1:
                continue
            drawn.append(i)
            frame = {"edgecolor": colors[i] if colors else "0.5", "linewidth": 2}
            picture = OffsetImage(self.thumbnails[i], zoom=zoom)
            box = AnnotationBbox(picture, self.points[i], pad=0, bboxprops=frame)
            ax.add_artist(box)


def _check_projection(projection: Any) -> None:
    """Refuse what cannot project, before features are computed."""
    methods = ("fit_transform", "get_params")
    fits = all(hasattr(projection, name) for name in methods) and not isinstance(projection, type)
    if projection is not None and not fits:
        raise ValueError(
            f"projection={shown(projection)}: expected a transformer with fit_transform, such as "
            "PCA(2) or TSNE(), or None."
        )


def _check_columns(y: Any, columns: Any, model: Model) -> None:
    """Refuse labels and columns that are not one value for each image."""
    if not isinstance(columns, Mapping | None) or not all(
        isinstance(name, str) for name in columns or {}
    ):
        raise ValueError(
            f"columns={shown(columns)}: expected a dict of names to one value for each image, such "
            "as {'age': ages}."
        )
    given = {} if y is None else {"y": y}
    given |= {f"columns[{shown(name)}]": values for name, values in (columns or {}).items()}
    for name, values in given.items():
        check_length(values, name, model.images)
        if any(np.ndim(value) for value in np.asarray(values, dtype=object)):
            raise ValueError(f"{name} has several values for an image. Pass one for each image.")


def _projected(features: FloatArray, projection: Any) -> FloatArray:
    """Return the first two columns of a projection of the features."""
    if len(features) > 1 and (features == features[0]).all():
        # PCA divides by a variance of 0, and scikit-learn's TSNE ends the process.
        raise ValueError(
            f"X: the {len(features)} images that can be read have the same features, so there is "
            "no map of them. Pass different images."
        )
    try:
        points = np.asarray(clone(projection).fit_transform(features), dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"projection={shown(projection)} fails on {len(features)} rows of "
            f"{features.shape[1]} features: {cause(error)}. Pass another, or more images."
        ) from error
    if points.ndim != 2 or points.shape[0] != len(features) or points.shape[1] < 2:
        raise ValueError(
            f"projection={shown(projection)} gives an array of shape {points.shape}: a map needs "
            f"{len(features)} rows and at least two columns."
        )
    if not np.isfinite(points).all():
        raise ValueError(f"projection={shown(projection)} gives NaN or infinite values.")
    return points[:, :2]


def _tiles(model: Model, features: FloatArray, side: int) -> tuple[AnyArray, AnyArray]:
    """Return the rows that can be drawn, and their thumbnails."""
    rows: list[int] = []
    tiles: list[AnyArray] = []
    for i in np.flatnonzero(np.isfinite(features).all(axis=1)).tolist():
        try:
            tiles.append(thumbnail(model.images, i, side))
        except ImageError:
            # Steps behind the extractor may have replaced the NaN of an unreadable image.
            if not model.settings.skip_unreadable:
                raise
            continue
        rows.append(i)
    found = np.stack(tiles) if tiles else np.zeros((0, side, side, 3), np.uint8)
    return np.array(rows, dtype=int), found


def _classes(labels: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Different labels, and the position of each label among them."""
    # Those that are missing do not compare with others.
    known = labels.astype(str) if labels.dtype.kind == "O" else labels
    return np.unique(known, return_inverse=True)


def _said(model: Model, features: FloatArray) -> tuple[AnyArray | None, AnyArray | None]:
    """Predictions of a predictor, and its scores of them."""
    final = model.after[-1] if model.after else None
    if final is None or not hasattr(final, "predict"):
        return None, None
    predictions = np.asarray(final.predict(features))
    if predictions.ndim > 1:
        return None, None
    for name in ("predict_proba", "decision_function"):
        if hasattr(final, name):
            scores = np.asarray(getattr(final, name)(features))
            return predictions, scores if scores.ndim == 1 else scores.max(1)
    return predictions, None
