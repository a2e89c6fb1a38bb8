"""Damaged NIfTI and TIFF files: an `ImageError` or an image, and bounded memory."""

import gzip
import io
import resource
import struct

import numpy as np
import pytest

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions, as_image_collection
from sklearn_featx.images.formats._nifti import nifti_slice

tifffile = pytest.importorskip("tifffile")
nibabel = pytest.importorskip("nibabel")

RNG = np.random.default_rng(0)
NUMBERS = RNG.integers(0, 4096, (24, 20, 3)).astype(np.uint16)


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def nifti(array, compressed=False, second=False):
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    data = kind(array, np.diag([2, -2, 3, 1])).to_bytes()
    return gzip.compress(data) if compressed else data


VOLUME = NUMBERS[:, :, :1].astype(np.int16)
FILES = {
    "tiff": tiff(NUMBERS, photometric="rgb"),
    "tiles": tiff(NUMBERS, photometric="rgb", tile=(16, 16), bigtiff=True, compression="zlib"),
    "float": tiff(NUMBERS[:, :, 0] / 4096),
    "ome": tiff(NUMBERS.transpose(2, 0, 1), ome=True, metadata={"axes": "CYX"}),
    "imagej": tiff(NUMBERS.transpose(2, 0, 1), imagej=True, metadata={"axes": "CYX"}),
    "nifti": nifti(VOLUME),
    "nifti 2": nifti(VOLUME, second=True),
    "nifti gz": nifti(VOLUME, compressed=True),
    "nifti float": nifti(VOLUME.astype(np.float32)),
}
OPTIONS = ReadOptions(window=(40, 400))


def damaged(data, rng):
    """Flip a bit, mostly of the header, or cut the end off."""
    changed = bytearray(data)
    kind = rng.integers(4)
    if kind == 0:
        return bytes(changed[: rng.integers(1, len(data))])
    at = rng.integers(len(data)) if kind == 1 else rng.integers(min(len(data), 400))
    if kind == 3:
        # The tags of a TIFF may be at its end.
        at = len(data) - 1 - rng.integers(min(len(data), 400))
    changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_and_truncations(name):
    rng = np.random.default_rng(1)
    before, shapes, errors = peak(), [], []
    for _ in range(60):
        images = as_image_collection([damaged(FILES[name], rng)], OPTIONS)
        try:
            shapes.append(images.load(0).shape)
        except ImageError as error:
            errors.append(str(error))
    assert len(shapes) + len(errors) == 60
    assert errors
    assert all("\n" not in text and len(text) < 400 for text in errors)
    assert peak() - before < 2**28


@pytest.mark.parametrize("side", [60_000, 2**31 - 1])
def test_a_tiff_that_claims_much(side):
    data = FILES["tiff"]
    for tag in (256, 257):
        at = data.index(struct.pack("<HH", tag, 3 if struct.pack("<HH", tag, 3) in data else 4))
        data = data[: at + 2] + struct.pack("<HII", 4, 1, side) + data[at + 12 :]
    before = peak()
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        as_image_collection([data]).load(0)
    assert peak() - before < 2**27


@pytest.mark.parametrize("compressed", [False, True])
def test_a_volume_that_claims_much(compressed):
    header = nibabel.Nifti2Header()
    header.set_data_dtype(np.int16)
    for shape, reason in (
        ((60_000, 60_000, 2), "MAX_IMAGE_PIXELS"),
        ((9000, 9000, 9000), "MAX_IMAGE_PIXELS|more than|truncated"),
        ((2000, 2000, 2000), "more than 4294967296" if compressed else "truncated"),
    ):
        header.set_data_shape(shape)
        header["vox_offset"] = 544
        data = header.binaryblock + bytes(2**20)
        content = gzip.compress(data) if compressed else data
        before = peak()
        with pytest.raises(ImageError, match=reason):
            nifti_slice(content, "axial", 0, 0, OPTIONS, None)
        assert peak() - before < 2**27


def test_a_bomb_is_not_decompressed_beyond_the_volume():
    content = gzip.compress(nifti(VOLUME) + bytes(2**26), compresslevel=1)
    before = peak()
    assert as_image_collection([content], OPTIONS).load(0).shape == (20, 24, 1)
    assert peak() - before < 2**25
