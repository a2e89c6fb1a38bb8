"""DICOM files: each step of the display by exact values, refusals, and missing packages."""

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest

from sklearn_featx.exceptions import ImageError, InputError
from sklearn_featx.images import ReadOptions, as_image_collection, decode

pydicom = pytest.importorskip("pydicom")

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)
WIDE = np.arange(65536, dtype=np.uint16).reshape(128, 512)


def linear(values, center, width):
    """PS3.3, C.11.2.1.2.1, as it stands there."""
    x = np.asarray(values, np.float64)
    y = ((x - (center - 0.5)) / (width - 1) + 0.5) * 255
    y[x <= center - 0.5 - (width - 1) / 2] = 0
    y[x > center - 0.5 + (width - 1) / 2] = 255
    return y


def shown(data, **options):
    return decode(data, ReadOptions(**options))[:, :, 0]


def syntax_element(syntax):
    data = syntax.encode() + b"\0" * (len(syntax) % 2)
    return len(data).to_bytes(2, "little") + data


def table(entries, first=0, bits=16, **more):
    from pydicom.dataset import Dataset

    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = np.asarray(entries, "<u2").tobytes()
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return [item]


class TestWindow:
    def test_the_first_of_the_file(self, make_dicom, hounsfield):
        data = make_dicom(hounsfield, WindowCenter=[40, 300], WindowWidth=[400, 2000])
        np.testing.assert_allclose(shown(data), linear(hounsfield, 40, 400), atol=1e-4)

    def test_that_of_the_user(self, make_dicom, hounsfield):
        data = make_dicom(hounsfield, WindowCenter=40, WindowWidth=400)
        found = shown(data, window=(100, 77.5))
        np.testing.assert_allclose(found, linear(hounsfield, 100, 77.5), atol=1e-4)

    @pytest.mark.parametrize(
        ("name", "center", "width"),
        [("lung", -600, 1500), ("bone", 400, 1800), ("brain", 40, 80), ("soft", 40, 400)],
    )
    def test_by_name_in_hounsfield_units(self, make_dicom, hounsfield, name, center, width):
        data = make_dicom((hounsfield + 1024).astype(np.uint16), RescaleIntercept=-1024)
        found = shown(data, window=name)
        np.testing.assert_allclose(found, linear(hounsfield, center, width), atol=1e-4)

    def test_full_is_all_of_the_stored_bits(self, make_dicom):
        data = make_dicom(RAMP, WindowCenter=40, WindowWidth=8, BitsStored=12, HighBit=11)
        np.testing.assert_allclose(shown(data, window="full"), RAMP * (255 / 4095), atol=1e-4)

    def test_by_name_is_refused_without_hounsfield_units(self, make_dicom, hounsfield):
        data = make_dicom(hounsfield, Modality="MR")
        with pytest.raises(ImageError, match="Hounsfield"):
            shown(data, window="lung")
        assert shown(make_dicom(hounsfield, Modality="PT", RescaleType="HU"), window="lung").any()

    @pytest.mark.parametrize("intercept", [{}, {"RescaleIntercept": None}])
    def test_by_name_is_refused_for_stored_values(self, make_dicom, hounsfield, intercept):
        data = make_dicom((hounsfield + 1024).astype(np.uint16), RescaleSlope=1, **intercept)
        with pytest.raises(ImageError, match="it has no RescaleIntercept"):
            shown(data, window="lung")
        assert shown(data, window=(424, 1500)).any()

    @pytest.mark.parametrize("window", [(40,), (40, 0), "liver", (40, "x"), 7, (np.nan, 9)])
    def test_invalid(self, window):
        with pytest.raises(InputError, match="window="):
            ReadOptions(window=window)

    def test_with_a_value_range(self):
        with pytest.raises(InputError, match="both name"):
            ReadOptions(window=(40, 400), value_range=(0, 1))

    def test_value_range_in_the_units_of_the_scanner(self, make_dicom, hounsfield):
        data = make_dicom(hounsfield)
        found = shown(data, value_range=(-1024, 3000))
        np.testing.assert_allclose(found, (hounsfield + 1024) * (255 / 4024), atol=1e-3)
        with pytest.raises(ImageError, match="outside the range"):
            shown(data, value_range=(0, 3000))

    @pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
    def test_functions(self, make_dicom, function):
        data = make_dicom(RAMP, WindowCenter=100, WindowWidth=50, VOILUTFunction=function)
        exact = (RAMP.astype(float) - 75).clip(0, 50) * (255 / 50)
        sigmoid = 255 / (1 + np.exp(-4 * (RAMP.astype(float) - 100) / 50))
        wanted = exact if function == "LINEAR_EXACT" else sigmoid
        np.testing.assert_allclose(shown(data), wanted, atol=1e-3)

    def test_a_width_of_one_is_a_threshold(self, make_dicom):
        found = shown(make_dicom(RAMP, WindowCenter=100, WindowWidth=1))
        np.testing.assert_array_equal(found, np.where(RAMP > 99.5, 255, 0))

    def test_a_width_of_zero_is_none(self, make_dicom):
        found = shown(make_dicom(RAMP.astype(np.uint8), WindowCenter=100, WindowWidth=0))
        np.testing.assert_array_equal(found, RAMP)

    def test_for_presentation_is_windowed_once(self, make_dicom):
        options = {"PresentationIntentType": "FOR PRESENTATION", "Modality": "DX"}
        data = make_dicom(RAMP, WindowCenter=100, WindowWidth=50, **options)
        np.testing.assert_allclose(shown(data), linear(RAMP, 100, 50), atol=1e-3)
        # The user's window replaces that of the file.
        found = shown(data, window=(60, 70))
        np.testing.assert_allclose(found, linear(RAMP, 60, 70), atol=1e-3)


