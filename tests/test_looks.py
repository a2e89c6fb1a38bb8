"""Files of every depth, orientation, transparency and color space look as a person sees them.

Features of such a file and of the same picture in plain 8-bit RGB: cosine at least 0.99.
"""

import struct

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms
from sklearn.datasets import load_sample_images

from sklearn_featx import PretrainedFeatureExtractor

# Versions of two digits compare as text.
READS_YCBCR = pytest.mark.skipif(PIL.__version__ < "12", reason="this Pillow cannot read these")

# Transpose that stores a picture such that this EXIF orientation turns it upright.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def photo():
    """A real photograph, 224 x 224 pixels."""
    return Image.fromarray(load_sample_images().images[1]).resize((224, 224))


@pytest.fixture(scope="module")
def cosine():
    """Return a function from two files or pictures to the cosine of their features."""
    extractor = PretrainedFeatureExtractor(normalize=True)

    def compare(one, other):
        first, second = extractor.transform([one, other])
        return float(first @ second)

    return compare


def levels(photo):
    return np.asarray(photo.convert("L")).astype(int)


def packed_twelve_bits(photo, path):
    """Write a TIFF of 12 bits a pixel by hand: Pillow does not."""
    height, width = levels(photo).shape
    values = levels(photo) * 4095 // 255
    values[0, 0] = 0xFFF
    first, second = values.ravel()[::2], values.ravel()[1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    data = packed.astype(np.uint8).tobytes()
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, height), (279, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)


def save(name, pixels):
    """Return a function that saves an array made of a photograph's gray levels."""

    def write(photo, path):
        Image.fromarray(pixels(levels(photo))).save(path.with_suffix(name))
        return path.with_suffix(name)

    return write


DEEP = {
    "I;16 PNG": save(".png", lambda gray: (gray * 257).astype(np.uint16)),
    "I;16 TIFF": save(".tif", lambda gray: (gray * 257).astype(np.uint16)),
    "I;16B TIFF": save(".tif", lambda gray: (gray * 257).astype(">u2")),
    "float TIFF": save(".tif", lambda gray: (gray / 255).astype(np.float32)),
    "packed 12-bit TIFF": packed_twelve_bits,
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_eight_bits(kind, photo, cosine, tmp_path):
    path = tmp_path / "deep.tif"
    path = DEEP[kind](photo, path) or path
    assert cosine(path, photo.convert("L").convert("RGB")) >= 0.99


OF_A_RANGE = {
    "12 of 16 bits TIFF": (lambda gray: (gray * 4095 // 255).astype(np.uint16), (0, 4095)),
    "12 of 16 bits PNG": (lambda gray: (gray * 4095 // 255).astype(np.uint16), (0, 4095)),
    "int32 TIFF": (lambda gray: (gray * 257).astype(np.int32), (0, 65535)),
    "float TIFF": (lambda gray: (gray * 1.0 - 300).astype(np.float32), (-300, -45)),
}


@pytest.mark.parametrize("kind", OF_A_RANGE)
def test_files_whose_range_is_given(kind, photo, tmp_path):
    pixels, value_range = OF_A_RANGE[kind]
    path = save(f".{kind[-4:].strip().lower()}", pixels)(photo, tmp_path / "deep")
    extractor = PretrainedFeatureExtractor(normalize=True)
    plain = extractor.transform([photo.convert("L")])[0]
    deep = extractor.set_params(reader__value_range=value_range).transform([path])[0]
    assert plain @ deep >= 0.99


@pytest.mark.parametrize("orientation", STORED)
def test_orientations_2_to_8(orientation, photo, cosine, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = photo.transpose(STORED[orientation])
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=98)
    assert cosine(tmp_path / "turned.jpg", photo) >= 0.99
    # The test can fail: as it is stored, the picture looks different.
    assert cosine(turned, photo) < 0.99


def left_half(photo):
    """Return an alpha channel that shows the left half."""
    alpha = np.zeros((photo.height, photo.width), np.uint8)
    alpha[:, : photo.width // 2] = 255
    return Image.fromarray(alpha)


def over_white(picture):
    straight = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), straight).convert("RGB")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency(mode, photo, cosine, tmp_path):
    # Pictures with a palette are compared with their own 256 colors.
    picture = photo.convert({"LA": "LA", "PA": "P"}.get(mode, "RGBA"))
    picture = picture.convert("PA") if mode == "PA" else picture
    picture.putalpha(left_half(photo))
    picture = picture.quantize(256, method=Image.Quantize.FASTOCTREE) if mode == "P" else picture
    assert picture.mode == mode
    if mode != "PA":
        picture.save(tmp_path / "half.png")
        assert cosine(tmp_path / "half.png", over_white(picture)) >= 0.99
    assert cosine(picture, over_white(picture)) >= 0.99


@pytest.mark.parametrize("mode", ["CMYK", "LAB", pytest.param("YCbCr", marks=READS_YCBCR)])
def test_color_spaces(mode, photo, cosine, tmp_path):
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(photo, *profiles, outputMode="LAB")
    else:
        picture = photo.convert(mode)
    picture.save(tmp_path / "color.tif")
    assert cosine(tmp_path / "color.tif", photo) >= 0.99
    if mode == "CMYK":
        picture.save(tmp_path / "color.jpg", quality=98)
        assert cosine(tmp_path / "color.jpg", photo) >= 0.99
