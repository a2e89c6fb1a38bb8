"""Privacy: no text of a DICOM header is in a message, a warning, a log, a table or a store."""

import csv
import logging
import warnings
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from torch import nn

from sklearn_featx import ImageReader, PretrainedFeatureExtractor, image_groups
from sklearn_featx.cli._main import main
from sklearn_featx.exceptions import FeatxWarning, ImageError
from sklearn_featx.images import decode
from sklearn_featx.store import FeatureStore

pydicom = pytest.importorskip("pydicom")

SECRET = "Secretname"
# Elements of text whose values have a form of their own, or that name the meaning of pixels.
FORMS = {"AS", "DA", "DS", "DT", "IS", "TM", "UI", "UR", "CS", "AE"}


@pytest.fixture
def named(make_dicom):
    """A file with one name in every text element of the dictionary, also in a nested item."""
    from pydicom.datadict import DicomDictionary
    from pydicom.dataset import Dataset

    words = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    scan = pydicom.dcmread(BytesIO(make_dicom(words, WindowCenter=2000, WindowWidth=4000)))
    scan.RescaleSlope, scan.RescaleIntercept = 1, 0
    item = Dataset()
    for tag, (kind, *_) in DicomDictionary.items():
        if kind in {"LO", "LT", "PN", "SH", "ST", "UC", "UT"} and tag >> 16 not in (0, 2):
            for place in (scan, item):
                place.add_new(tag, kind, f"{SECRET}{tag:x}"[:16])
    # These decide nothing about pixels, and hold a name all the same.
    for tag in (0x00080018, 0x0020000D, 0x0020000E):
        scan.add_new(tag, "UI", "1.2.3")
    scan.RequestAttributesSequence = [item]
    scan.RescaleType = "HU"
    file = BytesIO()
    scan.save_as(file)
    return file.getvalue()


def broken(data):
    """Copies that are damaged in one place, truncated, or end within the header.

    All places in the type and the length of the transfer syntax, others at random: a longer one is
    the text of the elements after it.
    """
    rng = np.random.default_rng(0)
    at = data.index(b"\x28\x00\x02\x00")
    yield data[:at]
    yield data[:-100]
    syntax = data.index(b"\x02\x00\x10\x00UI")
    for place in range(syntax + 4, syntax + 8):
        for bit in range(8):
            copy = bytearray(data)
            copy[place] ^= 1 << bit
            yield bytes(copy)
    for _ in range(30):
        copy = bytearray(data)
        copy[rng.integers(at, at + 250)] ^= 1 << rng.integers(8)
        yield bytes(copy)


def test_no_name_leaves_the_file(named, tmp_path, capfd, caplog):
    assert SECRET.encode() in named
    files = []
    for i, data in enumerate([named, *broken(named)]):
        files.append(tmp_path / f"scan {i}")
        files[-1].write_bytes(data)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    extractor = PretrainedFeatureExtractor(
        net,
        image_size=16,
        on_error="nan",
        cache=FeatureStore(tmp_path / "store"),
        reader=ImageReader(window="lung"),
        n_jobs=2,
        verbose=True,
    )
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = extractor.fit(files).transform(pd.DataFrame({"scan": [str(path) for path in files]}))
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows).any()
    said = [str(extractor.failures_), caplog.text, *capfd.readouterr()]
    said += [str(warning.message) for warning in caught]
    assert not any(SECRET in text for text in said)
    stored = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert stored
    assert not any(SECRET.encode() in data for data in stored)


def test_no_name_in_errors(named):
    for data in broken(named):
        for source in (data, data[132:]):
            error = refusal(source)
            while error is not None:
                assert SECRET not in str(error)
                error = error.__cause__


def refusal(source):
    try:
        decode(source)
    except ImageError as error:
        return error
    return None


