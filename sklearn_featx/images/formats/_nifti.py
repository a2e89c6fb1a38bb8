"""NIfTI volumes: slices in canonical orientation.

nibabel reads the header. Its affine says how the axes of the array lie in the patient; the array is
turned to RAS+, from the patient's left to right, posterior to anterior and inferior to superior. A
slice is shown upright: anterior or superior at the top, the patient's left (or, in a sagittal
slice, posterior) at the left. Pixels are not resampled to squares.

Black and white are `cal_min` and `cal_max` of the header if it declares them, and values beyond
are clipped; else those of the type, or the user's.
"""

import math
import zlib
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ..._digest import digest
from ..._optional import import_optional
from ..._typing import AnyArray, Levels
from ...exceptions import ImageError, MissingDependencyError
from .._frames import number_of
from .._options import ReadOptions
from .._pillow import refuse_bomb
from .._recent import Recent
from .._scaling import Note, ValueRange
from .._window import Window
from ._numbers import numbers_to_levels

Axis = Literal["sagittal", "coronal", "axial"]
AXES: tuple[Axis, ...] = get_args(Axis)
NIFTI_PACKAGES = ("nibabel",)

CONVERT = "Convert it to one file: nibabel.save(nibabel.load(path), 'volume.nii')"

_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540
# The maximum size of a compressed volume, which is decompressed as a whole.
_MOST_BYTES = 2**32
# Larger volumes are not kept for their other slices.
_MOST_KEPT_BYTES = 2**29

_volumes: Recent[bytes] = Recent(2)


class NiftiHeader(NamedTuple):
    """The values of a header that slices depend on.

    Parameters
    ----------
    shape : tuple of int
        At least three axes; those after the third count volumes.
    dtype : numpy.dtype
        Type of the stored values.
    offset : int
        Byte at which they begin.
    slope, inter : float
        The values are ``slope * stored + inter``.
    orientation : ndarray of shape (3, 2)
        nibabel's, to RAS+.
    limits : (float, float) or None
        `cal_min` and `cal_max`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    orientation: AnyArray
    limits: ValueRange | None

    @property
    def n_bytes(self) -> int:
        """Bytes of the file up to the end of the values."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    @property
    def n_volumes(self) -> int:
        """Number of volumes."""
        return math.prod(self.shape[3:])

    @property
    def canonical_shape(self) -> tuple[int, ...]:
        """Shape of one volume in canonical orientation."""
        places = np.argsort(self.orientation[:, 0])
        return tuple(self.shape[int(place)] for place in places)

    def n_slices(self, axis: Axis) -> int:
        """Return the number of slices of one volume."""
        return self.canonical_shape[AXES.index(axis)]

    def n_pixels(self, axis: Axis) -> int:
        """Return the number of pixels of a slice."""
        return math.prod(self.canonical_shape) // self.n_slices(axis)


def is_nifti(data: bytes) -> bool:
    """Whether content, compressed or not, begins as a NIfTI file."""
    start = _start(data)
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] == b"n+2\0"


def nifti_levels(
    data: bytes, options: ReadOptions, note: Note | None = None, frame: int = 0
) -> Levels:
    """Convert one axial slice, counted through all volumes, to levels (H, W, 1 or 3)."""
    header = nifti_header(data)
    n_slices = header.n_slices("axial")
    n_frames = n_slices * header.n_volumes
    if options.frames == "first" and n_frames > 1:
        raise ImageError(
            f"is {header.n_volumes} volume(s) of {n_slices} axial slices, which are a picture "
            "each. Pass slices(path) in place of the path, or choose frames."
        )
    volume, index = divmod(number_of(frame, n_frames), n_slices)
    return nifti_slice(data, "axial", index, volume, options, note)


def nifti_frames(data: bytes) -> int:
    """Return the number of axial slices of all volumes."""
    header = nifti_header(data)
    return header.n_slices("axial") * header.n_volumes


def nifti_pixels(data: bytes) -> int | None:
    """Return the number of pixels of an axial slice; None if the header is damaged."""
    try:
        return nifti_header(data).n_pixels("axial")
    except (ImageError, MissingDependencyError):
        return None


def nifti_slice(
    data: bytes, axis: Axis, index: int, volume: int, options: ReadOptions, note: Note | None
) -> Levels:
    """Convert one slice to levels (H, W, 1 or 3); raise `ImageError` if it cannot be read."""
    header = nifti_header(data)
    values = slice_values(data, header, axis, index, volume)
    return numbers_to_levels(values, header.limits, options, note)


def nifti_header(data: bytes) -> NiftiHeader:
    """Read the header of a NIfTI file from its first bytes.

    Raises
    ------
    ImageError
        If it is damaged, or describes no picture, or too large a one.
    MissingDependencyError
        If nibabel is not installed.
    """
    nibabel = import_optional("nibabel", extra="nifti", purpose="Reading NIfTI files")
    start = _start(data)
    if start[344:348] == b"ni1\0":
        raise ImageError(f"is a NIfTI header without values. {CONVERT}")
    second = start[4:8] == b"n+2\0"
    kind = nibabel.Nifti2Header if second else nibabel.Nifti1Header
    try:
        # Without its checks, which log instead of raising.
        raw = kind(start[: 540 if second else 348], check=False)
        header = _checked(raw, nibabel)
    except ImageError:
        raise
    except Exception as error:
        # nibabel raises errors of any type for damaged headers.
        raise ImageError(f"its NIfTI header is damaged ({type(error).__name__}).") from error
    for axis in AXES:
        refuse_bomb(header.n_pixels(axis))
    return header


