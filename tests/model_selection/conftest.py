"""DICOM files of invented patients."""

import numpy as np
import pytest


@pytest.fixture
def write_scan(tmp_path):
    """Write a gray DICOM file with identifiers; return its path."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    def write(name, pixels, **identifiers):
        scan = pydicom.Dataset()
        scan.SOPClassUID, scan.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3"
        scan.Rows, scan.Columns = pixels.shape
        scan.SamplesPerPixel, scan.PixelRepresentation = 1, 0
        scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 12, 11
        scan.PhotometricInterpretation = "MONOCHROME2"
        scan.PixelData = np.asarray(pixels, "<u2").tobytes()
        for keyword, value in identifiers.items():
            setattr(scan, keyword, value)
        scan.file_meta = FileMetaDataset()
        scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = tmp_path / name
        scan.save_as(path, enforce_file_format=True)
        return str(path)

    return write
