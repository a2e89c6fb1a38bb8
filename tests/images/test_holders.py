"""One picture has one row, whatever holds it; its scale is declared or given, never guessed."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from sklearn_featx._preprocess import Preprocess
from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions, as_image_collection

GRAY = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
COLORS = np.dstack([GRAY, GRAY[::-1], GRAY[:, ::-1]])
DEEP = GRAY.astype(np.uint16) * 257 + 77
RESIZED = Preprocess(resize=(6, 7), channels=3)

# Every mode of Pillow, with a format that keeps it and the numbers that it stands for (None: those
# of Pillow's conversion).
PICTURES = {
    "1": (Image.fromarray(GRAY > 99), "PNG", GRAY > 99),
    "L": (Image.fromarray(GRAY), "PNG", GRAY),
    "LA": (Image.fromarray(GRAY).convert("LA"), "PNG", None),
    "La": (Image.fromarray(GRAY).convert("LA").convert("La"), None, None),
    "P": (Image.fromarray(COLORS).quantize(64), "PNG", None),
    "PA": (Image.fromarray(COLORS).convert("P").convert("PA"), None, None),
    "RGB": (Image.fromarray(COLORS), "PNG", COLORS),
    "RGBA": (Image.fromarray(COLORS).convert("RGBA"), "PNG", None),
    "RGBa": (Image.fromarray(COLORS).convert("RGBA").convert("RGBa"), None, None),
    "RGBX": (Image.fromarray(COLORS).convert("RGBX"), "TIFF", COLORS),
    "CMYK": (Image.fromarray(COLORS).convert("CMYK"), "TIFF", None),
    "YCbCr": (Image.fromarray(COLORS).convert("YCbCr"), None, None),
    "HSV": (Image.fromarray(COLORS).convert("HSV"), None, None),
    "LAB": (Image.frombytes("LAB", (12, 10), COLORS.tobytes()), "TIFF", None),
    "I": (Image.fromarray(GRAY.astype(np.int32)), "TIFF", GRAY.astype(np.int32)),
    "F": (Image.fromarray(GRAY.astype(np.float32) / 240), "TIFF", GRAY.astype(np.float32) / 240),
    "I;16": (Image.fromarray(DEEP), "PNG", DEEP),
    "I;16L": (Image.frombytes("I;16L", (12, 10), DEEP.tobytes()), None, DEEP),
    "I;16N": (Image.frombytes("I;16N", (12, 10), DEEP.tobytes()), None, DEEP),
    "I;16B": (Image.fromarray(DEEP.astype(">u2")), "TIFF", DEEP.astype(">u2")),
}
RANGES = {"F": (0, 1), **dict.fromkeys(("I;16", "I;16L", "I;16N", "I;16B"), (0, 65535))}


def opened(path):
    """A picture that Pillow has opened and not yet decoded."""
    return Image.open(BytesIO(path.read_bytes()))


def holders(picture, file_format, numbers, folder):
    """The same picture, in all that can hold it."""
    found = {"picture": picture, "copy": picture.copy()}
    if file_format is not None:
        path = folder / f"picture.{file_format.lower()}"
        picture.save(path)
        loaded = opened(path)
        loaded.load()
        found |= {"path": str(path), "bytes": path.read_bytes(), "opened": opened(path)}
        found |= {"loaded": loaded, "copy of the file": opened(path).copy()}
    if numbers is not None:
        found["array"] = numbers
    return found


def test_every_mode_of_pillow_is_here():
    assert set(PICTURES) >= set(Image.MODES)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("mode", PICTURES)
def test_one_row_for_all_holders(mode, given, tmp_path):
    picture, file_format, numbers = PICTURES[mode]
    assert picture.mode == mode
    value_range = RANGES.get(mode, (0, 255)) if given else None
    found = holders(picture, file_format, numbers, tmp_path)
    images = as_image_collection(list(found.values()), ReadOptions(value_range=value_range))
    for i, name in enumerate(found):
        np.testing.assert_array_equal(images.load(i), images.load(0), err_msg=name)
        assert images.load(i).dtype == images.load(0).dtype
        resized = images.load_resized(i, RESIZED)
        np.testing.assert_array_equal(resized, images.load_resized(0, RESIZED), err_msg=name)


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "I", "F", "I;16", "I;16B"])
def test_a_range_holds_for_all_holders(mode, tmp_path):
    picture, file_format, numbers = PICTURES[mode]
    highest = {"F": 1.5, "I": 300, "I;16": 62_000, "I;16B": 62_000}.get(mode, 239)
    found = holders(picture, file_format, numbers, tmp_path)
    if mode in ("LA", "RGBA"):
        found["array"] = np.asarray(picture)[..., : 4 if mode == "RGBA" else 1]
    images = as_image_collection(list(found.values()), ReadOptions(value_range=(0, highest)))
    colors = np.asarray(picture if mode[0] in "IF" else picture.convert(mode.rstrip("A")))
    wanted = colors.reshape(10, 12, -1) * (255 / highest)
    for i, name in enumerate(found):
        np.testing.assert_allclose(images.load(i), wanted, rtol=1e-5, atol=1e-4, err_msg=name)
    keys = {as_image_collection(list(found.values())).digest(i) for i in range(len(found))}
    assert keys.isdisjoint(images.digest(i) for i in range(len(found)))


def test_a_range_of_files_is_part_of_their_name(tmp_path):
    path = tmp_path / "gray.png"
    Image.fromarray(GRAY).save(path)
    collections = [
        as_image_collection([str(path)], ReadOptions(value_range=r)) for r in (None, (0, 240))
    ]
    plain, ranged = collections
    content = plain.opened(0).content()
    assert content == ranged.opened(0).content()
    assert ranged.digest_of(0, content) == ranged.digest(0) != plain.digest(0)
    np.testing.assert_array_equal(ranged.opened(0).load(), ranged.load(0))


def test_values_beyond_a_range_are_refused_in_every_holder(tmp_path):
    path = tmp_path / "gray.png"
    Image.fromarray(GRAY).save(path)
    held = [str(path), path.read_bytes(), opened(path), Image.fromarray(GRAY), GRAY]
    images = as_image_collection(held, ReadOptions(value_range=(0, 100)))
    for i in range(len(held)):
        with pytest.raises(ImageError, match=rf"row {i}.*from 0 to 238, outside .* 0 to 100 "):
            images.load(i)


def test_eight_bits_are_not_read_on_a_scale_of_sixteen(tmp_path):
    path = tmp_path / "gray.png"
    Image.fromarray(GRAY).save(path)
    images = as_image_collection([str(path), opened(path)], ReadOptions(value_range=(0, 4095)))
    for i in range(2):
        with pytest.raises(ImageError, match=r"value_range=.*beyond the 8 bits"):
            images.load(i)
    with pytest.raises(ImageError, match=r"value_range=.*beyond the 8 bits"):
        as_image_collection([GRAY], ReadOptions(value_range=(0, 4095)))


def chunk(name, data):
    checked = name + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def png16(color, values, more=b""):
    """A PNG of 16 bits; Pillow writes none in color, and no sBIT."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), 16, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_color_of_16_bits_in_a_range_that_pillow_cannot_read():
    data = png16(2, np.dstack([DEEP] * 3))
    assert as_image_collection([data]).load(0).dtype == np.uint8
    with pytest.raises(ImageError, match=r"of this file.s 16 bits per channel .*pass arrays"):
        as_image_collection([data], ReadOptions(value_range=(0, 200))).load(0)


