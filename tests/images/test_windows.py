"""Windows by name: for images in Hounsfield units, an error for all others."""

import numpy as np
import pytest
from PIL import Image

from sklearn_featx import ImageReader, PretrainedFeatureExtractor
from sklearn_featx.cli._main import main
from sklearn_featx.exceptions import FeatxError, ImageError
from sklearn_featx.images import ReadOptions, as_image_collection

GRAY = np.arange(64 * 64).reshape(64, 64)
HOUNSFIELD = (GRAY // 2 - 1024).astype(np.int16)
PICTURES = {
    "a.jpg": (GRAY % 256).astype(np.uint8),
    "a.png": (GRAY % 256).astype(np.uint8),
    "color.png": np.stack([GRAY % 256] * 3, axis=2).astype(np.uint8),
    "deep.png": (GRAY * 16).astype(np.uint16),
    "deep.tif": (GRAY * 16).astype(np.uint16),
    "float.tif": HOUNSFIELD.astype(np.float32),
}


@pytest.fixture
def files(tmp_path):
    for name, values in PICTURES.items():
        Image.fromarray(values).save(tmp_path / name)
    return {name: str(tmp_path / name) for name in PICTURES}


def load(entry, window="lung", **options):
    return as_image_collection([entry], ReadOptions(window=window, **options)).load(0)


def linear(values, center, width):
    half = (width - 1) / 2
    clipped = np.clip(values.astype(float), center - 0.5 - half, center - 0.5 + half)
    return (clipped - clipped.min()) * (255 / (width - 1)) if width > 1 else clipped


@pytest.mark.parametrize("name", PICTURES)
def test_files_of_other_formats_are_refused(name, files):
    with open(files[name], "rb") as file:  # noqa: PTH123
        content = file.read()
    with Image.open(files[name]) as picture:
        for entry in (files[name], content, picture):
            with pytest.raises(
                ImageError, match=r"'lung' is in Hounsfield units.*\(center, width\)"
            ):
                load(entry)
    for window in ((1000, 4000), *([] if name == "float.tif" else ["full", None])):
        assert load(files[name], window).shape[:2] == (64, 64)


def test_a_tiff_of_tifffile_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "int16.tif"
    tifffile.imwrite(path, HOUNSFIELD)
    for options in ({}, {"channels": [0]}):
        with pytest.raises(ImageError, match=r"TIFF.*does not have"):
            load(str(path), **options)


def test_one_file_among_scans_is_a_row_of_nan(files):
    reader = ImageReader(window="lung")
    extractor = PretrainedFeatureExtractor(image_size=32, reader=reader, on_error="nan")
    with pytest.warns(match="could not be read"):
        rows = extractor.fit_transform([files["deep.png"], HOUNSFIELD])
    assert np.isnan(rows).all(axis=1).tolist() == [True, False]
    assert "Hounsfield" in extractor.failures_[0].reason


def test_it_is_not_taken_from_the_cache(files):
    extractor = PretrainedFeatureExtractor(image_size=32, reader=ImageReader(window=(-600, 1500)))
    extractor.fit_transform([files["a.png"]])
    extractor.set_params(reader__window="lung")
    with pytest.raises(ImageError, match="Hounsfield"):
        extractor.fit_transform([files["a.png"]])


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_arrays_that_may_be_hounsfield_units(dtype):
    values = HOUNSFIELD.astype(dtype)
    for entries in ([values], values[np.newaxis]):
        options = ReadOptions(window="soft")
        found = as_image_collection(entries, options).load(0)[:, :, 0]
        np.testing.assert_allclose(found, linear(values, 40, 400), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pictures_that_were_made_in_memory(dtype):
    found = load(Image.fromarray(HOUNSFIELD.astype(dtype)), "soft")
    np.testing.assert_allclose(found[:, :, 0], linear(HOUNSFIELD, 40, 400), atol=1e-3)
    for values in (PICTURES["deep.png"], PICTURES["a.png"], PICTURES["color.png"]):
        with pytest.raises(ImageError, match="Hounsfield"):
            load(Image.fromarray(values), "soft")


@pytest.mark.parametrize(
    "values",
    [
        PICTURES["a.png"],
        PICTURES["deep.png"],
        GRAY.astype(np.uint32),
        GRAY % 2 == 0,
        GRAY / GRAY.max(),
        np.stack([abs(HOUNSFIELD) % 256] * 3, axis=2),
        np.stack([GRAY / GRAY.max()] * 3, axis=2),
    ],
)
@pytest.mark.parametrize("hold", [list, np.array])
def test_arrays_that_cannot_be_hounsfield_units(values, hold):
    with pytest.raises(FeatxError, match=r"window='brain' is in Hounsfield units"):
        load_all(hold([values, values]), "brain")
    assert load_all(hold([values, values]), (0.5, 1)).shape[:2] == (64, 64)


def load_all(X, window):
    return as_image_collection(X, ReadOptions(window=window)).load(0)


def test_the_margin_of_a_volume_is_accepted():
    volume = np.stack([HOUNSFIELD * 0.0, HOUNSFIELD * 1.0])
    images = as_image_collection(volume, ReadOptions(window="soft"))
    assert np.ptp(images.load(0)) == 0
    assert np.ptp(images.load(1)) == 255


@pytest.mark.parametrize(("dtype", "is_refused"), [(np.int16, False), (np.uint8, True)])
def test_volumes(dtype, is_refused, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "a.nii"
    values = (HOUNSFIELD if dtype == np.int16 else GRAY % 256).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(values[:, :, np.newaxis], np.eye(4)), path)
    if is_refused:
        with pytest.raises(ImageError, match=r"window='lung'.*uint8"):
            load(str(path))
    else:
        assert np.ptp(load(str(path), "soft")) == 255


def test_the_command_line(files, tmp_path, capsys):
    output = tmp_path / "f.csv"
    folder = files["a.jpg"].rpartition("/")[0]
    arguments = ["extract", folder, "-o", str(output), "-q", "--image-size", "32"]
    assert main([*arguments, "--window", "40", "400"]) == 0
    assert main([*arguments, "--on-error", "nan", "--window", "lung"]) != 0
    assert "--window lung is in Hounsfield units" in capsys.readouterr().err