class TestSameRow:
    def test_file_bytes_and_array(self, make_dicom, hounsfield, tmp_path):
        data = make_dicom((hounsfield + 1024).astype(np.uint16), RescaleIntercept=-1024)
        path = tmp_path / "without suffix"
        path.write_bytes(data)
        options = ReadOptions(window="lung")
        X = [path, data, hounsfield, hounsfield.astype(np.float64)]
        images = as_image_collection(X, options)
        levels = [images.load(i) for i in range(4)]
        for other in levels[1:]:
            np.testing.assert_array_equal(levels[0], other)
        stacked = as_image_collection(hounsfield[np.newaxis], options).load(0)
        np.testing.assert_array_equal(levels[0], stacked)
        assert images.n_pixels(0) == images.n_pixels(1) == hounsfield.size

    def test_large_pictures_are_looked_up_in_a_table(self, make_dicom):
        # More pixels than stored values, and fewer.
        options = {"RescaleSlope": 0.5, "RescaleIntercept": -1000, "Modality": "CT"}
        twice = np.concatenate([WIDE, WIDE])
        large = shown(make_dicom(twice, **options), window=(40, 400))
        small = shown(make_dicom(WIDE[:, :100], **options), window=(40, 400))
        np.testing.assert_array_equal(large[:128, :100], small)
        np.testing.assert_array_equal(large[128:, :100], small)

    def test_colors_and_8_bit_pictures_have_no_window(self, make_dicom, photo_bytes):
        colors = np.stack([RAMP.astype(np.uint8)] * 3, axis=2)
        data = make_dicom(colors, PhotometricInterpretation="RGB", PlanarConfiguration=0)
        for source in (data, photo_bytes):
            found = decode(source, ReadOptions(window=(40, 400)))
            np.testing.assert_array_equal(found, decode(source))

    def test_the_key_has_the_window(self, make_dicom):
        data = make_dicom(RAMP)
        windows = [None, "lung", "soft", (40, 400), (40, 401), "full"]
        keys = {as_image_collection([data], ReadOptions(window=w)).digest(0) for w in windows}
        assert len(keys) == len(windows)


class TestStoredValues:
    def test_signed_values_of_12_bits(self, make_dicom):
        # The upper four bits may be anything.
        stored = np.array([[0, 2047, -2048, -1]], np.int16)
        words = ((stored & 0x0FFF) | 0x5000).astype(np.int16)
        found = shown(make_dicom(words, BitsStored=12, HighBit=11))
        np.testing.assert_allclose(found, (stored + 2048.0) * (255 / 4095), atol=1e-4)

    def test_bits_at_the_top(self, make_dicom):
        words = (RAMP << 4).astype(np.uint16) | 0x000F
        found = shown(make_dicom(words, BitsStored=12, HighBit=15))
        np.testing.assert_allclose(found, RAMP * (255 / 4095), atol=1e-4)

    def test_big_endian(self, make_dicom):
        from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

        plain = shown(make_dicom(WIDE))
        found = shown(make_dicom(WIDE, ImplicitVRLittleEndian))
        np.testing.assert_array_equal(plain, found)
        data = make_dicom(WIDE, ExplicitVRBigEndian, PixelData=WIDE.astype(">u2").tobytes())
        np.testing.assert_array_equal(plain, shown(data))

    def test_one_bit(self, make_dicom):
        bits = (RAMP % 3 == 0).astype(np.uint8)
        packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
        options = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": packed}
        np.testing.assert_array_equal(shown(make_dicom(bits, **options)), bits * 255)

    def test_floats_need_a_range(self, make_dicom):
        values = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
        data = make_dicom(RAMP[:8, :8])
        dataset = pydicom.dcmread(BytesIO(data))
        del dataset.PixelData
        dataset.FloatPixelData, dataset.BitsAllocated = values.tobytes(), 32
        file = BytesIO()
        dataset.save_as(file)
        found = shown(file.getvalue(), value_range=(-3, 5))
        np.testing.assert_allclose(found, (values + 3) * (255 / 8), atol=1e-3)

    def test_a_range_then_the_inversion(self, make_dicom):
        words = np.linspace(50, 205, 64).reshape(8, 8).astype(np.uint16)
        found = shown(
            make_dicom(words, PhotometricInterpretation="MONOCHROME1"), value_range=(50, 220)
        )
        np.testing.assert_allclose(found, 255 - (words - 50.0) * 255 / 170, atol=1e-2)

    def test_padding_is_black(self, make_dicom):
        words = RAMP.astype(np.uint8).copy()
        options = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 5}
        found = shown(make_dicom(words, **options))
        np.testing.assert_array_equal(found, np.where(words == 5, 0, 255 - words))


