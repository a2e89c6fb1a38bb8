"""A labeled set of DICOM files: handwritten digits as 12-bit X-rays of invented patients.

Each patient has one label, several images, and a mark that all of them share: a smooth shade, as
a person's anatomy or a device gives. A model that has seen one image of a patient can recognize
the others by the mark instead of the digit. The script needs pydicom::

    python docs/examples/_dicom_set.py FOLDER
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE = 64
_WHITE = 4095


class DicomSet(NamedTuple):
    """The files, and the label and the patient of each one."""

    paths: list[Path]
    y: np.ndarray
    patients: np.ndarray


def write_dicom_set(
    folder: str | Path,
    *,
    n_patients: int = 60,
    images_per_patient: int = 3,
    n_classes: int = 10,
    contrast: float = 0.6,
    mark: float = 0.3,
    noise: float = 0.05,
    random_state: int = 0,
) -> DicomSet:
    """Write digits as 12-bit MONOCHROME1 DICOM files, ``FOLDER/P0000/0.dcm`` and so on.

    Parameters
    ----------
    folder : path-like
        An empty or a new folder.
    n_patients : int, default=60
        Number of patients; the labels take turns.
    images_per_patient : int, default=3
        Number of images of each patient: different digits of one class.
    n_classes : int, default=10
        Number of classes: the digits below it.
    contrast, mark, noise : float, default=0.6, 0.3, 0.05
        Strength of the digit, of the patient's mark and of the noise of each pixel, as shares of
        the range from black to white.
    random_state : int, default=0
        Seed; the same files for the same seed.

    Returns
    -------
    files : DicomSet
        Paths, labels and patients, one for each image.
    """
    digits = load_digits()
    rng = np.random.default_rng(random_state)
    paths, y, patients = [], [], []
    for patient in range(n_patients):
        label = patient % n_classes
        chosen = rng.choice(np.flatnonzero(digits.target == label), images_per_patient, False)
        shade = _enlarged(rng.uniform(-1, 1, (6, 6)), Image.Resampling.BICUBIC)
        for i, index in enumerate(chosen):
            digit = _enlarged(digits.images[index] / 16, Image.Resampling.BILINEAR)
            grain = rng.normal(0, 1, (SIDE, SIDE))
            gray = 0.2 + contrast * digit + mark * shade + noise * grain
            path = Path(folder) / f"P{patient:04d}" / f"{i}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_scan(path, gray.clip(0, 1), patient=f"P{patient:04d}", image=i)
            paths.append(path)
            y.append(label)
            patients.append(f"P{patient:04d}")
    return DicomSet(paths, np.array(y), np.array(patients))


def write_scan(path: Path, gray: np.ndarray, *, patient: str, image: int) -> None:
    """Write one image, of values from 0 (black) to 1 (white), as a computed radiograph."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    scan: Any = Dataset()
    scan.SOPClassUID = ComputedRadiographyImageStorage
    scan.SOPInstanceUID = generate_uid(entropy_srcs=[patient, str(image)])
    scan.StudyInstanceUID = generate_uid(entropy_srcs=[patient])
    scan.SeriesInstanceUID = generate_uid(entropy_srcs=[patient, "series"])
    scan.PatientID, scan.PatientName = patient, f"Invented^{patient}"
    scan.Modality, scan.InstanceNumber = "CR", image + 1
    scan.Rows, scan.Columns = gray.shape
    scan.SamplesPerPixel, scan.PixelRepresentation = 1, 0
    scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 12, 11
    # The largest value is black, as in X-rays on film.
    scan.PhotometricInterpretation = "MONOCHROME1"
    scan.WindowCenter, scan.WindowWidth = (_WHITE + 1) / 2, _WHITE + 1
    scan.PixelData = (_WHITE - np.rint(gray * _WHITE)).astype("<u2").tobytes()
    scan.file_meta = FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    scan.save_as(path, enforce_file_format=True)


def _enlarged(image: np.ndarray, how: Image.Resampling) -> np.ndarray:
    small = Image.fromarray(image.astype(np.float32))
    return np.asarray(small.resize((SIDE, SIDE), how))


if __name__ == "__main__":
    files = write_dicom_set(sys.argv[1])
    print(f"{len(files.paths)} files of {len(set(files.patients))} patients in {sys.argv[1]}")
