import re
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_featx._preprocess import Preprocess
from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import decode
from sklearn_featx.images._decode import decode_resized
from sklearn_featx.images._geometry import resize_and_crop


@pytest.fixture
def jpeg(photo, encode):
    return encode(photo, "JPEG", quality=90)


def test_a_path_and_its_content_are_the_same(files):
    by_path = decode(files[0])
    np.testing.assert_array_equal(by_path, decode(Path(files[0]).read_bytes()))
    np.testing.assert_array_equal(by_path, decode(Path(files[0])))
    assert by_path.shape == (6, 8, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA", "I;16"])
@pytest.mark.parametrize("recipe", [(40, (32, 32)), ((64, 96), None), (None, (80, 80))])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_way_without_pixels_in_between(photo, encode, orientation, mode, recipe, channels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = photo.convert("L").convert(mode) if mode == "I;16" else photo.convert(mode)
    data = encode(picture, "PNG", exif=exif)
    preprocess = Preprocess(*recipe, channels=channels)
    wanted = resize_and_crop(decode(data), preprocess)
    np.testing.assert_array_equal(decode_resized(data, preprocess), wanted)


@pytest.mark.parametrize("kept", [1, 2, 20, 200, 0.3, 0.7, 0.95, -3, -1])
def test_truncated_jpegs_are_refused(jpeg, tmp_path, kept):
    path = tmp_path / "cut.jpg"
    path.write_bytes(jpeg[: int(kept * len(jpeg)) if isinstance(kept, float) else kept])
    with pytest.raises(ImageError, match=r"cut\.jpg") as caught:
        decode(path)
    assert caught.value.path == str(path)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_other_truncated_files_are_refused(photo, encode, file_format, share):
    data = encode(photo, file_format)
    with pytest.raises(ImageError):
        decode(data[: int(share * len(data))])


def test_damaged_bytes_end_in_a_picture_or_an_image_error(photo, encode, rng):
    for file_format in ("PNG", "GIF", "TIFF", "BMP", "JPEG", "WEBP", "ICO", "PCX", "TGA"):
        data = np.frombuffer(encode(photo.resize((16, 16)), file_format), np.uint8)
        for _ in range(20):
            damaged = data.copy()
            damaged[rng.integers(len(data), size=6)] = rng.integers(256, size=6)
            with suppress(ImageError):
                assert decode(damaged.tobytes()).dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"hello, I am text", "no image of a format"), (b"\xff\xd8\xff", "no image")],
)
def test_what_is_no_image(tmp_path, content, reason):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        decode(path)
    assert str(path) in str(caught.value)


def bomb(width, height):
    """A PNG of a hundred bytes that claims any size."""

    def chunk(name, data):
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


@pytest.mark.parametrize("side", [10_000, 14_000, 100_000])
def test_bombs_are_refused(side):
    wanted = (
        f"the image has {side**2} pixels, more than PIL.Image.MAX_IMAGE_PIXELS = 89478485, and may "
        "be a decompression bomb. If you trust the file, set PIL.Image.MAX_IMAGE_PIXELS = "
        f"{side**2}."
    )
    with pytest.raises(ImageError, match=re.escape(wanted)):
        decode(bomb(side, side))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_whatever_the_filters():
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        decode(bomb(10_000, 10_000))


def test_the_limit_of_pillow_is_respected(monkeypatch, files):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 47)
    with pytest.raises(ImageError, match=r"set PIL.Image.MAX_IMAGE_PIXELS = 48\.$"):
        decode(files[0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48)
    assert decode(files[0]).shape == (6, 8, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(files[0]).shape == (6, 8, 3)


@pytest.mark.parametrize("size", [(1, 1), (30000, 10), (10, 30000)])
def test_odd_sizes(encode, size):
    picture = Image.new("RGB", size, (1, 2, 3))
    pixels = decode(encode(picture, "JPEG", quality=95))
    assert pixels.shape == (size[1], size[0], 3)
    assert np.abs(pixels.astype(int) - (1, 2, 3)).max() < 5


@pytest.mark.parametrize("error", [PermissionError("not yours"), FileNotFoundError("gone")])
def test_unreadable_files_are_named(monkeypatch, files, error):
    def refuse(path):
        raise error

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match=str(error)) as caught:
        decode(files[0])
    assert caught.value.path == files[0]
    assert caught.value.__cause__ is error


def test_a_vanished_file_is_named(files):
    Path(files[0]).unlink()
    with pytest.raises(ImageError, match="FileNotFoundError") as caught:
        decode(files[0])
    assert caught.value.path == files[0]


@pytest.mark.parametrize(
    "error",
    [
        OSError, SyntaxError, ValueError, struct.error, EOFError, Image.DecompressionBombError,
        TypeError, KeyError, IndexError, ZeroDivisionError, OverflowError, MemoryError,
    ],
)  # fmt: skip
def test_whatever_a_plugin_raises(monkeypatch, jpeg, error):
    def fail(*args):
        raise error("odd")

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", fail)
    with pytest.raises(ImageError, match="odd") as caught:
        decode(jpeg)
    assert isinstance(caught.value.__cause__, error)


def test_warnings_do_not_decide_in_threads(photo, encode):
    # The test run turns warnings into errors, also in these threads.
    data = encode(photo, "JPEG")
    block = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x99" * 14
    damaged = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    wanted = decode(data)
    before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        for pixels in pool.map(decode, [damaged] * 20):
            np.testing.assert_array_equal(pixels, wanted)
    assert threading.active_count() <= before


def test_no_descriptor_is_left_open(files, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(Path(files[0]).read_bytes()[:40])
    table = Path("/proc/self/fd")
    if not table.exists():
        pytest.skip("this system does not list descriptors")
    before = len(list(table.iterdir()))
    for _ in range(20):
        decode(files[0])
        with pytest.raises(ImageError):
            decode(bad)
    assert len(list(table.iterdir())) <= before


@pytest.mark.parametrize(("name", "kind"), [("PNG", "broken data stream"), ("GIF", "data stream")])
def test_damaged_content_has_a_way_out(name, kind):
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format=name)
    said = set()
    for at in range(90, len(file.getvalue()), 50):
        data = bytearray(file.getvalue())
        data[at] ^= 255
        try:
            decode(bytes(data))
        except ImageError as error:
            said.add(str(error))
    about_streams = [text for text in said if kind in text]
    assert about_streams
    assert all("Fetch the file again, or set PIL.ImageFile.LOAD" in text for text in about_streams)
