"""Slices of volumes as entries of X."""

import os
from dataclasses import dataclass

import numpy as np

from ..._digest import may_change_unseen, stat_signature
from ..._messages import cause, shown
from ..._typing import Levels
from ...exceptions import ImageError, InputError
from .._options import ReadOptions
from .._parts import Part, refuse_address
from .._recent import Recent
from .._scaling import Note
from ._nifti import AXES, CONVERT, NIFTI_PACKAGES, Axis, is_nifti, nifti_header, nifti_slice

# Files whose slices are read one after the other; larger ones are read again for each slice.
_MOST_KEPT_BYTES = 2**28
_files: Recent[bytes] = Recent(2)


@dataclass(frozen=True, slots=True)
class Slice(Part):
    """One slice of a volume, read when it is needed; made by `slices`.

    Parameters
    ----------
    path : str
        The NIfTI file.
    axis : {"sagittal", "coronal", "axial"}
        Plane of the slice.
    index : int
        Its number, from the patient's left, posterior or inferior.
    volume : int
        Number of the volume in a series.
    """

    path: str
    axis: Axis
    index: int
    volume: int = 0

    @property
    def place(self) -> tuple[str | int | float | None, ...]:
        """All that names the slice within the file."""
        return "slice", self.axis, self.index, self.volume

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions that decode it."""
        return NIFTI_PACKAGES

    @property
    def n_pixels(self) -> int | None:
        """None: the file names it."""
        return None

    def levels(self, options: ReadOptions, note: Note | None) -> Levels:
        """Read the slice as levels (H, W, 1 or 3)."""
        return nifti_slice(_content(self.path), self.axis, self.index, self.volume, options, note)


def slices(
    path: str | os.PathLike[str],
    axis: Axis = "axial",
    *,
    step: int = 1,
    volume: int | None = 0,
) -> list[Slice]:
    """List the slices of a NIfTI volume, as entries of X or as one bag.

    The volume is turned to canonical orientation (RAS+), so that an axis and a number mean the same
    place whatever the order in the file. Slices are shown upright: anterior or superior at the
    top, the patient's left (or, in a sagittal slice, posterior) at the left. Only the header is
    read; a slice is read when its features are computed.

    Parameters
    ----------
    path : str or path-like
        A ``.nii`` or ``.nii.gz`` file.
    axis : {"sagittal", "coronal", "axial"}, default="axial"
        Plane of the slices.
    step : int, default=1
        Every step-th slice, around the middle one.
    volume : int or None, default=0
        Volume of a file with several, such as a time series. None: all of them.

    Returns
    -------
    slices : list of Slice
        In the order from the patient's left, posterior or inferior. ``X = slices(path)`` gives a
        row for each slice; ``X = [slices(path) for path in paths]`` with a reader that pools bags
        gives a row for each volume.

    Raises
    ------
    InputError
        If a parameter has an impossible value.
    ImageError
        If the file is no NIfTI or has a damaged header.
    MissingDependencyError
        If nibabel is not installed: ``pip install "sklearn-featx[nifti]"``.

    See Also
    --------
    tiles : Tiles of a whole-slide image.

    Examples
    --------
    >>> from pathlib import Path
    >>> import nibabel
    >>> from sklearn_featx import slices
    >>> path = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
    >>> entries = slices(path, "coronal", step=10)
    >>> [entry.index for entry in entries]
    [0, 10, 20, 30, 40]
    """
    if axis not in AXES:
        raise InputError(f"axis={shown(axis)}: expected one of {', '.join(map(repr, AXES))}.")
    if not isinstance(step, int | np.integer) or step < 1:
        raise InputError(f"step={shown(step)}: expected an integer of at least 1.")
    name = str(os.fsdecode(path))
    refuse_address(name)
    try:
        header = nifti_header(_nifti_content(name))
    except ImageError as error:
        raise ImageError(error.reason, path=name) from error
    if volume is not None and not (
        isinstance(volume, int | np.integer) and 0 <= volume < header.n_volumes
    ):
        raise InputError(f"volume={shown(volume)}: the file has {header.n_volumes}, from 0 on.")
    n_slices = header.n_slices(axis)
    indices = range(n_slices // 2 % int(step), n_slices, int(step))
    volumes = range(header.n_volumes) if volume is None else (int(volume),)
    return [Slice(name, axis, index, v) for v in volumes for index in indices]


def _nifti_content(path: str) -> bytes:
    data = _content(path)
    if not is_nifti(data):
        raise ImageError(f"is no NIfTI file. {CONVERT}, if nibabel reads it.")
    return data


def _content(path: str) -> bytes:
    """Return the content of a file, kept for its next slices while it does not change."""
    try:
        state = stat_signature(path)
        if state[0] > _MOST_KEPT_BYTES or may_change_unseen(state):
            return _read(path)
        return _files.get((path, *state), lambda: _read(path))
    except (OSError, ValueError, MemoryError) as error:
        raise ImageError(f"the file cannot be read: {cause(error)}") from error


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 (as it was given)
        return file.read()
