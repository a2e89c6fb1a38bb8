"""Problems that people reported of other readers of DICOM, tried on ours."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sklearn_featx.images import ReadOptions, decode

pydicom = pytest.importorskip("pydicom")

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def shown(data, **options):
    return decode(data, ReadOptions(**options))[:, :, 0].astype(np.float64)


def linear(values, center, width):
    return ((values - (center - 0.5)) / (width - 1) * 255 + 127.5).clip(0, 255)


def test_monochrome1_is_inverted_after_the_window(make_dicom):
    # cornerstone3D 2215, bioformats 3620: inverted before the window, or twice.
    kind = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    data = make_dicom(RAMP, WindowCenter=1000, WindowWidth=500, **kind)
    np.testing.assert_allclose(shown(data), 255 - linear(RAMP, 1000, 500), atol=1e-3)


@pytest.mark.parametrize("center", [[60, 400], [60.5, -600, 3]])
def test_several_windows(make_dicom, center):
    # pydicom 330, highdicom 210, pymedphys 1906: errors of type MultiValue.
    width = [400, 2000, 90][: len(center)]
    data = make_dicom(RAMP, WindowCenter=center, WindowWidth=width)
    np.testing.assert_allclose(shown(data), linear(RAMP, center[0], 400), atol=1e-3)


def test_a_slope_below_one(make_dicom):
    # ImageMagick 477: a slope of whole numbers is 0, the picture is blank.
    data = make_dicom(RAMP, RescaleSlope="0.25", RescaleIntercept="-7.5")
    found = shown(data, window=(500, 900))
    np.testing.assert_allclose(found, linear(RAMP * 0.25 - 7.5, 500, 900), atol=1e-3)


def test_a_missing_intercept(make_dicom):
    # monai-deploy 187: files of converters lack one of the two.
    data = make_dicom(RAMP, RescaleSlope=2)
    np.testing.assert_allclose(
        shown(data, window=(500, 900)), linear(RAMP * 2, 500, 900), atol=1e-3
    )


def test_8_bits_without_a_window_are_not_black(make_dicom):
    # fo-dicom 816.
    pixels = (RAMP >> 4).astype(np.uint8)
    np.testing.assert_array_equal(shown(make_dicom(pixels)), pixels)


@pytest.mark.parametrize("implicit", [False, True])
def test_no_preamble_and_no_meta_information(make_dicom, implicit):
    # pydicom 78, 150, 860: an error, or pixels in no transfer syntax.
    scan = pydicom.dcmread(BytesIO(make_dicom(RAMP, WindowCenter=1000, WindowWidth=500)))
    scan.SpecificCharacterSet = "ISO_IR 100"
    file = BytesIO()
    del scan.file_meta, scan.preamble
    scan.save_as(file, implicit_vr=implicit, little_endian=True)
    assert file.getvalue()[:2] == b"\x08\0"
    np.testing.assert_allclose(shown(file.getvalue()), linear(RAMP, 1000, 500), atol=1e-3)


def test_preamble_without_a_transfer_syntax(make_dicom):
    # pydicom 258.
    data = make_dicom(RAMP, "1.2.840.10008.1.2", WindowCenter=1000, WindowWidth=500)
    start = data.index(b"\x02\0\x10\0UI")
    length = int.from_bytes(data[140:144], "little") - 26
    cut = data[:140] + length.to_bytes(4, "little") + data[144:start] + data[start + 26 :]
    np.testing.assert_array_equal(shown(cut), shown(data))


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_ybr_in_a_compressed_stream(make_dicom, kind):
    # pydicom 1399, 1790, 2118, cornerstoneWADOImageLoader 308: green pictures.
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

    colors = np.zeros((64, 64, 3), np.uint8)
    colors[:32, :, 0], colors[32:, :32, 1], colors[32:, 32:] = 200, 150, 90
    file = BytesIO()
    if kind == "JPEG":
        Image.fromarray(colors).save(file, "JPEG", quality=95, subsampling=1)
        options = {"PhotometricInterpretation": "YBR_FULL_422"}
    else:
        ybr = np.asarray(Image.fromarray(colors).convert("YCbCr"))
        Image.fromarray(ybr.copy()).save(file, "JPEG2000", mct=0, no_jp2=True)
        options = {"PhotometricInterpretation": "YBR_FULL"}
    syntax = JPEGBaseline8Bit if kind == "JPEG" else JPEG2000Lossless
    pixels = encapsulate([file.getvalue()])
    data = make_dicom(colors, syntax, PixelData=pixels, PlanarConfiguration=0, **options)
    difference = np.abs(decode(data).astype(int) - colors)
    assert np.median(difference) <= 2
    assert (difference > 8).mean() < 0.1


def test_unsigned_dose_with_the_highest_bit(make_dicom):
    # Evil-DICOM 107: read as signed, half of the dose is negative.
    words = (RAMP * 16).astype(np.uint16)
    options = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "Modality": "RTDOSE"}
    data = make_dicom(words, DoseGridScaling="0.001", **options)
    np.testing.assert_allclose(shown(data), words * (255 / 65535), atol=1e-3)
    found = shown(data, value_range=(0, 66))
    np.testing.assert_allclose(found, words * (0.001 * 255 / 66), atol=1e-2)


def test_signed_jpeg_2000_of_13_bits(make_dicom):
    # pydicom 1149: the stream says unsigned, the header signed.
    from pydicom.data import get_testdata_file

    path = get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)
    scan = pydicom.dcmread(path)
    units = scan.pixel_array * float(scan.RescaleSlope) + float(scan.RescaleIntercept)
    assert units.min() == -2000
    np.testing.assert_array_equal(
        decode(path, ReadOptions(window=(40, 400))),
        decode_array(units, (40, 400)),
    )


def decode_array(values, window):
    from sklearn_featx.images import as_image_collection

    return as_image_collection([values], ReadOptions(window=window)).load(0)
