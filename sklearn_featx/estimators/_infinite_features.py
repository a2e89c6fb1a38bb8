"""Features that are NaN or infinite, though their image was read."""

import warnings
from collections.abc import Sequence

import numpy as np

from .._messages import shown, user_level
from .._typing import AnyArray
from ..exceptions import BackboneWarning, ImageError
from ..flow import readable
from ..images import ImageCollection


def refuse_infinite(
    layers: Sequence[AnyArray], images: ImageCollection, unreadable: Sequence[ImageError]
) -> None:
    """Raise an error that names the first image whose features have no mean.

    Parameters
    ----------
    layers : sequence of ndarray of shape (n_readable, ...)
        Rows of each layer, of the readable images.
    images : ImageCollection
        All images.
    unreadable : sequence of ImageError
        The images without rows.
    """
    rows = _infinite_rows(layers, images, unreadable)
    if rows:
        raise ImageError(
            "its features are NaN or infinite, and normalize='layer' needs the mean of each "
            "column. Leave this image out of fit, or take another layer.",
            rows[0],
            images.path(rows[0]),
        )


def warn_of_infinite(
    layers: Sequence[AnyArray],
    images: ImageCollection,
    unreadable: Sequence[ImageError],
    backbone: str,
    layer: str | None = None,
) -> None:
    """Warn of rows that look like those of unreadable images and are not.

    Parameters
    ----------
    layers, images, unreadable
        As in `refuse_infinite`.
    backbone : str
        Name of the backbone.
    layer : str, default=None
        Name of the layer, if it is one of many.
    """
    rows = _infinite_rows(layers, images, unreadable)
    if rows:
        path = images.path(rows[0])
        first = f"row {rows[0]}" if path is None else f"row {rows[0]} ({shown(path)})"
        where = "" if layer is None else f", layer {shown(layer)},"
        warnings.warn(
            f"backbone {shown(backbone)}{where} gives NaN or infinite features for {len(rows)} of "
            f"{len(images)} images, {first} first. Check its weights (training may have diverged), "
            "or take an earlier layer.",
            BackboneWarning,
            stacklevel=user_level(),
        )


def _infinite_rows(
    layers: Sequence[AnyArray], images: ImageCollection, unreadable: Sequence[ImageError]
) -> list[int]:
    """Return the positions of readable images of which a feature is NaN or infinite."""
    rows = readable(len(images), unreadable)
    finite = np.ones(len(rows), bool)
    for layer in layers:
        finite &= np.isfinite(layer.reshape(len(rows), -1)).all(axis=1)
    return [int(row) for row in rows[~finite]]