def test_significant_bits_of_a_png_do_not_change_its_scale():
    plain = as_image_collection([png16(0, DEEP)]).load(0)
    declared = as_image_collection([png16(0, DEEP, chunk(b"sBIT", b"\x0c"))]).load(0)
    np.testing.assert_array_equal(declared, plain)
    np.testing.assert_allclose(plain[:, :, 0], DEEP * (255 / 65535), rtol=1e-6)


OME = '<OME><Image><Pixels ID="0" SignificantBits="{}" Type="uint16"/></Image></OME>'


@pytest.mark.parametrize(
    ("values", "tags", "wanted"),
    [
        (DEEP // 16, {281: (3, 4095)}, (0, 4095)),
        (DEEP // 16, {280: (3, 4), 281: (3, 4200)}, (4, 4200)),
        (DEEP // 16, {341: (3, 4095)}, (0, 4095)),
        (DEEP // 16, {270: (2, OME.format(12))}, (0, 4095)),
        (DEEP, {270: (2, OME.format(16))}, (0, 65535)),
        (DEEP // 16, {270: (2, "12 bits, they say")}, (0, 65535)),
        (DEEP // 16, {281: (3, 0)}, (0, 65535)),
        (DEEP.astype(np.float32), {340: (11, 0.0), 341: (11, 62_000.0)}, (0, 62_000)),
        (DEEP.astype(np.int32), {341: (4, 70_000)}, (0, 70_000)),
        (DEEP.astype(np.int32), {281: (3, 65_535)}, (0, 65_535)),
    ],
)
def test_what_a_tiff_declares(values, tags, wanted, tmp_path):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, value) in tags.items():
        info.tagtype[tag] = kind
        info[tag] = value
    path = tmp_path / "declared.tif"
    Image.fromarray(values).save(path, tiffinfo=info)
    images = as_image_collection([str(path), path.read_bytes(), opened(path)])
    levels = (values.astype(float) - wanted[0]) * 255 / (wanted[1] - wanted[0])
    for i in range(3):
        np.testing.assert_allclose(images.load(i)[:, :, 0], levels, rtol=1e-5, atol=1e-4)
    # A copy has lost what the file declared: the user says it.
    copy = as_image_collection([opened(path).copy(), values], ReadOptions(value_range=wanted))
    for i in range(2):
        np.testing.assert_array_equal(copy.load(i), images.load(0))


def test_float_tiffs_are_not_stretched(tmp_path):
    dark, path = np.float32(GRAY / 2550), tmp_path / "dark.tif"
    Image.fromarray(dark).save(path)
    images = as_image_collection([str(path), dark])
    np.testing.assert_array_equal(images.load(0), images.load(1))
    assert images.load(0).max() < 25


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pictures_are_turned_as_shallow_ones(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, values in (("deep", GRAY.astype(np.uint16) * 257), ("plain", GRAY)):
        Image.fromarray(values).save(tmp_path / f"{name}.png", exif=exif)
    images = as_image_collection([str(tmp_path / f"{name}.png") for name in ("deep", "plain")])
    np.testing.assert_array_equal(images.load(0), images.load(1))


def test_alpha_is_on_the_scale_of_its_type():
    rgba = np.dstack([DEEP // 16, DEEP // 16, DEEP // 16, np.full_like(DEEP, 65535)])
    images = as_image_collection(rgba[None], ReadOptions(value_range=(0, 4095)))
    np.testing.assert_allclose(images.load(0)[:, :, 0], (DEEP // 16) * (255 / 4095), rtol=1e-6)
    listed = as_image_collection([rgba], ReadOptions(value_range=(0, 4095)))
    np.testing.assert_array_equal(listed.load(0), images.load(0))
    floats = as_image_collection([rgba / 65535, (rgba / 65535).astype(np.float32)])
    np.testing.assert_allclose(floats.load(0), floats.load(1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int64, np.float16, np.float32])
def test_eight_bits_in_any_type_are_one_picture(dtype):
    white = {"b": 1, "f": 1}.get(np.dtype(dtype).kind, 65535 if dtype is np.uint16 else 255)
    levels = GRAY if dtype is not bool else (GRAY > 99) * np.uint8(255)
    held = (levels / 255 * white).astype(dtype)
    loaded = as_image_collection(held[None]).load(0)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded[:, :, 0], levels)


def test_floats_are_resized_as_bytes_are_but_for_rounding(rng):
    levels = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    deep = np.clip(levels + rng.uniform(-0.01, 0.01, levels.shape), 0, 255) / 255
    images = as_image_collection([levels, deep])
    for recipe in (
        RESIZED,
        Preprocess(resize=20, crop=(18, 24), interpolation="bicubic"),
        Preprocess(resize=20, crop=(30, 30), channels=1),
    ):
        shallow, floats = (images.load_resized(i, recipe) for i in range(2))
        assert floats.dtype == np.float32
        assert shallow.shape == floats.shape
        assert np.abs(shallow - floats).max() < 2


def test_links_to_a_file_are_read_as_the_file(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "deep.png")
    images = as_image_collection([str(tmp_path / "deep.png"), str(tmp_path / "link.png")])
    np.testing.assert_array_equal(images.load(0), images.load(1))
