"""NIfTI, TIFF, slides and groups in public issues of other libraries: the right results here."""

import io
import struct
from itertools import permutations, product

import numpy as np
import pytest

from sklearn_featx import image_groups, slices, tiles
from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions, decode

RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 65536, (3, 8, 10)).astype(np.uint16)
# From the patient's left to right, posterior to anterior, inferior to superior.
VOLUME = RNG.integers(0, 256, (3, 4, 5)).astype(np.uint8)
AXIAL = np.stack([VOLUME[:, ::-1, k].T for k in range(5)])


def levels(data, frame=0, **options):
    """The channels (C, h, w) that are read, from 0 to 1."""
    return np.moveaxis(decode(data, ReadOptions(**options), frame=frame), 2, 0) / 255


def tiff(array, **options):
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def nifti(array, affine=None, **header):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    return image


def axial(data):
    frames = range(data.shape[2]) if hasattr(data, "shape") else range(5)
    content = data.to_bytes() if hasattr(data, "to_bytes") else data
    return np.stack([decode(content, ReadOptions(frames=k), frame=k)[:, :, 0] for k in frames])


def test_nibabel_1099_and_torchio_1300():
    # Patients and their masks are flipped horizontally: LAS beside LPS. 48 orders of the axes.
    image = nifti(VOLUME)
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        turned = image.as_reoriented(np.column_stack([order, flips]).astype(float))
        np.testing.assert_array_equal(axial(turned.to_bytes()), AXIAL)


def test_mrtrix3_94_and_niivue_243():
    # sform and qform disagree about left and right: the sform counts, as in FSL and AFNI.
    image = nifti(VOLUME)
    image.set_sform(np.eye(4), code=1)
    image.set_qform(np.diag([-1, 1, 1, 1]), code=1)
    np.testing.assert_array_equal(axial(image), AXIAL)
    image.set_sform(None, code=0)
    np.testing.assert_array_equal(axial(image), AXIAL[:, :, ::-1])


def test_monai_1818(tmp_path):
    # "Image reader rotating images 90 degrees": anterior is at the top, the left at the left.
    marked = np.zeros((6, 7, 2), np.uint8)
    marked[0, -1] = 255
    path = tmp_path / "v.nii"
    nifti(marked).to_filename(path)
    pixels = slices(path)[0].levels(ReadOptions(), None)
    assert pixels.shape == (7, 6, 1)
    assert np.argwhere(pixels[:, :, 0]).tolist() == [[0, 0]]


@pytest.mark.parametrize(("slope", "inter"), [(0.0, 5.0), (np.nan, np.nan)])
def test_nifti_jl_14(slope, inter):
    # A slope of zero means no scaling; the volume is not all `inter`.
    data = bytearray(nifti(VOLUME).to_bytes())
    data[112:120] = struct.pack("<ff", slope, inter)
    np.testing.assert_array_equal(axial(bytes(data)), AXIAL)


def test_neuroglancer_scripts_15():
    # Voxels of RGB24 are structures of three bytes.
    colors = RNG.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    voxels = colors.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    pixels = decode(nifti(voxels).to_bytes(), ReadOptions(frames=2), frame=2)
    np.testing.assert_array_equal(pixels, colors[:, ::-1, 2].transpose(1, 0, 2))


def test_imagej2_196():
    # RGB in planes, a row in each strip.
    data = tiff(PLANES, photometric="rgb", planarconfig="separate", rowsperstrip=1)
    np.testing.assert_allclose(levels(data), PLANES / 65535, atol=1e-6)


def test_tifffile_206():
    # A gray stack that was written in planes of one page is one picture of three channels.
    data = tiff(PLANES, photometric="minisblack", planarconfig="separate")
    np.testing.assert_allclose(levels(data), PLANES / 65535, atol=1e-6)
    np.testing.assert_allclose(levels(data, channels=(2,)), PLANES[2:] / 65535, atol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int16, np.float32])
def test_scikit_image_1940_and_xarray_spatial_2278(dtype):
    # Zero is white: masks, signed numbers and floats are shown as negatives.
    values = np.array([[0, 1], [1, 0]], dtype)
    shown = levels(tiff(values, photometric="miniswhite"), value_range=(0, 1))
    np.testing.assert_allclose(shown[0], 1 - values.astype(float), atol=1e-6)


def test_bioformats_1384():
    # The channels of other files are no black planes.
    parts = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{c}.ome.tif">'
        f"urn:uuid:{c}</UUID></TiffData>"
        for c in range(2)
    )
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0"><Image '
        'ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="10" '
        f'SizeY="8" SizeC="2" SizeZ="1" SizeT="1">{parts}</Pixels></Image></OME>'
    )
    data = tiff(PLANES[0], photometric="minisblack", description=xml, metadata=None)
    with pytest.raises(ImageError, match=r"channels of other files.*tifffile\.imread\(path\)"):
        levels(data)


def test_nimbusimage_491():
    # The order of a hyperstack is that of its description: channels within z within time.
    stack = RNG.integers(0, 65536, (2, 2, 3, 8, 10)).astype(np.uint16)
    data = tiff(stack, imagej=True, metadata={"axes": "TZCYX"})
    for frame, wanted in enumerate(stack.reshape(4, 3, 8, 10)):
        np.testing.assert_allclose(levels(data, frame, frames=frame), wanted / 65535, atol=1e-6)


def test_slideflow_420(tmp_path):
    # Resolutions in pixels per centimeter: 40000 are 0.25 micrometers for each pixel.
    pytest.importorskip("openslide")
    path = tmp_path / "s.tif"
    options = {"photometric": "rgb", "tile": (64, 64), "resolutionunit": "CENTIMETER"}
    pixels = np.full((128, 128, 3), (200, 80, 120), np.uint8)
    path.write_bytes(tiff(pixels, resolution=(40000, 40000), **options))
    assert [(tile.x, tile.y, tile.side) for tile in tiles(path, 64, mpp=0.5)] == [(0, 0, 128)]
    assert len(tiles(path, 64, mpp=0.25)) == 4


@pytest.mark.parametrize("blank", [None, float("nan"), "", " "])
def test_slide2vec_242(blank, tmp_path):
    # Blank cells in a table of patients are no patient, who would be one for all of them.
    table = {"a": "1", "b": blank, "c": blank}
    paths = [tmp_path / f"{name}.png" for name in table]
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"row 1 .*no group"):
        image_groups(paths, by=lambda path: table[path[-5]])