def slice_values(data: bytes, header: NiftiHeader, axis: Axis, index: int, volume: int) -> AnyArray:
    """Return the values (H, W, C) of one slice, shown upright.

    Parameters
    ----------
    data : bytes
        Content of the file.
    header : NiftiHeader
        Its header.
    axis : {"sagittal", "coronal", "axial"}
        Direction that the slice is cut across.
    index, volume : int
        Number of the slice, from the patient's left, posterior or inferior, and of the volume.

    Returns
    -------
    values : ndarray of shape (H, W, 1 or 3)
        Stored values; float64 if the header scales them.
    """
    n_slices = header.n_slices(axis)
    if not (0 <= index < n_slices and 0 <= volume < header.n_volumes):
        raise ImageError(
            f"has {n_slices} {axis} slices in {header.n_volumes} volumes: slice {index} of volume "
            f"{volume} does not exist."
        )
    voxels = np.ndarray(
        header.shape, header.dtype, _content(data, header), header.offset, order="F"
    )
    chosen = voxels.reshape(*header.shape[:3], -1, order="F")[..., volume]
    plane = np.take(_oriented(chosen, header.orientation), index, axis=AXES.index(axis))
    upright = np.rot90(plane)
    if upright.dtype.names is not None:
        # RGB or RGBA.
        return np.stack([upright[name] for name in upright.dtype.names], axis=2)
    return _scaled(upright, header)[:, :, np.newaxis]


def _start(data: bytes) -> bytes:
    if not data.startswith(_GZIP):
        return data[:_HEADER_BYTES]
    try:
        return zlib.decompressobj(31).decompress(data, _HEADER_BYTES)
    except zlib.error:
        return b""


def _checked(raw: Any, nibabel: Any) -> NiftiHeader:
    shape = tuple(int(side) for side in raw.get_data_shape())
    if len(shape) < 2 or min(shape) < 1:
        raise ImageError(f"its NIfTI header describes no picture: shape {shape}.")
    shape += (1,) * (3 - len(shape))
    offset = int(raw["vox_offset"])
    if offset < 348:
        raise ImageError("its NIfTI header is damaged: the values overlap it.")
    slope, inter = raw.get_slope_inter()
    orientation = nibabel.orientations.io_orientation(raw.get_best_affine())
    if not np.isfinite(orientation).all():
        raise ImageError("its NIfTI header is damaged: the affine has no directions.")
    low, high = float(raw["cal_min"]), float(raw["cal_max"])
    limits = Window(low, high) if math.isfinite(low) and low < high < math.inf else None
    return NiftiHeader(
        shape,
        raw.get_data_dtype(),
        offset,
        1.0 if slope is None else float(slope),
        0.0 if inter is None else float(inter),
        orientation,
        limits,
    )


def _content(data: bytes, header: NiftiHeader) -> bytes:
    """Return the bytes of a file up to the end of its values, decompressed."""
    if not data.startswith(_GZIP):
        if len(data) < header.n_bytes:
            raise ImageError(f"is truncated: {len(data)} of {header.n_bytes} bytes.")
        return data
    if header.n_bytes > _MOST_BYTES:
        raise ImageError(
            f"would decompress to {header.n_bytes} bytes, more than {_MOST_BYTES}. Decompress the "
            "file first."
        )
    if header.n_bytes > _MOST_KEPT_BYTES:
        return _decompressed(data, header.n_bytes)
    return _volumes.get(digest(data), lambda: _decompressed(data, header.n_bytes))


def _decompressed(data: bytes, n_bytes: int) -> bytes:
    parts: list[bytes] = []
    size, is_whole = 0, True
    try:
        while data and size < n_bytes:
            # A file may consist of several compressed members.
            member = zlib.decompressobj(31)
            parts.append(member.decompress(data, n_bytes - size))
            size += len(parts[-1])
            # The end of a member has its checksum.
            rest = member.decompress(member.unconsumed_tail, 1)
            if not member.eof and not rest:
                is_whole = False
                break
            data = member.unused_data
    except zlib.error as error:
        raise ImageError(f"cannot be decompressed: {error}.") from error
    if size < n_bytes or not is_whole:
        raise ImageError(
            f"is truncated: {size} of {n_bytes} decompressed bytes"
            f"{'' if size < n_bytes else ', without their checksum'}."
        )
    return b"".join(parts)


def _oriented(voxels: AnyArray, orientation: AnyArray) -> AnyArray:
    """Return a view of a volume in canonical orientation."""
    for axis, direction in enumerate(orientation[:, 1]):
        if direction < 0:
            voxels = np.flip(voxels, axis)
    return voxels.transpose(np.argsort(orientation[:, 0]))


def _scaled(stored: AnyArray, header: NiftiHeader) -> AnyArray:
    if (header.slope, header.inter) == (1.0, 0.0):
        return stored.astype(stored.dtype.newbyteorder("="))
    if stored.dtype.kind == "c":
        return stored
    return stored.astype(np.float64) * header.slope + header.inter
