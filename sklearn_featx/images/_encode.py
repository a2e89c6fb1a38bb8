"""Encoding of small pictures for pages."""

import base64
import io

import numpy as np
from PIL import Image

from .._typing import AnyArray

_QUALITY = 80


def data_uri(levels: AnyArray) -> str:
    """Encode a picture as a data URI of a JPEG.

    Parameters
    ----------
    levels : ndarray of shape (height, width, 3), uint8
        The picture.

    Returns
    -------
    uri : str
        ``data:image/jpeg;base64,...``.
    """
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(buffer, "jpeg", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
