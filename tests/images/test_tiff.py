"""Scientific TIFF: values are those of tifffile, to the bit."""

import io

import numpy as np
import pytest
from PIL import Image

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions, _foreign, as_image_collection
from sklearn_featx.images.formats import _tiff

tifffile = pytest.importorskip("tifffile")

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (37, 45, 5)).astype(np.uint16)
FLOATS = RNG.random((37, 45, 3))


def written(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def levels(data, **options):
    return as_image_collection([data], ReadOptions(**options)).load(0)


CASES = {
    "16-bit color": (DEEP[..., :3], {"photometric": "rgb"}),
    "planes": (DEEP[..., :3].transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": 2}),
    "tiles of a BigTIFF": (
        DEEP[..., :3],
        {"photometric": "rgb", "tile": (16, 16), "bigtiff": True, "compression": "lzw"},
    ),
    "big-endian zstd": (
        DEEP[..., :3],
        {"photometric": "rgb", "byteorder": ">", "compression": "zstd", "predictor": True},
    ),
    "float32 color": (FLOATS.astype(np.float32), {"photometric": "rgb"}),
    "float64": (FLOATS[..., 0], {}),
    "float16": (FLOATS[..., 0].astype(np.float16), {}),
    "uint32": (DEEP[..., 0].astype(np.uint32), {}),
    "int8": (DEEP[..., 0].astype(np.int8) & 127, {}),
    "5 channels": (DEEP, {"photometric": "minisblack", "planarconfig": "contig"}),
    "OME channels": (DEEP[..., :3].transpose(2, 0, 1), {"ome": True, "metadata": {"axes": "CYX"}}),
    "JPEG 2000": (DEEP[..., :3].astype(np.uint8), {"compression": "jpeg2000"}),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_tifffile(name):
    array, options = CASES[name]
    data = written(array, **options)
    wanted = tifffile.imread(io.BytesIO(data))
    np.testing.assert_array_equal(wanted, array)
    if wanted.ndim == 3 and wanted.shape[0] < 37:
        wanted = wanted.transpose(1, 2, 0)
    assert _tiff.is_scientific_tiff(data)
    values = _tiff.read_plane(data, 0).values
    np.testing.assert_array_equal(values, wanted.reshape(37, 45, -1))
    assert values.dtype == wanted.dtype.newbyteorder("=")
    if values.shape[2] <= 3:
        white = float(wanted.max()) if name in ("uint32", "int8") else None
        options = {} if white is None else {"value_range": (0, white)}
        same = as_image_collection([values], ReadOptions(**options)).load(0)
        np.testing.assert_array_equal(levels(data, **options), same)


def test_frames_of_a_hyperstack_are_not_channels():
    stack = RNG.integers(0, 65536, (2, 3, 3, 20, 24)).astype(np.uint16)
    for data in (
        written(stack, imagej=True, metadata={"axes": "TZCYX"}),
        written(stack, ome=True, metadata={"axes": "TZCYX"}, photometric="minisblack"),
    ):
        for frame in range(6):
            wanted = stack[frame // 3, frame % 3].transpose(1, 2, 0)
            np.testing.assert_array_equal(_tiff.read_plane(data, frame).values, wanted)
        with pytest.raises(ImageError, match="has 6 frames, numbered from 0"):
            _tiff.read_plane(data, 6)


def test_frames_by_the_reader():
    stack = RNG.integers(0, 65536, (2, 3, 20, 24)).astype(np.uint16)
    data = written(stack, imagej=True, metadata={"axes": "ZCYX"})
    whole = as_image_collection([data], ReadOptions(frames="all", bag_pooling="mean"))
    assert len(whole.images) == 2
    last = as_image_collection([data], ReadOptions(frames=-1))
    np.testing.assert_array_equal(last.load(0), whole.images.load(1))
    images = as_image_collection([data])
    np.testing.assert_array_equal(images.load(0), whole.images.load(0))
    assert "TIFF" in images.range_use.reports()[0]


def test_pages_without_description():
    pages = RNG.random((3, 20, 24))
    data = written(pages, photometric="minisblack")
    for i in range(3):
        np.testing.assert_array_equal(_tiff.read_plane(data, i).values[..., 0], pages[i])


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4"])
def test_compressed_gray_pictures_of_both_byte_orders(dtype, byteorder, compression):
    """Pillow 13 swaps the bytes of compressed big-endian numbers twice."""
    numbers = (FLOATS[..., 0] * 200).astype(dtype)
    options = {"byteorder": byteorder, "compression": compression, "photometric": "minisblack"}
    found = levels(written(numbers, **options), value_range=(0, 200))[..., 0]
    np.testing.assert_allclose(found, numbers * (255 / 200), atol=1e-3)


class TestAppearance:
    def test_declared_ranges(self):
        twelve = DEEP[..., :3] >> 4
        data = written(
            twelve.transpose(2, 0, 1),
            ome=True,
            metadata={"axes": "CYX", "SignificantBits": 12},
            photometric="minisblack",
        )
        np.testing.assert_allclose(levels(data), twelve * (255 / 4095), rtol=1e-5, atol=1e-4)
        ranged = written(
            FLOATS * 8,
            photometric="rgb",
            extratags=[(340, "d", 3, (0.0,) * 3, True), (341, "d", 3, (8.0,) * 3, True)],
        )
        np.testing.assert_allclose(levels(ranged), FLOATS * 255, rtol=1e-5, atol=1e-4)

    def test_ranges_of_the_user(self):
        data = written(FLOATS[..., 0] * 1000)
        with pytest.raises(ImageError, match="outside the range 0 to 1"):
            levels(data)
        wanted = FLOATS[..., 0] * 255
        np.testing.assert_allclose(levels(data, value_range=(0, 1000))[..., 0], wanted, atol=1e-3)

    def test_white_is_zero(self):
        data = written(FLOATS[..., 0], photometric="miniswhite")
        np.testing.assert_allclose(levels(data)[..., 0], 255 - FLOATS[..., 0] * 255, atol=1e-3)

    @pytest.mark.parametrize("byteorder", "<>")
    @pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
    def test_white_is_zero_in_every_type(self, dtype, byteorder):
        white = {"u1": 255, "u2": 65535}.get(dtype, 1)
        stored = np.linspace(0, white, 600).reshape(20, 30).astype(dtype)
        data = written(stored, photometric="miniswhite", byteorder=byteorder)
        wanted = 255 - stored.astype(float) * 255 / white
        np.testing.assert_allclose(levels(data)[..., 0], wanted, atol=1e-3)

    @pytest.mark.parametrize("byteorder", "<>")
    @pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4"])
    @pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
    def test_ranges_are_of_the_numbers_in_the_file(self, dtype, byteorder, photometric):
        # The order is one for all types, and that of DICOM: the range, then the inversion.
        stored = np.linspace(50, 205, 600).reshape(20, 30).astype(dtype)
        data = written(stored, photometric=photometric, byteorder=byteorder)
        wanted = (stored.astype(float) - 50) * 255 / 170
        if photometric == "miniswhite":
            wanted = 255 - wanted
        found = levels(data, value_range=(50, 220))[..., 0]
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        if dtype == "u1":
            opened = as_image_collection(
                [Image.open(io.BytesIO(data))], ReadOptions(value_range=(50, 220))
            )
            np.testing.assert_allclose(opened.load(0)[..., 0], wanted, atol=1e-3)

    @pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
    def test_white_is_zero_without_tifffile(self, dtype):
        white = {"u1": 255, "u2": 65535}.get(dtype, 1)
        stored = np.linspace(0, white, 600).reshape(20, 30).astype(dtype)
        picture = Image.open(io.BytesIO(written(stored, photometric="miniswhite")))
        wanted = 255 - stored.astype(float) * 255 / white
        found = as_image_collection([picture]).load(0)[..., 0]
        np.testing.assert_allclose(found, wanted, atol=1e-3)

    @pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
    @pytest.mark.parametrize("dtype", ["u1", "u2", "f8"])
    def test_white_is_zero_with_alpha(self, dtype, alpha):
        white = {"u1": 255, "u2": 65535}.get(dtype, 1)
        pair = (FLOATS[..., :2] * white).astype(dtype)
        if alpha == "assocalpha":
            pair[..., 0] = np.minimum(pair[..., 0], pair[..., 1])
        data = written(pair, photometric="miniswhite", planarconfig="contig", extrasamples=[alpha])
        color, opacity = np.moveaxis(pair.astype(float) / white, 2, 0)
        wanted = 255 - 255 * color * (opacity if alpha == "unassalpha" else 1)
        np.testing.assert_allclose(levels(data)[..., 0], wanted, atol=0.51)

    def test_alpha_is_composited_over_white(self):
        colors, alpha = FLOATS, FLOATS[..., :1]
        wanted = (colors * alpha + 1 - alpha) * 255
        plain = written(np.dstack([colors, alpha]), photometric="rgb", extrasamples=["unassalpha"])
        np.testing.assert_allclose(levels(plain), wanted, atol=1e-3)
        multiplied = np.dstack([colors * alpha, alpha])
        data = written(multiplied, photometric="rgb", extrasamples=["assocalpha"])
        np.testing.assert_allclose(levels(data), wanted, atol=1e-3)

    def test_further_bands_of_a_color_picture_are_no_alpha(self):
        data = written(DEEP[..., :4], photometric="rgb", extrasamples=["unspecified"])
        np.testing.assert_array_equal(levels(data), as_image_collection([DEEP[..., :3]]).load(0))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientations_are_those_of_pillow(self, orientation):
        tag = [(274, "H", 1, orientation, True)]
        pixels = DEEP[..., :3].astype(np.uint8)
        shallow = levels(written(pixels, photometric="rgb", extratags=tag))
        deep = written(pixels.astype(np.uint16) * 257, photometric="rgb", extratags=tag)
        assert _tiff.is_scientific_tiff(deep)
        np.testing.assert_array_equal(levels(deep), shallow)


class TestErrors:
    @pytest.mark.parametrize("name", ["5 channels"])
    def test_channels_that_are_no_picture(self, name):
        array, options = CASES[name]
        with pytest.raises(ImageError, match="row 0: the TIFF has 5 channels"):
            levels(written(array, **options))

    def test_two_channels_are_not_gray_and_alpha(self):
        data = written(DEEP[..., :2].transpose(2, 0, 1), ome=True, metadata={"axes": "CYX"})
        with pytest.raises(ImageError, match="has 2 channels"):
            levels(data)

    def test_without_tifffile(self, monkeypatch):
        deep_color, floats = written(DEEP[..., :3], photometric="rgb"), written(FLOATS[..., 0])
        monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
        monkeypatch.setattr(_tiff, "find_spec", lambda name: None)
        with pytest.raises(ImageError, match=r"sklearn-featx\[tiff\]"):
            levels(floats)
        negative = written(DEEP[..., 0], photometric="miniswhite", byteorder=">")
        monkeypatch.setattr(_foreign, "find_spec", lambda name: None)
        with pytest.raises(ImageError, match=r"a TIFF, which tifffile may read: pip install"):
            levels(negative)
        # Pillow reads 8 of its 16 bits.
        np.testing.assert_allclose(levels(deep_color), DEEP[..., :3] >> 8, atol=1)


class TestBitsOfOME:
    """The first page says how many bits all pages have."""

    twelve = DEEP[..., :3].transpose(2, 0, 1) >> 4

    def file(self, axes):
        return written(self.twelve, ome=True, metadata={"axes": axes, "SignificantBits": 12})

    def test_of_every_channel(self):
        data, wanted = self.file("CYX"), self.twelve / 4095 * 255
        np.testing.assert_allclose(levels(data), np.moveaxis(wanted, 0, 2), atol=1e-4)
        for channel in range(3):
            shown = levels(data, channels=(channel,))[..., 0]
            np.testing.assert_allclose(shown, wanted[channel], atol=1e-4)

    @pytest.mark.parametrize("axes", ["ZYX", "TYX"])
    def test_of_every_frame(self, axes):
        data = self.file(axes)
        picture = Image.open(io.BytesIO(data))
        for frame, values in enumerate(self.twelve):
            for entry in (data, picture):
                for channels in ("rgb", (0,)):
                    shown = levels(entry, frames=frame, channels=channels)[..., 0]
                    np.testing.assert_allclose(shown, values / 4095 * 255, atol=1e-4)


class TestPagesThatDeclareOtherValues:
    def file(self, **options):
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as pages:
            for i in range(3):
                own = {name: values[i] for name, values in options.items()}
                pages.write(DEEP[..., i] >> 6, metadata=None, contiguous=False, **own)
        return file.getvalue()

    def test_each_is_read_by_its_own(self):
        whites = (1023, 2046, 4092)
        data = self.file(extratags=[[(281, 3, 1, white, True)] for white in whites])
        for i, white in enumerate(whites):
            shown = levels(data, channels=(i,))[..., 0]
            np.testing.assert_allclose(shown, (DEEP[..., i] >> 6) / white * 255, atol=1e-4)
        with pytest.raises(ImageError, match=r"different values of black.*channels='each'"):
            levels(data, channels=(0, 1, 2))
        shown = levels(data, channels=(0, 1, 2), value_range=(0, 1023))
        np.testing.assert_allclose(shown, (DEEP[..., :3] >> 6) / 1023 * 255, atol=1e-4)

    def test_negatives_are_not_mixed_with_others(self):
        data = self.file(photometric=["minisblack", "miniswhite", "minisblack"])
        with pytest.raises(ImageError, match="different values of black"):
            levels(data, channels=(0, 1, 2), value_range=(0, 1023))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "I"])
def test_what_pillow_reads_is_left_to_it(mode, tmp_path):
    path = tmp_path / "picture.tif"
    picture = Image.new("L", (9, 7), 100)
    if mode == "I;16":
        picture = Image.fromarray(DEEP[..., 0])
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(path)
    assert not _tiff.is_scientific_tiff(path.read_bytes())
