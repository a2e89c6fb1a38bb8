"""Damaged DICOM files give a picture or an `ImageError`, in our words, within bounded memory."""

import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import decode

pydicom = pytest.importorskip("pydicom")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Words of other libraries, and of the header.
FOREIGN = ("numpy", "Traceback", "buffer", "unpack", "NoneType", "literal", "Doe")
# No copy of a picture of 32 x 32 needs more, whatever its header claims.
MOST_BYTES = 64 * 2**20


def kinds(make_dicom):
    """One small file of each kind: plain, implicit, windowed, compressed, deflated, multi-frame."""
    from pydicom import uid
    from pydicom.encaps import encapsulate

    rng = np.random.default_rng(0)
    words = rng.integers(0, 4096, (32, 32), dtype=np.uint16)
    name = {"PatientName": "Doe^Jane", "WindowCenter": 2000, "WindowWidth": 1000}
    yield make_dicom(words, **name, RescaleSlope=2, RescaleIntercept=-5)
    yield make_dicom(words, uid.ImplicitVRLittleEndian, **name)
    yield make_dicom(words, uid.DeflatedExplicitVRLittleEndian, **name)
    yield make_dicom(words, uid.ExplicitVRBigEndian, PixelData=words.astype(">u2").tobytes())
    yield make_dicom(words, NumberOfFrames=2, PixelData=words.tobytes() * 2)
    for syntax, kind in ((uid.JPEGBaseline8Bit, "JPEG"), (uid.JPEG2000Lossless, "JPEG2000")):
        file = BytesIO()
        gray = (words >> 4).astype(np.uint8)
        options = {} if kind == "JPEG" else {"irreversible": False, "no_jp2": True}
        Image.fromarray(gray).save(file, kind, **options)
        yield make_dicom(gray, syntax, PixelData=encapsulate([file.getvalue()]))
    scan = pydicom.dcmread(BytesIO(make_dicom(words)))
    scan.compress(uid.RLELossless)
    file = BytesIO()
    scan.save_as(file)
    yield file.getvalue()


@pytest.mark.parametrize(
    "change",
    [{"Columns": 31}, {"Rows": 31}, {"Columns": 16, "Rows": 16}, {"BitsAllocated": 8}],
    ids=str,
)
def test_pixels_that_the_header_leaves_over(make_dicom, change):
    # They would be a sheared or a wrong picture.
    words = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint16)
    scan = pydicom.dcmread(BytesIO(make_dicom(words)))
    for name, value in change.items():
        setattr(scan, name, value)
    if "BitsAllocated" in change:
        scan.BitsStored, scan.HighBit = 8, 7
    file = BytesIO()
    scan.save_as(file)
    with pytest.raises(ImageError, match="2048 bytes of pixels, and its header"):
        decode(file.getvalue())


@pytest.mark.parametrize("n_bytes", [60, 128])
def test_pixels_filled_up_with_zeros(make_dicom, n_bytes):
    words = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint16)
    filled = make_dicom(words, PixelData=words.tobytes() + bytes(n_bytes))
    np.testing.assert_array_equal(decode(filled), decode(make_dicom(words)))


def damaged(files, n, seed):
    rng = np.random.default_rng(seed)
    for i in range(n):
        data = bytearray(files[i % len(files)])
        if i % 5 == 4:
            yield bytes(data[: rng.integers(1, len(data))])
            continue
        # Half of the flips hit the header, where they matter most.
        last = min(len(data), 700) if i % 2 else len(data)
        data[rng.integers(last)] ^= 1 << rng.integers(8)
        yield bytes(data)


def check(data):
    levels, refusal = outcome(data)
    if refusal is not None:
        assert not any(word in refusal for word in FOREIGN), refusal
        assert len(refusal) < 300
        return "refused"
    assert levels.dtype in (np.uint8, np.float32)
    assert np.isfinite(levels).all()
    assert levels.min() >= 0
    assert levels.max() <= 255
    return "read"


def outcome(data):
    try:
        return decode(data), None
    except ImageError as error:
        return None, str(error)


def run(make_dicom, n, seed):
    files = list(kinds(make_dicom))
    assert {check(data) for data in files} == {"read"}
    tracemalloc.start()
    try:
        outcomes = [check(data) for data in damaged(files, n, seed)]
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert set(outcomes) == {"read", "refused"}


def test_damaged_files(make_dicom):
    run(make_dicom, 40, seed=0)


@pytest.mark.slow
def test_five_hundred_damaged_files(make_dicom):
    run(make_dicom, 500, seed=1)


def test_deep_sequences(make_dicom):
    """A header of a thousand nested sequences is refused, not followed to the end of the stack."""
    data = make_dicom(np.zeros((4, 4), np.uint16))
    start = data.index(b"\x28\x00\x02\x00")
    nested = b"\x28\x00\x00\x30SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    assert check(data[:start] + nested * 5000 + data[start:]) in ("read", "refused")
