"""The column ``group`` of ``sklearn-featx extract --group-by``: which images belong together."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._messages import shown
from .._typing import AnyArray
from ..exceptions import ImageError
from ._lines import write_line
from ._sources import Source


def group_column(
    source: Source, by: str | None, storage_options: Mapping[str, Any] | None = None
) -> AnyArray | None:
    """Return the groups of images, numbered in the order of their first appearance.

    Parameters
    ----------
    source : Source
        The images.
    by : str or None
        A keyword of DICOM, or a regular expression, which is searched in the path of the output;
        see `image_groups`.
    storage_options : mapping, default=None
        Options of fsspec for remote files.

    Returns
    -------
    groups : ndarray of shape (n_images,), str, or None
        Numbers as text; empty for an image without a group, which is named on standard error.
        None if `by` is None.
    """
    if by is None:
        return None
    # Imported here: help and errors of the source do not wait for Pillow.
    from ..images import ReadOptions
    from ..model_selection._image_groups import numbered, read_groups

    # An invalid entry has no group; the extractor says what is wrong with it.
    options = ReadOptions(bag_pooling="mean", storage_options=storage_options, on_error="nan")
    values = list(read_groups(source.entries, by, options, source.paths))
    for row, value in enumerate(values):
        if isinstance(value, ImageError):
            where = source.printed_name(row, value.path)
            write_line(f"{shown(where)}: no group: {source.reason(row, value.reason)}")
    known = iter(numbered([v for v in values if not isinstance(v, ImageError)]).tolist())
    return np.array(["" if isinstance(v, ImageError) else str(next(known)) for v in values])
