"""DICOM files of one's own making."""

from io import BytesIO

import numpy as np
import pytest


def make_dicom(pixels, syntax=None, **attributes):
    """The content of a DICOM file with gray pixels, and any attributes by keyword."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    pixels = np.asarray(pixels)
    size = 8 * pixels.dtype.itemsize
    scan = Dataset()
    scan.SOPClassUID, scan.SOPInstanceUID = CTImageStorage, "1.2.3"
    scan.Modality, scan.PhotometricInterpretation = "CT", "MONOCHROME2"
    scan.SamplesPerPixel = 3 if pixels.shape[-1] == 3 and pixels.ndim > 2 else 1
    scan.Rows, scan.Columns = pixels.shape[:2]
    scan.BitsAllocated, scan.BitsStored, scan.HighBit = size, size, size - 1
    scan.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in attributes.items():
        setattr(scan, keyword, value)
    if "PixelData" not in attributes:
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        scan.PixelData = data + b"\0" * (len(data) % 2)
        scan["PixelData"].VR = "OB" if size == 8 else "OW"
    scan.file_meta = FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    file = BytesIO()
    scan.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture(name="make_dicom")
def fixture_make_dicom():
    pytest.importorskip("pydicom")
    return make_dicom


@pytest.fixture
def hounsfield():
    """A picture in Hounsfield units, from air to bone."""
    return np.linspace(-1024, 3000, 64 * 48).round().astype(np.int16).reshape(64, 48)
