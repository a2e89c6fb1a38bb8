import struct
import sys
import warnings
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions, as_image_collection, decode

# Versions of two digits compare as text.
READS_YCBCR = pytest.mark.skipif(PIL.__version__ < "12", reason="this Pillow cannot read these")
WRITES_16_BITS = pytest.mark.skipif(PIL.__version__ < "11", reason="this Pillow writes no 16 bits")

# Transpose that stores a picture such that this EXIF orientation turns it upright.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def seen(source):
    """Pixels of file content, or of a picture in memory."""
    return decode(source) if isinstance(source, bytes) else as_image_collection([source]).load(0)


def difference(pixels, wanted):
    """Mean absolute difference in levels, shapes being equal."""
    wanted = np.asarray(wanted)
    wanted = wanted[:, :, None] if wanted.ndim == 2 else wanted
    assert pixels.dtype in (np.uint8, np.float32)
    assert pixels.shape == wanted.shape
    return np.abs(pixels.astype(float) - wanted).mean()


@pytest.fixture
def gray(photo):
    return np.asarray(photo.convert("L")).astype(int)


@pytest.fixture
def half(photo):
    """An alpha channel that shows the left half."""
    alpha = np.zeros((photo.height, photo.width), np.uint8)
    alpha[:, : photo.width // 2] = 255
    return Image.fromarray(alpha)


def whitened(pixels):
    pixels = np.array(pixels)
    pixels[:, pixels.shape[1] // 2 :] = 255
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(photo, encode, orientation, file_format):
    turn = STORED[orientation]
    stored = photo if turn is None else photo.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(file_format, {})
    pixels = decode(encode(stored, file_format, exif=exif, **options))
    assert difference(pixels, photo) < (5 if file_format == "JPEG" else 1e-9)


def test_pictures_in_memory_keep_their_orientation(photo, encode, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    photo.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    with Image.open(path) as opened:
        assert difference(seen(opened), photo) == 0


@pytest.mark.parametrize(
    ("mode", "file_format", "tolerance"),
    [
        ("CMYK", "JPEG", 6),
        ("CMYK", "TIFF", 0),
        ("YCbCr", "JPEG", 8),
        pytest.param("YCbCr", "TIFF", 2, marks=READS_YCBCR),
        ("RGBX", "TIFF", 0),
        ("P", "GIF", 20),
        ("P", "PNG", 20),
        ("RGB", "BMP", 0),
        ("RGB", "PPM", 0),
    ],
)
def test_color_files_become_rgb(photo, encode, mode, file_format, tolerance):
    assert difference(decode(encode(photo.convert(mode), file_format)), photo) <= tolerance


@pytest.mark.parametrize(
    ("mode", "tolerance"),
    [("RGBA", 0), ("RGBa", 0), ("CMYK", 0), ("YCbCr", 2), ("HSV", 4), ("P", 20), ("RGBX", 0)],
)
def test_pictures_of_any_mode_become_rgb(photo, mode, tolerance):
    picture = photo.convert("RGBA").convert(mode) if mode == "RGBa" else photo.convert(mode)
    assert picture.mode == mode
    assert difference(seen(picture), photo) <= tolerance


@pytest.mark.parametrize("as_file", [True, False])
def test_lab_becomes_rgb(photo, encode, as_file):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    picture = ImageCms.profileToProfile(photo, srgb, lab, outputMode="LAB")
    assert difference(seen(encode(picture, "TIFF") if as_file else picture), photo) < 1


@pytest.mark.parametrize("mode", ["1", "L"])
def test_gray_stays_one_channel(photo, encode, mode):
    picture = photo.convert(mode)
    assert difference(decode(encode(picture, "PNG")), picture.convert("L")) == 0


@pytest.mark.parametrize(
    "file_format", ["PNG", "TIFF", pytest.param("PPM", marks=WRITES_16_BITS), None]
)
def test_sixteen_bits_are_scaled(gray, encode, file_format):
    picture = Image.fromarray((gray * 257).astype(np.uint16))
    assert difference(seen(encode(picture, file_format) if file_format else picture), gray) == 0


@pytest.mark.parametrize("file_format", ["TIFF", None])
def test_big_endian_sixteen_bits_are_scaled(gray, encode, file_format):
    picture = Image.fromarray((gray * 257).astype(">u2"))
    assert picture.mode == "I;16B"
    assert difference(seen(encode(picture, file_format) if file_format else picture), gray) == 0


def test_sixteen_bits_are_not_rounded_to_eight(encode):
    values = np.arange(60_000, 60_096, dtype=np.uint16).reshape(8, 12)
    pixels = decode(encode(Image.fromarray(values), "PNG"))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, :, 0], values * (255 / 65535), rtol=1e-6)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_one_hot_pixel_does_not_change_the_others(gray, encode, file_format):
    values = (gray * 4095 // 255).astype(np.uint16)
    before = decode(encode(Image.fromarray(values), file_format))
    values[0, 0] = 60_000
    after = decode(encode(Image.fromarray(values), file_format))
    np.testing.assert_array_equal(after[1:], before[1:])


def test_a_dark_sixteen_bit_png_stays_dark(encode):
    pixels = decode(encode(Image.fromarray(np.full((4, 4), 2570, np.uint16)), "PNG"))
    assert (pixels == 10).all()


def test_packed_twelve_bit_tiff(gray):
    height, width = gray.shape
    values = gray * 4095 // 255
    values[0, 0] = 0xFFF
    first, second = values.ravel()[::2], values.ravel()[1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    data = packed.astype(np.uint8).tobytes()
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, height), (279, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    gray[0, 0] = 255
    pixels = decode(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    assert difference(pixels, gray) < 1


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.int32([[0, 128, 255]]), [[0, 128, 255]]),
        (np.float32([[0, 0.2, 1]]), [[0, 51, 255]]),
        (np.float32([[0, 0.1, 0.2]]), [[0, 25.5, 51]]),
        (np.float32([[0.5, 0.5, 0.5]]), [[127.5, 127.5, 127.5]]),
    ],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_rule_for_int_and_float_pictures(encode, values, wanted, as_file):
    picture = Image.fromarray(values)
    pixels = seen(encode(picture, "TIFF") if as_file else picture)
    np.testing.assert_allclose(pixels[:, :, 0], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "value_range", "wanted"),
    [
        (np.int32([[0, 257, 65535]]), (0, 65535), [[0, 1, 255]]),
        (np.int32([[-100, 0, 100]]), (-100, 100), [[0, 127.5, 255]]),
        (np.int32([[0, 50000, 100000]]), (0, 100000), [[0, 127.5, 255]]),
        (np.float32([[-1, 0, 1]]), (-1, 1), [[0, 127.5, 255]]),
        (np.float32([[5, 5, 5]]), (0, 5), [[255, 255, 255]]),
    ],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_int_and_float_pictures_of_other_ranges(encode, values, value_range, wanted, as_file):
    picture = Image.fromarray(values)
    source = encode(picture, "TIFF") if as_file else picture
    with pytest.raises(
        ImageError, match=r"outside the range 0 to .*Pass reader=ImageReader\(value_range="
    ):
        seen(source)
    pixels = as_image_collection([source], ReadOptions(value_range=value_range)).load(0)
    np.testing.assert_allclose(pixels[:, :, 0], wanted, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_float_pictures_must_be_finite(bad):
    with pytest.raises(ImageError, match=r"row 0: .*(NaN|infinity)"):
        seen(Image.fromarray(np.float32([[0, bad]])))


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [("RGBA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP"), ("LA", "PNG"), ("LA", "TIFF")],
)
def test_alpha_in_files_is_over_white(photo, half, encode, mode, file_format):
    picture = photo.convert(mode)
    picture.putalpha(half)
    options = {"lossless": True} if file_format == "WEBP" else {}
    opaque = photo if mode == "RGBA" else photo.convert("L")
    pixels = decode(encode(picture, file_format, **options))
    assert difference(pixels, whitened(opaque)) == 0


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA"])
def test_alpha_in_pictures_is_over_white(photo, half, mode):
    straight = {"RGBa": "RGBA", "La": "LA", "PA": "PA"}[mode]
    picture = photo.convert("P").convert("PA") if mode == "PA" else photo.convert(straight)
    picture.putalpha(half)
    opaque = photo.convert("L") if mode == "La" else photo
    tolerance = 20 if mode == "PA" else 0
    assert difference(seen(picture.convert(mode)), whitened(opaque)) <= tolerance


def test_half_transparent_is_half_white():
    assert (seen(Image.new("RGBA", (2, 2), (100, 0, 200, 51))) == (224, 204, 244)).all()


@pytest.mark.parametrize("as_bytes", [True, False])
def test_transparent_palette_colors(photo, encode, as_bytes):
    picture = photo.quantize(255)
    indices = np.asarray(picture).astype(np.uint8) + 1
    indices[:, photo.width // 2 :] = 0
    shifted = Image.fromarray(indices)
    shifted.putpalette([7, 7, 7, *picture.getpalette()[: 255 * 3]])
    assert shifted.mode == "P"
    key = bytes([0]) if as_bytes else 0
    pixels = decode(encode(shifted, "PNG", transparency=key))
    assert difference(pixels, whitened(photo)) < 8
    if not as_bytes:
        assert difference(decode(encode(shifted, "GIF", transparency=0)), whitened(photo)) < 8


def test_palette_with_alpha(photo, half, encode):
    picture = photo.convert("RGBA")
    picture.putalpha(half)
    quantized = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
    assert quantized.mode == "P"
    assert difference(decode(encode(quantized, "PNG")), whitened(photo)) < 8
    # In memory the palette itself has alpha.
    assert difference(seen(quantized), whitened(photo)) < 8


@pytest.mark.parametrize(("mode", "key"), [("L", 0), ("RGB", (0, 0, 0)), ("I;16", 0), ("1", 0)])
def test_transparent_color_without_alpha(photo, encode, mode, key):
    opaque = np.maximum(np.asarray(photo.convert("RGB" if mode == "RGB" else "L")), 1)
    opaque = np.full_like(opaque, 255) if mode == "1" else opaque
    stored = opaque.copy()
    stored[:, photo.width // 2 :] = 0
    if mode == "I;16":
        picture = Image.fromarray(stored.astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(stored).convert(mode)
    pixels = decode(encode(picture, "PNG", transparency=key))
    assert difference(pixels, whitened(opaque)) == 0


def png(bits, color, raw, width, key=b""):
    """Write a PNG by hand: Pillow writes neither 4-bit gray nor 16-bit RGB with tRNS."""

    def chunk(name, data):
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = b"".join(b"\0" + row.tobytes() for row in raw)
    header = struct.pack(">IIBBBBB", width, len(raw), bits, color, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + (chunk(b"tRNS", key) if key else b"")
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("hidden", [0, 1])
def test_transparent_gray_of_few_bits(bits, hidden):
    levels = np.arange(8) % 2**bits
    packed = np.packbits((levels[:, None] >> np.arange(bits)[::-1] & 1).ravel())
    pixels = decode(png(bits, 0, packed[None], 8, struct.pack(">H", hidden)))
    wanted = np.where(levels == hidden, 255, levels * 255 // (2**bits - 1))
    np.testing.assert_array_equal(pixels[0, :, 0], wanted)


def test_transparent_sixteen_bit_rgb():
    raw = np.array([[[0x1234] * 3, [0x0001] * 3, [0x8000] * 3]], ">u2")
    pixels = decode(png(16, 2, raw, 3, struct.pack(">HHH", 0x1234, 0x1234, 0x1234)))
    np.testing.assert_array_equal(pixels[0, :, 0], [255, 0, 128])


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_many(photo, encode, file_format):
    others = [Image.new("RGB", photo.size, color) for color in ("red", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(photo, file_format, save_all=True, append_images=others, **options)
    assert difference(decode(data), photo) < 20


def test_damaged_exif_is_no_damage(photo, encode):
    data = encode(photo, "JPEG", quality=95)
    block = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x99" * 14
    damaged = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert difference(decode(damaged), photo) < 5


@pytest.mark.parametrize("error", [SyntaxError, struct.error, KeyError])
def test_unreadable_exif_is_no_orientation(photo, encode, monkeypatch, error):
    def fail(self):
        raise error("odd")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert difference(decode(encode(photo, "BMP")), photo) == 0


def test_lab_without_color_management(photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.ImageCms", None)
    monkeypatch.delattr("PIL.ImageCms", raising=False)
    with pytest.raises(ImageError, match="LittleCMS"):
        seen(Image.new("LAB", (2, 2)))
