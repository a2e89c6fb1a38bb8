"""NIfTI: slices are those of nibabel's canonical volume, to the bit."""

import gzip
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from sklearn_featx import image_groups, slices
from sklearn_featx.exceptions import ImageError, InputError, MissingDependencyError
from sklearn_featx.images import ReadOptions, as_image_collection
from sklearn_featx.images.formats._nifti import AXES, nifti_header, slice_values

nibabel = pytest.importorskip("nibabel")

DATA = Path(nibabel.__file__).parent / "tests" / "data"
FILES = [
    "anatomical.nii",
    "example_nifti2.nii.gz",
    "functional.nii",
    "reoriented_anat_moved.nii",
    "resampled_anat_moved.nii",
    "standard.nii.gz",
]
RNG = np.random.default_rng(0)
VOXELS = RNG.integers(0, 256, (5, 6, 4)).astype(np.uint8)


def canonical(path):
    """All volumes in RAS+, by nibabel alone."""
    volume = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    return volume.reshape(*volume.shape[:3], -1)


def shown(volume, axis, index):
    return np.rot90(np.take(volume, index, axis=AXES.index(axis)))


@pytest.fixture
def write(tmp_path):
    def write(voxels=VOXELS, affine=None, name="volume.nii", **header):
        image = nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
        for key, value in header.items():
            image.header[key] = value
        nibabel.save(image, tmp_path / name)
        return str(tmp_path / name)

    return write


class TestValues:
    @pytest.mark.parametrize("axis", AXES)
    @pytest.mark.parametrize("name", FILES)
    def test_real_files(self, name, axis):
        data, volumes = (DATA / name).read_bytes(), canonical(DATA / name)
        header = nifti_header(data)
        assert (header.n_slices(axis), header.n_volumes) == (
            volumes.shape[AXES.index(axis)],
            volumes.shape[3],
        )
        for volume in {0, header.n_volumes - 1}:
            for index in {0, header.n_slices(axis) // 2, header.n_slices(axis) - 1}:
                values = slice_values(data, header, axis, index, volume)[:, :, 0]
                wanted = shown(volumes[..., volume], axis, index)
                np.testing.assert_array_equal(values, wanted)

    @pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ILA"])
    def test_every_orientation_is_the_same_patient(self, codes, write):
        image = nibabel.Nifti1Image(VOXELS, np.eye(4))
        turn = nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
        )
        turned = image.as_reoriented(turn)
        assert "".join(nibabel.aff2axcodes(turned.affine)) == codes
        path = write(np.asarray(turned.dataobj), turned.affine)
        for axis in AXES:
            images = as_image_collection(slices(path, axis))
            for i in range(len(images)):
                np.testing.assert_array_equal(images.load(i)[:, :, 0], shown(VOXELS, axis, i))

    def test_the_upper_left_corner(self, write):
        voxels = np.zeros((3, 4, 5), np.uint8)
        # The patient's left, anterior, superior corner.
        voxels[0, -1, -1] = 255
        path = write(voxels)
        assert as_image_collection(slices(path, "axial")).load(4)[0, 0, 0] == 255
        assert as_image_collection(slices(path, "coronal")).load(3)[0, 0, 0] == 255
        # A sagittal slice has posterior at the left.
        assert as_image_collection(slices(path, "sagittal")).load(0)[0, -1, 0] == 255

    def test_color(self, write):
        rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        voxels = RNG.integers(0, 256, (4, 5, 1, 3)).astype(np.uint8)
        path = write(voxels.view(rgb)[..., 0])
        levels = as_image_collection([path]).load(0)
        np.testing.assert_array_equal(levels, np.rot90(voxels[:, :, 0]))


def test_frames_are_axial_slices(write):
    path = write(RNG.integers(0, 256, (5, 6, 4, 2)).astype(np.uint8))
    frames = as_image_collection([path], ReadOptions(frames="all", bag_pooling="mean")).images
    entries = as_image_collection(slices(path, volume=None))
    assert len(frames) == len(entries) == 8
    for i in range(8):
        np.testing.assert_array_equal(frames.load(i), entries.load(i))
    last = as_image_collection([path], ReadOptions(frames=-1))
    np.testing.assert_array_equal(last.load(0), entries.load(7))


def test_a_bag_of_slices(write):
    paths = [write(name=f"sub-{name}.nii") for name in ("b", "a")]
    bags = as_image_collection([slices(path) for path in paths], ReadOptions(bag_pooling="max"))
    assert (len(bags), len(bags.images)) == (2, 8)
    X = [slices(path) for path in paths]
    assert image_groups(X, by=r"sub-(\w)").tolist() == [0, 1]
    with pytest.raises(ImageError, match="row 0: has images of 2 groups"):
        image_groups([X[0] + X[1]], by=r"sub-(\w)")


