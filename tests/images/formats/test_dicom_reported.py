"""Problems that people reported of other readers of DICOM, tried on ours."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions, as_image_collection, decode

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


def test_scans_without_a_window_are_advised_to_take_one(make_dicom):
    # A value range of one patient rejects the next one.
    scans = [
        make_dicom((RAMP // 4).astype(np.int16), RescaleSlope=1, RescaleIntercept=-1024 - n)
        for n in range(2)
    ]
    images = as_image_collection(scans)
    for row in range(2):
        images.load(row)
    (report,) = images.range_use.reports()
    assert "values run from -1024 to -1" in report
    assert "window='soft'" in report
    assert "window=(center, width)" in report
    assert "window='full'" in report
    assert "value_range" not in report
    for window in ("soft", (0, 400), "full"):
        images = as_image_collection(scans, ReadOptions(window=window))
        images.load(0)
        assert images.range_use is None or images.range_use.reports() == []


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


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGBaseline8Bit"])
def test_planes_that_a_compressed_stream_has_not(make_dicom, syntax):
    # cornerstone3D 2462: PlanarConfiguration 1, in a header of JPEG 2000.
    from pydicom import uid
    from pydicom.encaps import encapsulate

    colors = np.kron(np.random.default_rng(0).integers(0, 200, (8, 8, 3)), np.ones((8, 8, 1)))
    colors, file = colors.astype(np.uint8), BytesIO()
    if syntax == "JPEG2000Lossless":
        Image.fromarray(colors).save(file, "JPEG2000", mct=1, no_jp2=True)
    else:
        Image.fromarray(colors).save(file, "JPEG", quality=100, subsampling=0)
    kind = "YBR_RCT" if syntax == "JPEG2000Lossless" else "YBR_FULL"
    options = {"PhotometricInterpretation": kind, "PixelData": encapsulate([file.getvalue()])}
    data = make_dicom(colors, getattr(uid, syntax), PlanarConfiguration=1, **options)
    assert np.abs(decode(data).astype(int) - colors).max() <= (0 if kind == "YBR_RCT" else 6)


def test_a_jpeg_whose_header_says_rgb(make_dicom):
    # pylibjpeg-libjpeg 29: green pictures, where the stream is YCbCr and the header says RGB.
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    colors, file = np.full((16, 16, 3), (200, 30, 90), np.uint8), BytesIO()
    Image.fromarray(colors).save(file, "JPEG", quality=100, subsampling=0)
    options = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    data = make_dicom(colors, JPEGBaseline8Bit, PixelData=encapsulate([file.getvalue()]), **options)
    assert np.abs(decode(data).astype(int) - colors).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_a_stream_of_other_channels_is_refused(make_dicom, kind):
    # pydicom 1520 and others: one channel taken for three, or the first third of the colors.
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

    gray, syntax = (RAMP >> 4).astype(np.uint8), (JPEGBaseline8Bit, JPEG2000Lossless)
    colors = np.dstack([gray] * 3)
    for stream, header in ((gray, colors), (colors, gray)):
        file = BytesIO()
        options = {} if kind == "JPEG" else {"no_jp2": True}
        Image.fromarray(stream).save(file, kind, **options)
        options = {"PhotometricInterpretation": "RGB"} if header is colors else {}
        pixels = encapsulate([file.getvalue()])
        data = make_dicom(header, syntax[kind != "JPEG"], PixelData=pixels, **options)
        n_channels = f"with {3 if header is colors else 1} channels, its compressed pixels 64 x 64"
        with pytest.raises(ImageError, match=n_channels):
            decode(data)


def test_a_stream_of_fewer_bits_than_are_allocated(make_dicom):
    # pydicom 2059: 8 bits in a stream of JPEG 2000, 16 allocated: "cannot reshape".
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    pixels, file = (RAMP >> 4).astype(np.uint8), BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", irreversible=False, no_jp2=True)
    options = {"PixelData": encapsulate([file.getvalue()]), "BitsStored": 8, "HighBit": 7}
    data = make_dicom(pixels.astype(np.uint16), JPEG2000Lossless, **options)
    np.testing.assert_array_equal(shown(data), pixels)


def test_a_table_of_16_bits_alone(make_dicom):
    # cornerstone 79, fo-dicom 949: a VOI table without a window, for 12 bits stored.
    entries = np.linspace(0, 65535, 2065).astype(np.uint16)
    item = voi_table(entries, 736, 16, "SS")
    options = {"BitsStored": 12, "HighBit": 11, "RescaleType": "LOG_E REL"}
    data = make_dicom(RAMP, VOILUTSequence=[item], **options)
    wanted = entries[(RAMP.astype(int) - 736).clip(0, 2064)] * (255 / 65535)
    np.testing.assert_allclose(shown(data), wanted, atol=1e-3)


@pytest.mark.parametrize("kind", ["SS", "US", "implicit", "units"])
def test_a_table_from_a_negative_value_on(make_dicom, kind):
    # pydicom 1073 and others: read as unsigned, each pixel gets the first entry.
    from pydicom.uid import ImplicitVRLittleEndian

    entries = np.linspace(4095, 0, 2048).astype(np.uint16)
    item = voi_table(entries, -1024, 12, "SS" if kind == "SS" else "US")
    syntax = ImplicitVRLittleEndian if kind == "implicit" else None
    values = RAMP.astype(np.int16) - 2048
    if kind == "units":
        data = make_dicom(RAMP, VOILUTSequence=[item], RescaleIntercept=-2048, RescaleSlope=1)
    else:
        data = make_dicom(values, syntax, VOILUTSequence=[item])
    wanted = entries[(values + 1024).clip(0, 2047)] * (255 / 4095)
    np.testing.assert_allclose(shown(data), wanted, atol=1e-3)


def test_numbers_of_a_soft_tissue_window(make_dicom):
    # dcm4che 1578: a ramp of stored values, where DICOM's LINEAR gives 20, 102, 128 and 255.
    units = np.array([[-160, -128, 0, 40, 266, 600]] * 2)
    options = {"RescaleIntercept": -1024, "RescaleSlope": 1, "WindowCenter": 40, "WindowWidth": 400}
    found = shown(make_dicom((units + 1024).astype(np.uint16), **options))
    assert found[0].round().tolist() == [0, 20, 102, 128, 255, 255]


def test_an_opened_data_set_says_what_to_pass(make_dicom):
    from sklearn_featx.images import as_image_collection

    scan = pydicom.dcmread(BytesIO(make_dicom(RAMP, PatientName="Secret^Ann")))
    for X in ([scan], [[scan]]):
        with pytest.raises(ImageError, match=r"dataset of pydicom\. Pass the path") as caught:
            as_image_collection(X)
        assert "Secret" not in str(caught.value)


def voi_table(entries, first, bits, kind):
    from pydicom.dataset import Dataset

    item = Dataset()
    first = first if kind == "SS" else first % 2**16
    item.add_new(0x00283002, kind, [len(entries), first, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return item


def decode_array(values, window):
    from sklearn_featx.images import as_image_collection

    return as_image_collection([values], ReadOptions(window=window)).load(0)
