"""Every file of pydicom and pydicom-data against `dcm2pnm` of DCMTK, at the same window.

dcm2pnm cuts levels to whole numbers, so ours are cut as well. The program comes from Debian
(``apt-get install dcmtk``), the files by pip.
"""

import copy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import decode

pydicom = pytest.importorskip("pydicom")
data_store = pytest.importorskip("data_store")

FOLDERS = [Path(package.__file__).parent / "data" for package in (pydicom, data_store)]
OTHER_FILES = {".py", ".pyc", ".json", ".txt", ".md", ".icc", ".gz", ".dump"}
FILES = sorted(
    (path for folder in FOLDERS for path in folder.rglob("*") if path.is_file()),
    key=lambda path: (path.name, str(path)),
)
FILES = [path for path in FILES if path.suffix not in OTHER_FILES and path.name != "README"]
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.70")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")

# Pictures that differ from dcm2pnm's, with the reason.
DIFFERENT = {
    **dict.fromkeys(
        ("SC_ybr_full_uncompressed.dcm", "SC_ybr_full_422_uncompressed.dcm"),
        "dcm2pnm converts YBR with tables of whole numbers",
    ),
    **dict.fromkeys(
        ("liver.dcm", "liver_1frame.dcm", "liver_expb.dcm", "liver_expb_1frame.dcm"),
        "a mask of one bit: dcm2pnm shows its 1 as gray 127, we as white",
    ),
    **dict.fromkeys(
        ("rtdose_expb.dcm", "rtdose_expb_1frame.dcm"),
        "32 bits in big endian: dcm2pnm swaps two bytes of four",
    ),
}
# Files that only we show.
ONLY_OURS = {
    **dict.fromkeys(
        (f"SC_rgb_{middle}32bit{end}.dcm" for middle in ("", "expb_") for end in ("", "_2frame")),
        "dcm2pnm reads no colors of 32 bits",
    ),
    "gdcm-US-ALOKA-16.dcm": "dcm2pnm reads no palettes in segments",
    "gdcm-US-ALOKA-16_big.dcm": "dcm2pnm reads no palettes in segments",
    "SC_rgb_jpeg.dcm": "a header in implicit VR, against its transfer syntax",
}
# Files that are damaged on purpose: part of the reason.
DAMAGED = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "its compressed pixels",
    "MR_truncated.dcm": "truncated: it has 8130 of 8192 bytes",
    "meta_missing_tsyntax.dcm": "names no size",
    "nested_priv_SQ.dcm": "names no size",
}
SMALL = [path for path in FILES if path.stat().st_size < 100_000][::8]

needs_dcmtk = pytest.mark.skipif(
    shutil.which("dcm2pnm") is None, reason="DCMTK is missing: apt-get install dcmtk"
)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def reference(path, folder):
    """What dcm2pnm shows; None if it shows nothing."""
    dataset = pydicom.dcmread(path, force=True)
    meta = getattr(dataset, "file_meta", {})
    syntax = meta.get("TransferSyntaxUID", "")
    source = path
    if "Rows" in dataset and (syntax in JPEG_2000 or "SharedFunctionalGroupsSequence" in dataset):
        source = folder / "simpler.dcm"
        try:
            simpler(dataset, syntax in JPEG_2000).save_as(source)
        except Exception:
            return None
        syntax = ""
    program = "dcmj2pnm" if syntax in JPEG else "dcml2pnm" if syntax in JPEG_LS else "dcm2pnm"
    shown = folder / "shown.pnm"
    command = [program, "--no-overlays", *window_of(dataset), "--write-raw-pnm", source, shown]
    if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode:
        return None
    with Image.open(shown) as picture:
        pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def simpler(dataset, decompress):
    """The file without what dcm2pnm does not read: JPEG 2000 and functional groups."""
    dataset = copy.deepcopy(dataset)
    if decompress:
        # Pillow, where it can: not the plugin that ours uses first.
        deep = dataset.get("SamplesPerPixel", 1) > 1 and dataset.BitsAllocated > 8
        try:
            dataset.decompress(decoding_plugin="pylibjpeg" if deep else "pillow")
        except (RuntimeError, ValueError):
            dataset.decompress(decoding_plugin="pylibjpeg")
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in dataset.get(sequence, [])[:1]:
            for part in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in group.get(part, []):
                    dataset.update(item)
        if sequence in dataset:
            del dataset[sequence]
    return dataset


def window_of(dataset):
    if dataset.get("VOILUTSequence"):
        return ["--use-voi-lut", "1"]
    groups = [dataset]
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in dataset.get(sequence, [])[:1]:
            groups += group.get("FrameVOILUTSequence", [])
    gray = str(dataset.get("PhotometricInterpretation", "")).startswith("MONO")
    named = any(g.get("WindowCenter") is not None and g.get("WindowWidth") for g in groups)
    return ["--use-window", "1"] if named and gray else []


def check(path, folder):
    if path.name in DAMAGED:
        with pytest.raises(ImageError, match="DICOM file") as caught:
            decode(path)
        assert DAMAGED[path.name] in caught.value.reason
        return
    wanted = reference(path, folder)
    if not has_pixels(path):
        with pytest.raises(ImageError) as caught:
            decode(path)
        assert wanted is None
        no_image = ("has no pixels", "no image of a format", "is damaged or truncated")
        assert any(words in caught.value.reason for words in no_image)
        return
    ours = decode(path)
    if path.name in ONLY_OURS:
        assert wanted is None
        return
    assert wanted is not None
    near = np.abs(np.floor(ours) - wanted) <= 1
    assert (near.mean() < 0.99) == (path.name in DIFFERENT)


def has_pixels(path):
    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=False)
    return any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


def test_there_are_some_170_images():
    assert len(FILES) > 250
    assert set(DIFFERENT) | set(ONLY_OURS) | set(DAMAGED) <= {path.name for path in FILES}


@needs_dcmtk
@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.name)
def test_small_files_as_dcmtk_shows_them(path, tmp_path):
    check(path, tmp_path)


@needs_dcmtk
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_all_files_as_dcmtk_shows_them(path, tmp_path):
    check(path, tmp_path)