class TestTables:
    def test_modality_table_before_the_window(self, make_dicom):
        squares = (np.arange(256) ** 2).astype(np.uint16)
        modality = table(squares, ModalityLUTType="US")
        data = make_dicom(RAMP, ModalityLUTSequence=modality, WindowCenter=30000, WindowWidth=40000)
        np.testing.assert_allclose(shown(data), linear(squares[RAMP], 30000, 40000), atol=1e-2)

    def test_voi_table_before_the_window(self, make_dicom):
        voi = table(np.arange(255, -1, -1), bits=8)
        data = make_dicom(RAMP, VOILUTSequence=voi, WindowCenter=3, WindowWidth=4)
        np.testing.assert_array_equal(shown(data), 255 - RAMP)

    @pytest.mark.parametrize(
        ("kind", "shape", "inverted"),
        [
            ("MONOCHROME1", None, True),
            ("MONOCHROME1", "INVERSE", True),
            ("MONOCHROME2", "INVERSE", True),
            ("MONOCHROME2", "IDENTITY", False),
        ],
    )
    def test_one_inversion(self, make_dicom, kind, shape, inverted):
        attributes = {} if shape is None else {"PresentationLUTShape": shape}
        pixels = RAMP.astype(np.uint8)
        found = shown(make_dicom(pixels, PhotometricInterpretation=kind, **attributes))
        np.testing.assert_array_equal(found, 255 - pixels if inverted else pixels)

    def test_palette(self, make_dicom):
        colors = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint8)
        attributes = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name, channel in zip(("Red", "Green", "Blue"), colors, strict=True):
            attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            data = (channel.astype("<u2") << 8).tobytes()
            attributes[f"{name}PaletteColorLookupTableData"] = data
        found = decode(make_dicom(RAMP.astype(np.uint8), **attributes))
        np.testing.assert_array_equal(found, colors.T[RAMP])

    def test_palette_in_segments_as_pydicom_expands_it(self):
        from pydicom.data import get_testdata_file
        from pydicom.pixels import apply_color_lut

        path = get_testdata_file("gdcm-US-ALOKA-16.dcm", download=False)
        if path is None:
            pytest.skip("the file is part of pydicom-data, which is missing")
        dataset = pydicom.dcmread(path)
        wanted = apply_color_lut(dataset.pixel_array, dataset) / 257
        assert np.abs(decode(path) - wanted).max() <= 1


class TestColors:
    def test_planes(self, make_dicom):
        colors = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
        planes = colors.transpose(2, 0, 1).tobytes()
        rgb = {"PhotometricInterpretation": "RGB"}
        for options in (
            {"PlanarConfiguration": 0},
            {"PlanarConfiguration": 1, "PixelData": planes},
        ):
            np.testing.assert_array_equal(decode(make_dicom(colors, **rgb, **options)), colors)

    def test_ybr_within_a_level_of_the_formula(self, make_dicom):
        ybr = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        data = make_dicom(ybr, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0)
        y, blue, red = (ybr[:, :, i].astype(float) for i in range(3))
        blue, red = blue - 128, red - 128
        green = y - 0.3441 * blue - 0.7141 * red
        wanted = np.stack([y + 1.402 * red, green, y + 1.772 * blue], axis=2).clip(0, 255)
        assert np.abs(decode(data).astype(float) - wanted).max() <= 1

    def test_16_bits(self, make_dicom):
        colors = np.random.default_rng(0).integers(0, 65536, (8, 6, 3), dtype=np.uint16)
        data = make_dicom(colors, PhotometricInterpretation="RGB", PlanarConfiguration=0)
        np.testing.assert_allclose(decode(data), colors * (255 / 65535), atol=1e-4)


