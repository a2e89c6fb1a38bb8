"""Kinds of NIfTI files: types, byte orders, scales, axes and truncations, against nibabel."""

import gzip
import struct

import numpy as np
import pytest

from sklearn_featx import slices
from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions, as_image_collection
from sklearn_featx.images.formats._nifti import AXES, nifti_header, slice_values

nibabel = pytest.importorskip("nibabel")

SHAPE = (4, 5, 6)
NUMBERS = np.random.default_rng(0).integers(0, 100, SHAPE)
# Bytes of the header at which slope and intercept are.
SLOPE_AT = 112


def written(voxels, affine=None, byteorder="<"):
    header = nibabel.Nifti1Header(endianness=byteorder)
    header.set_data_dtype(voxels.dtype.newbyteorder(byteorder))
    affine = np.eye(4) if affine is None else affine
    return nibabel.Nifti1Image(voxels, affine, header).to_bytes()


def check(data, axis="axial", volume=0):
    """Every slice has nibabel's values."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(data))
    volumes = np.asarray(image.dataobj)
    # In the order of the file.
    volumes = volumes.reshape(*volumes.shape[:3], -1, order="F")[..., volume]
    header = nifti_header(data)
    for index in range(header.n_slices(axis)):
        wanted = np.rot90(np.take(volumes, index, AXES.index(axis)))
        found = slice_values(data, header, axis, index, volume)
        if wanted.dtype.names is not None:
            wanted = np.stack([wanted[name] for name in wanted.dtype.names], axis=2)
        np.testing.assert_array_equal(found, wanted.reshape(found.shape))
    return header


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_types_and_byte_orders(dtype, byteorder):
    header = check(written(NUMBERS.astype(dtype), byteorder=byteorder))
    assert header.dtype.kind == dtype[0]


@pytest.mark.parametrize(("slope", "inter"), [(0.37, -12.5), (0, 5), (np.nan, 5), (-2, 0)])
def test_slope_and_intercept(slope, inter):
    data = bytearray(written(NUMBERS.astype(np.int16)))
    struct.pack_into("<ff", data, SLOPE_AT, slope, inter)
    header = check(bytes(data))
    # Zero and NaN mean that nothing is scaled.
    assert (header.slope == 1) == (not slope or np.isnan(slope))


def test_an_intercept_that_is_no_number():
    data = bytearray(written(NUMBERS.astype(np.int16)))
    struct.pack_into("<ff", data, SLOPE_AT, 2, np.nan)
    with pytest.raises(ImageError, match="its NIfTI header is damaged"):
        nifti_header(bytes(data))


@pytest.mark.parametrize("degrees", [10, 44, 46, 80, 135])
def test_oblique_axes_are_the_nearest(degrees):
    angle = np.radians(degrees)
    turn = np.diag([1.0, 2, 3, 1])
    turn[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for axis in AXES:
        check(written(NUMBERS.astype(np.int16), turn), axis)


def test_axes_that_are_nearly_at_45_degrees():
    # nibabel 1449: the nearest axes change with each turn. Ours are those of one turn.
    affine = np.array([[2.09, 1.9, 2.3, 0], [1.9, 2.0, -1.0, 0], [2.1, -1.8, 2.2, 0], [0, 0, 0, 1]])
    for axis in AXES:
        header = check(written(NUMBERS.astype(np.int16), affine), axis)
    assert sorted(header.canonical_shape) == sorted(SHAPE)


@pytest.mark.parametrize("code", ["sform", "qform", "neither"])
def test_a_patient_that_lies_the_other_way(code):
    # nibabel 1099, 522: flipped from left to right, by sform or qform, with pixdim[0] = -1.
    image = nibabel.Nifti1Image(NUMBERS.astype(np.int16), np.diag([-1, 1, 1, 1]))
    image.set_sform(image.affine if code == "sform" else None, int(code == "sform"))
    image.set_qform(image.affine if code == "qform" else None, int(code == "qform"))
    header = check(image.to_bytes())
    # Without both, nibabel assumes that x grows to the left.
    assert header.orientation[0].tolist() == [0, -1]


@pytest.mark.parametrize("more", [(3,), (1, 3), (2, 2)])
def test_volumes_of_four_and_five_axes(more):
    voxels = np.random.default_rng(0).random((*SHAPE, *more)).astype(np.float32)
    data = written(voxels, np.diag([-1, 2, 3, 1]))
    for volume in range(int(np.prod(more))):
        assert check(data, "sagittal", volume).n_volumes == np.prod(more)


@pytest.mark.parametrize("names", ["RGB", "RGBA"])
def test_colors(names, tmp_path):
    voxels = np.zeros(SHAPE, [(name, "u1") for name in names])
    for i, name in enumerate(names):
        voxels[name] = NUMBERS + 10 * i
    path = tmp_path / "color.nii"
    path.write_bytes(written(voxels, np.diag([-1, -1, 1, 1])))
    check(path.read_bytes())
    levels = as_image_collection(slices(path)).load(2)
    if names == "RGB":
        wanted = np.stack([np.rot90(voxels[name][::-1, ::-1, 2]) for name in names], axis=2)
        np.testing.assert_array_equal(levels, wanted)
    assert levels.shape == (5, 4, 3)


@pytest.mark.parametrize("n_missing", [1, 4, 8, 12, 200])
def test_a_compressed_file_without_its_end(n_missing, tmp_path):
    """Also where only the checksum lacks: nobody knows whether the values are right."""
    data = gzip.compress(written(np.random.default_rng(0).integers(0, 999, (9, 8, 7), np.int16)))
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(data[:-n_missing])
    entries = slices(path)
    images = as_image_collection(entries, ReadOptions(value_range=(0, 999)))
    with pytest.raises(ImageError, match="is truncated: "):
        images.load(0)
    # Bytes after the volume, and after the file, are none of it.
    for whole in (data + b"\0" * 10, gzip.compress(gzip.decompress(data) + b"more")):
        path.write_bytes(whole)
        assert as_image_collection(entries, ReadOptions(value_range=(0, 999))).load(0).any()


def test_an_opened_image_says_what_to_pass():
    image = nibabel.Nifti1Image(NUMBERS.astype(np.int16), np.eye(4))
    with pytest.raises(ImageError, match=r"image of nibabel\. Pass slices"):
        as_image_collection([image])


@pytest.mark.parametrize("name", ["pair.img", "pair.hdr", "head.mgz"])
def test_files_that_nibabel_converts(name, tmp_path):
    kind = nibabel.MGHImage if name.endswith("mgz") else nibabel.Nifti1Pair
    path = tmp_path / name
    nibabel.save(kind(NUMBERS.astype(np.int16), np.eye(4)), path)
    wanted = r"Convert it to one file: nibabel\.save\(nibabel\.load\(path\), 'volume\.nii'\)"
    with pytest.raises(ImageError, match=wanted):
        slices(path)
    nibabel.save(nibabel.load(path), tmp_path / "volume.nii")
    assert len(slices(tmp_path / "volume.nii")) == 6