def test_no_identifier_in_a_warning_or_log(make_dicom, tmp_path, caplog):
    """pydicom quotes an identifier that is no UID."""
    scan = pydicom.dcmread(BytesIO(make_dicom(np.zeros((8, 8), np.uint16))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scan.StudyInstanceUID = SECRET
        scan.save_as(tmp_path / "scan")
    caplog.clear()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_groups([str(tmp_path / "scan")], by="StudyInstanceUID").tolist() == [0]
    assert SECRET not in caplog.text


def test_a_folder_on_the_command_line(named, make_dicom, tmp_path, capfd):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("IM0001", "1.2.840.7", "chest.dcm", "DICOMDIR"):
        (folder / name).write_bytes(named)
    (folder / "notes").write_text("no scan")
    output = tmp_path / "features.csv"
    command = ["extract", str(folder), "-o", str(output), "--image-size", "32", "--quiet"]
    assert main(command) == 0
    with output.open(newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert [row[0] for row in table[1:]] == ["1.2.840.7", "IM0001", "chest.dcm"]
    assert SECRET not in output.read_text("utf-8")
    assert not any(SECRET in text for text in capfd.readouterr())
    first = output.read_bytes()
    for window in (["lung"], ["-600", "1500"]):
        assert main([*command, "--window", *window]) == 0
        assert output.read_bytes() != first


def test_no_name_in_pages_pickles_and_progress(make_dicom, digits, small_net, tmp_path, capfd):
    """Everything that leaves a run: models, plans, tables, pages, a store and what is printed."""
    import joblib
    from matplotlib.figure import Figure
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold
    from sklearn.pipeline import make_pipeline

    from sklearn_featx import (
        EmbeddingDisplay,
        FineTuneClassifier,
        image_groups,
        near_duplicates,
        plan_search,
    )

    skops = pytest.importorskip("skops.io")
    store = FeatureStore(tmp_path / "store")
    names = {"PatientName": f"{SECRET}^Ann", "PatientID": SECRET, "AccessionNumber": SECRET}
    paths = []
    for i, image in enumerate(digits[0][:12]):
        paths.append(str(tmp_path / f"{i}.dcm"))
        data = make_dicom(image.astype(np.uint16), WindowCenter=128, WindowWidth=256, **names)
        (tmp_path / f"{i}.dcm").write_bytes(data)
    y = digits[1][:12]
    settings = {"image_size": 16, "cache": store, "verbose": 1}
    extractor = PretrainedFeatureExtractor(small_net, **settings)
    model = make_pipeline(extractor, LogisticRegression()).fit(paths, y)
    tuner = FineTuneClassifier(small_net, max_epochs=1, C=1.0, early_stopping=True, **settings)
    tuner.fit(paths, y, groups=np.arange(12) // 2)
    plan = plan_search(extractor, paths, cv=KFold(2), timed=False)
    assert "patients (PatientID): 1" in plan.warning
    packaged = PretrainedFeatureExtractor(image_size=32, layer="blocks.0", cache=False, verbose=1)
    saved = make_pipeline(packaged, LogisticRegression()).fit(paths, y)
    skops.dump(saved, tmp_path / "out.model.skops")
    command = ["look", str(tmp_path / "out.model.skops"), str(tmp_path)]
    assert main([*command, "-o", str(tmp_path / "out.look.html")]) == 0
    display = EmbeddingDisplay.from_estimator(model, paths, y, ax=Figure().subplots())
    display.to_html(tmp_path / "out.map.html")
    with pytest.warns(FeatxWarning, match="features of 12 images differ") as warned:
        duplicates = near_duplicates(extractor, paths)
    assert not any(SECRET in str(warning.message) for warning in warned)
    for i, left in enumerate((model, plan, duplicates, image_groups(paths))):
        joblib.dump(left, tmp_path / f"out.{i}.joblib")
    joblib.dump(tuner.history_, tmp_path / "out.history.joblib")
    said = [repr(model), model._repr_html_(), repr(plan), *capfd.readouterr()]
    assert not any(SECRET in text for text in said)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert len(written) > 8
    assert [path.name for path in written if SECRET.encode() in path.read_bytes()] == []
