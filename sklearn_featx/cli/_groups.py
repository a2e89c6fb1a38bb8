"""The column ``group`` of ``sklearn-featx extract --group-by``: which images belong together."""

import sys

import numpy as np

from .._messages import shown
from .._typing import AnyArray
from ..exceptions import ImageError
from ._sources import Source


def group_column(source: Source, by: str | None) -> AnyArray | None:
    """Return the groups of images, numbered in the order of their first appearance.

    Parameters
    ----------
    source : Source
        The images.
    by : str or None
        A keyword of DICOM, or a regular expression on the path; see `image_groups`.

    Returns
    -------
    groups : ndarray of shape (n_images,), str, or None
        Numbers as text; empty for an image without a group, which is named on standard error.
        None if `by` is None.
    """
    if by is None:
        return None
    # Imported here: help and errors of the source do not wait for Pillow.
    from ..model_selection._image_groups import image_groups, numbered

    values: list[str | None] = []
    for entry, name in zip(source.entries, source.names, strict=True):
        try:
            values.append(str(image_groups([entry], by, raw=True)[0]))
        except ImageError as error:
            values.append(None)
            print(f"sklearn-featx: {shown(name)}: no group: {error.reason}", file=sys.stderr)
    known = iter(numbered([value for value in values if value is not None]).tolist())
    return np.array(["" if value is None else str(next(known)) for value in values])
