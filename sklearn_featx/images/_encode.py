"""Encoding of small pictures for pages."""

import base64
import io

import numpy as np
from PIL import Image

from .._typing import AnyArray

_QUALITY = 80


def data_uri(levels: AnyArray, *, lossless: bool = False) -> str:
    """Encode a picture as a data URI.

    Parameters
    ----------
    levels : ndarray of shape (height, width, 3), uint8
        The picture.
    lossless : bool, default=False
        PNG in place of JPEG.

    Returns
    -------
    uri : str
        ``data:image/...;base64,...``.
    """
    kind = "png" if lossless else "jpeg"
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(buffer, kind, quality=_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