class TestRange:
    def test_that_of_the_header_clips(self, write):
        voxels = np.arange(120, dtype=np.int16).reshape(5, 6, 4) * 10
        path = write(voxels, cal_min=100, cal_max=500)
        levels = as_image_collection(slices(path)).load(2)[:, :, 0]
        wanted = (shown(voxels, "axial", 2).clip(100, 500) - 100) * (255 / 400)
        np.testing.assert_allclose(levels, wanted, atol=1e-4)

    def test_that_of_the_user(self, write):
        path = write(np.arange(120, dtype=np.int16).reshape(5, 6, 4) * 10)
        entries = slices(path)
        with pytest.raises(ImageError, match=r"row 3 .*outside the range 0 to 255.*value_range"):
            as_image_collection(entries).load(3)
        ranged = as_image_collection(entries, ReadOptions(value_range=(0, 2550)))
        windowed = as_image_collection(entries, ReadOptions(window=(1275.5, 2551)))
        np.testing.assert_allclose(ranged.load(3), windowed.load(3), atol=1e-4)
        assert ranged.digest(3) != windowed.digest(3)

    def test_nan_is_refused(self, write):
        path = write(np.full((3, 3, 1), np.nan, np.float32))
        with pytest.raises(ImageError, match="contains NaN"):
            as_image_collection([path]).load(0)


class TestSlices:
    def test_rows_in_order(self, write):
        entries = slices(write(), "coronal", step=2)
        assert [entry.index for entry in entries] == [1, 3, 5]
        assert (entries[0].axis, entries[0].volume) == ("coronal", 0)
        assert pickle.loads(pickle.dumps(entries)) == entries

    def test_volumes_of_a_series(self, write):
        path = write(np.zeros((3, 3, 2, 4), np.uint8))
        assert len(slices(path)) == 2
        assert [entry.volume for entry in slices(path, volume=None)] == [0, 0, 1, 1, 2, 2, 3, 3]
        with pytest.raises(InputError, match=r"volume=4: the file has 4"):
            slices(path, volume=4)
        with pytest.raises(InputError, match=r"volume='1'"):
            slices(path, volume="1")
        assert slices(path, step=np.int64(1), volume=np.int64(1)) == slices(path, volume=1)

    def test_a_path_of_a_volume_says_what_to_do(self, write):
        with pytest.raises(ImageError, match=r"row 0 .*4 axial slices.*slices\(path\)"):
            as_image_collection([write()]).load(0)
        one = as_image_collection([write(VOXELS[:, :, :1], name="one.nii.gz")])
        np.testing.assert_array_equal(one.load(0)[:, :, 0], np.rot90(VOXELS[:, :, 0]))

    def test_digests_are_of_content_and_place(self, write, tmp_path):
        path = write()
        copied = shutil.copy(path, tmp_path / "copy.nii")
        first, again = (as_image_collection(slices(p)) for p in (path, copied))
        digests = [first.digest(i) for i in range(4)]
        assert digests == [again.digest(i) for i in range(4)]
        assert len({*digests, as_image_collection(slices(path, "coronal")).digest(0)}) == 5
        # Also of a file that changes within the resolution of its time.
        write(VOXELS[::-1])
        os.utime(path, ns=(1, 1))
        assert as_image_collection(slices(path)).digest(0) != digests[0]
        np.testing.assert_array_equal(first.load(0)[:, :, 0], np.rot90(VOXELS[::-1, :, 0]))

    def test_groups_of_slices(self, write):
        paths = [write(name=f"sub-{name}.nii") for name in ("b", "a")]
        X = [entry for path in paths for entry in slices(path)]
        assert image_groups(X, by=r"sub-(\w)").tolist() == [0] * 4 + [1] * 4

    @pytest.mark.parametrize("bad", [{"axis": "z"}, {"step": 0}, {"step": 1.5}])
    def test_impossible_parameters(self, bad, write):
        with pytest.raises(InputError, match=f"{next(iter(bad))}="):
            slices(write(), **bad)

    def test_other_files(self, tmp_path):
        path = tmp_path / "volume.nii"
        with pytest.raises(ImageError, match="the file cannot be read"):
            slices(path)
        path.write_bytes(gzip.compress(b"no volume"))
        with pytest.raises(ImageError, match="is no NIfTI file"):
            slices(path)

    def test_without_nibabel(self, write, monkeypatch):
        path = write(VOXELS[:, :, :1])
        monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
        with pytest.raises(MissingDependencyError, match=r"sklearn-featx\[nifti\]"):
            slices(path)
        with pytest.raises(ImageError, match=r"row 0 .*sklearn-featx\[nifti\]"):
            as_image_collection([path]).load(0)

    def test_a_missing_slice(self, write):
        path = write()
        entries = slices(path)
        write(VOXELS[:, :, :2])
        with pytest.raises(ImageError, match=r"row 3 .*slice 3 of volume 0 does not exist"):
            as_image_collection(entries).load(3)
        Path(path).unlink()
        with pytest.raises(ImageError, match=r"row 0 .*no such file"):
            as_image_collection(entries)