class TestRefusals:
    def test_a_file_without_pixels(self, make_dicom):
        from pydicom.uid import EncapsulatedPDFStorage

        dataset = pydicom.dcmread(BytesIO(make_dicom(RAMP, SOPClassUID=EncapsulatedPDFStorage)))
        del dataset.PixelData
        file = BytesIO()
        dataset.save_as(file)
        with pytest.raises(ImageError, match=r"no pixels: it is a Encapsulated PDF|no pixels: "):
            decode(file.getvalue())

    def test_a_huge_claim_is_refused_before_it_is_read(self, make_dicom):
        data = make_dicom(RAMP, Rows=60_000, Columns=60_000)
        with pytest.raises(ImageError, match="3600000000 pixels"):
            decode(data)

    def test_a_stream_of_another_size_is_refused(self, make_dicom):
        from PIL import Image
        from pydicom.encaps import encapsulate
        from pydicom.uid import JPEGBaseline8Bit

        file = BytesIO()
        Image.new("L", (64, 64)).save(file, "JPEG")
        pixels = encapsulate([file.getvalue()])
        data = make_dicom(RAMP.astype(np.uint8), JPEGBaseline8Bit, PixelData=pixels)
        with pytest.raises(ImageError, match="compressed pixels 64 x 64"):
            decode(data)
        right = make_dicom(np.zeros((64, 64), np.uint8), JPEGBaseline8Bit, PixelData=pixels)
        assert decode(right).shape == (64, 64, 1)

    def test_a_deflated_bomb(self, make_dicom, monkeypatch):
        from PIL import Image
        from pydicom.uid import DeflatedExplicitVRLittleEndian

        from sklearn_featx.images.formats import _dicom

        data = make_dicom(np.zeros((2000, 2000), np.uint16), DeflatedExplicitVRLittleEndian)
        assert len(data) < 100_000
        assert not decode(data).any()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        monkeypatch.setattr(_dicom, "_BYTES_OF_HEADER", 2**20)
        wanted = "follows from PIL.Image.MAX_IMAGE_PIXELS = 100, and may be a decompression bomb"
        with pytest.raises(ImageError, match=wanted):
            decode(data)

    @pytest.mark.parametrize(
        ("syntax", "packages"),
        [
            ("1.2.840.10008.1.2.4.70", "pip install python-gdcm"),
            ("1.2.840.10008.1.2.4.80", "pip install python-gdcm"),
            ("1.2.840.10008.1.2.4.90", "pip install pylibjpeg pylibjpeg-openjpeg"),
            ("1.2.840.10008.1.2.4.201", "pip install pylibjpeg pylibjpeg-openjpeg"),
            ("1.2.840.10008.1.2.4.102", "video"),
            ("1.2.840.10008.1.2.4.999", "does not decode"),
        ],
    )
    def test_a_missing_codec_is_named(self, make_dicom, syntax, packages, monkeypatch):
        from pydicom.encaps import encapsulate
        from pydicom.pixels import decoders
        from pydicom.uid import JPEG2000

        data = make_dicom(RAMP, JPEG2000, PixelData=encapsulate([b"\xff\xd8" + bytes(50)]))
        data = data.replace(b"\x16\0" + JPEG2000.encode(), syntax_element(syntax))
        monkeypatch.setattr(decoders.base.Decoder, "is_available", property(lambda self: False))
        with pytest.raises(ImageError, match=packages):
            decode(data)

    def test_without_pydicom(self, make_dicom, monkeypatch):
        monkeypatch.setitem(sys.modules, "pydicom", None)
        with pytest.raises(ImageError, match=r'pip install "sklearn-featx\[dicom\]"'):
            decode(bytes(128) + b"DICM" + bytes(100))

    def test_pydicom_is_imported_for_a_file_that_looks_like_dicom_only(self, photo_bytes, tmp_path):
        photo = tmp_path / "photo"
        photo.write_bytes(photo_bytes)
        code = (
            "import sys; from sklearn_featx.images import decode; decode(sys.argv[1]); "
            "assert 'pydicom' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code, str(photo)], check=True, timeout=120)


@pytest.fixture
def photo_bytes():
    from PIL import Image

    file = BytesIO()
    Image.fromarray(np.dstack([RAMP] * 3).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
