"""Arrays: conversion of an array to a collection of pixels or of plain numbers.

The values are checked immediately, in chunks of rows, and scaled when an image is loaded.
"""

import math
from typing import NoReturn

import numpy as np

from .._typing import AnyArray
from ..exceptions import ImageError, InputError
from ._collection import ImageCollection, PixelArray, ValueArray, not_finite
from ._layout import ImageShape, Layout
from ._options import ReadOptions
from ._range_use import RangeUse
from ._scaling import check_rows, chunks


def array_to_collection(X: AnyArray, options: ReadOptions) -> ImageCollection:
    """Convert an array (n, ...) to a collection; plain numbers if `image_shape` ends in -1.

    Raises `InputError` if the shape or dtype does not fit, and `ImageError` with the row if values
    are NaN, infinite or out of range.
    """
    if X.ndim < 2:
        refuse_vector(X.shape)
    refuse_empty(X.shape)
    if options.image_shape is not None and options.of_numbers:
        return _values(X, options.image_shape, options)
    return _pixels(X, options)


def refuse_vector(shape: tuple[int, ...]) -> NoReturn:
    """Reject an array without a sample and a feature axis, with scikit-learn's message."""
    found = f"{len(shape)}D array" if shape else "scalar array"
    raise InputError(
        f"Expected 2D array, got {found} instead: shape {shape}. Pass one row or image per sample."
    )


def refuse_empty(shape: tuple[int, ...]) -> None:
    """Reject an X without samples or features, with scikit-learn's message."""
    for length, what in zip(shape[:2], ("sample", "feature"), strict=False):
        if length == 0:
            hint = " Does the pattern of the files match any?" if what == "sample" else ""
            raise InputError(
                f"Found array with 0 {what}(s) (shape={shape}) while a minimum of 1 is required."
                f"{hint}"
            )


def _values(X: AnyArray, image_shape: ImageShape, options: ReadOptions) -> ImageCollection:
    """Convert an array to a collection of rows of plain numbers."""
    if options.limits is not None:
        raise InputError(
            f"value_range and window are for pixels; with image_shape={image_shape} rows are plain "
            "numbers. Pass None."
        )
    if X.dtype.kind not in "buif":
        raise InputError(f"Complex data not supported, only real numbers: dtype {X.dtype}.")
    n_features = X.shape[1] if X.ndim == 2 else None
    X = _as_signals(X, image_shape)
    # A float64 that is too large for float32 becomes infinite and is rejected.
    with np.errstate(over="ignore"):
        values = np.asarray(X, dtype=np.float32)
    if options.on_error == "raise":
        _check_finite(values)
    return ValueArray(values, n_features)


def _as_signals(X: AnyArray, image_shape: ImageShape) -> AnyArray:
    channels = image_shape[0]
    if channels == 1 and X.ndim == 2:
        return X
    if channels > 1 and X.ndim == 3 and X.shape[1] == channels and X.size:
        return X
    if channels > 1 and X.ndim == 2 and X.shape[1] % channels == 0:
        return X.reshape(len(X), channels, -1)
    wanted = "(n, d)" if channels == 1 else f"(n, {channels}, L) or (n, {channels} * L)"
    raise InputError(f"image_shape={image_shape} needs X of shape {wanted}, got {X.shape}.")


def _check_finite(values: AnyArray) -> None:
    for start, chunk in chunks(values):
        finite = np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise ImageError(not_finite(chunk[row]), row=start + row)


def _pixels(X: AnyArray, options: ReadOptions) -> ImageCollection:
    """Convert an array to a collection of images of one shape."""
    n_features = X.shape[1] if X.ndim == 2 else None
    try:
        limits = options.range_of(X.dtype)
        X = _rows_to_images(X, options.image_shape)
        layout = options.layout(X.shape[1:])
        if options.picks is not None:
            X, layout = options.picked(channels_last(X, layout)), "HWC"
    except ImageError as error:
        hint = " If X is one image, pass X[None]." if options.bands and X.ndim == 3 else ""
        raise InputError(f"X of shape {X.shape}: {error.reason}{hint}") from error
    if options.on_error == "raise":
        # Otherwise, reading a row says what is wrong with it.
        check_rows(X if options.bands else _colors(X, layout), limits)
    use = RangeUse() if options.limits is None else None
    return PixelArray(X, layout, limits, n_features, use, bands=options.bands)


def channels_last(X: AnyArray, layout: Layout) -> AnyArray:
    """Return a view of images (n, ...) as (n, H, W, C)."""
    if layout == "HW":
        return X[..., np.newaxis]
    return np.moveaxis(X, 1, 3) if layout == "CHW" else X


def _colors(X: AnyArray, layout: Layout) -> AnyArray:
    """View images without their alpha channel; float alpha stays, as it has the colors' range."""
    axis = {"HW": None, "HWC": 3, "CHW": 1}[layout]
    if axis is None or X.shape[axis] != 4 or X.dtype.kind == "f":
        return X
    return X[..., :3] if axis == 3 else X[:, :3]


def _rows_to_images(X: AnyArray, image_shape: ImageShape | None) -> AnyArray:
    """Reshape X to one axis for each axis of an image."""
    if X.ndim == 2:
        return _unflatten(X, image_shape)
    if X.ndim == 5:
        raise InputError(
            f"X of shape {X.shape} has 5 axes: videos are not supported. Select frames, for "
            "example X[:, 0]."
        )
    if X.ndim == 3 and image_shape is None and X.shape[2] in (1, 3, 4):
        raise InputError(
            f"X of shape {X.shape} is ambiguous: one image with channels, or {len(X)} gray images "
            f"of {X.shape[1]} x {X.shape[2]} pixels. Pass X[None] for one image, or "
            f"reader=ImageReader(image_shape={X.shape[1:]}) for gray images."
        )
    return X


def _unflatten(X: AnyArray, image_shape: ImageShape | None) -> AnyArray:
    columns = X.shape[1]
    if image_shape is None:
        side = math.isqrt(columns)
        example = f"({side}, {side})" if side**2 == columns else "(H, W)"
        raise InputError(
            f"X has 2 axes, shape {X.shape}: rows of {columns} numbers. Say what a row is: pass "
            f"reader=ImageReader(image_shape={example}) if it is a flattened image, or "
            "ImageReader(image_shape=(1, -1)) for plain numbers. If X is one image, pass X[None]."
        )
    if math.prod(image_shape) != columns:
        raise InputError(
            f"X has {columns} columns, but image_shape={image_shape} needs "
            f"{math.prod(image_shape)}."
        )
    return X.reshape(len(X), *image_shape)
