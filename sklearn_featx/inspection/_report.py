"""A page about predictions: each image with its heat map and its nearest images."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from .. import __version__
from .._arguments import check_count
from .._messages import shown
from .._typing import AnyArray, FloatArray
from ..exceptions import InputError
from ..flow import activations, as_table, readable, warn_of
from ..images import data_uri
from ._heat_maps import HeatMaps, heat_maps
from ._model import Model
from ._pictures import network_view, thumbnail

# Red raises the score, blue lowers it, as in `HeatMapDisplay`.
_RED, _BLUE = (178, 24, 43), (33, 102, 172)
_OPACITY = 0.7
_THUMBNAIL = 96
_STYLE = """
body { font: 15px sans-serif; color: #222; margin: 24px; }
article { display: flex; gap: 16px; align-items: flex-start; border-top: 1px solid #ccc;
  padding: 14px 0; }
figure { margin: 0; width: 96px; font-size: 12px; overflow-wrap: anywhere; }
.large { width: 224px; } .large img { width: 224px; } .text { width: 220px; }
.text b { font-size: 18px; } .text p { overflow-wrap: anywhere; }
"""


class _Near(NamedTuple):
    """Nearest images of each image."""

    indices: AnyArray
    distances: FloatArray
    model: Model


def report_page(
    estimator: Any, paths: Sequence[str], known: Sequence[str] | None = None, n_neighbors: int = 5
) -> str:
    """Describe predictions on a page without remote parts.

    Parameters
    ----------
    estimator : estimator
        As in `heat_maps`.
    paths : sequence of str
        Files of images.
    known : sequence of str, default=None
        Files that neighbors are looked for among, and whose mean maps are measured against where
        no fitted step knows that of the training. None: the other images.
    n_neighbors : int, default=5
        Number of neighbors of each image.

    Returns
    -------
    page : str
        HTML.

    Raises
    ------
    UnsuitableModelError
        If the estimator has not one network that gets the images, or no scores.
    InputError
        If `paths` or `known` is one path, or no image can be read.
    """
    check_count(n_neighbors, "n_neighbors", 0)
    for name, given in (("paths", paths), ("known", known)):
        if isinstance(given, str):
            # Each letter would be a file.
            raise InputError(f"{name}={shown(given)}: expected a list of files, [path].")
    whole = Model(estimator, list(paths))
    whole.scores()
    seen = _readable(whole, paths)
    unreadable = set(paths).difference(seen)
    if not seen:
        raise InputError("none of the images can be read.")
    if known is not None:
        known = _readable(Model(estimator, list(known)), known)
    said = np.asarray(estimator.predict(seen))
    target = said if hasattr(estimator, "classes_") and said.ndim == 1 else None
    model = Model(estimator, seen)
    baseline = known if known and model.known_mean() is None else None
    found = heat_maps(estimator, seen, target, "image", baseline=baseline)
    near = _nearest(estimator, model, model.rows(seen), known, n_neighbors)
    top = float(np.abs(found.maps).max()) or 1.0
    articles = [_article(model, found, i, path, said[i], top, near) for i, path in enumerate(seen)]
    articles += [_unreadable(path) for path in paths if path in unreadable]
    about = (
        f"{len(paths)} images. Red raises the score of the named class, blue lowers it; one scale "
        f"for all images. Unit: {found.unit}; maps: {found.method}. sklearn_featx {__version__}."
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Predictions</title>'
        f"<style>{_STYLE}</style></head><body><h1>Predictions</h1><p>{html.escape(about)}</p>\n"
        + "\n".join(articles)
        + "\n</body></html>\n"
    )


def _readable(model: Model, paths: Sequence[str]) -> list[str]:
    """Files that can be read, whatever the model's ``on_error`` is."""
    settings = model.settings._replace(on_error="nan")
    failures = activations(model.images, model.recipe, settings).failures
    warn_of(as_table(failures), len(paths), "they have no map on the page.", listed_in=None)
    return [paths[i] for i in readable(len(paths), failures)]


def _nearest(
    estimator: Any, model: Model, rows: FloatArray, known: Sequence[str] | None, n: int
) -> _Near:
    """Find the nearest of the known images, or of the others."""
    others, seen = model, rows
    if known is not None:
        others = Model(estimator, known)
        seen = others.rows(known) if known else seen[:0]
    n = min(n, len(seen) - (known is None))
    if n < 1:
        return _Near(np.zeros((len(rows), 0), int), np.zeros((len(rows), 0)), others)
    search = NearestNeighbors(n_neighbors=n).fit(seen)
    # Without rows, scikit-learn leaves each row itself out.
    distances, indices = search.kneighbors(None if known is None else rows)
    return _Near(indices, distances, others)


def _article(
    model: Model, found: HeatMaps, i: int, path: str, said: Any, top: float, near: _Near
) -> str:
    name = html.escape(path)
    picture = network_view(model.images, model.recipe, i).pixels
    pictures = "".join(
        _figure(data_uri(levels), caption, "large")
        for levels, caption in (
            ((picture * 255).astype(np.uint8), "as the network sees it"),
            (_overlay(picture, found.maps[i], top), f"map of {found.target[i]}"),
        )
    )
    neighbors = "".join(
        _figure(
            data_uri(thumbnail(near.model.images, int(j), _THUMBNAIL)),
            f"{near.model.images.path(int(j))}, {distance:.3g} away",
        )
        for j, distance in zip(near.indices[i], near.distances[i], strict=True)
    )
    score = f"{found.unit} of {found.target[i]}: {found.scores[i]:+.3g}"
    return (
        f'<article><div class="text"><b>{html.escape(str(said))}</b><p>{html.escape(score)}</p>'
        f"<p>{name}</p></div>{pictures}{neighbors}</article>"
    )


def _unreadable(path: str) -> str:
    return f'<article><div class="text"><b>unreadable</b><p>{html.escape(path)}</p></div></article>'


def _figure(uri: str, caption: str, kind: str = "small") -> str:
    words = f"<figcaption>{html.escape(caption)}</figcaption>"
    return f'<figure class="{kind}"><img src="{uri}" alt="">{words}</figure>'


def _overlay(picture: AnyArray, values: FloatArray, top: float) -> AnyArray:
    """Color a gray picture: the stronger the value, the less of the picture is seen."""
    share = np.sqrt(np.abs(values) / top)[..., np.newaxis] * _OPACITY
    color = np.where(values[..., np.newaxis] > 0, _RED, _BLUE)
    gray = picture.mean(2, keepdims=True) * 255
    levels: AnyArray = (gray * (1 - share) + color * share).round().astype(np.uint8)
    return levels
