"""Frames of DICOM files, and warnings of pydicom, which decide nothing."""

import warnings

import numpy as np
import pytest

from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import ReadOptions, as_image_collection, decode

pydicom = pytest.importorskip("pydicom")

FRAMES = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)


@pytest.fixture
def film(make_dicom):
    return make_dicom(FRAMES[0], NumberOfFrames=3, PixelData=FRAMES.tobytes())


@pytest.mark.parametrize("frame", [0, 1, 2, -1])
def test_one_frame(film, frame):
    found = as_image_collection([film], ReadOptions(frames=frame)).load(0)
    np.testing.assert_array_equal(found[:, :, 0], FRAMES[frame])


def test_frames_have_keys_of_their_own(film):
    keys = {as_image_collection([film], ReadOptions(frames=k)).digest(0) for k in range(3)}
    assert len(keys) == 3


def test_a_frame_that_is_missing(film):
    with pytest.raises(ImageError, match="3 frames"):
        as_image_collection([film], ReadOptions(frames=3)).load(0)


def test_attributes_of_a_frame(make_dicom):
    from pydicom.dataset import Dataset

    groups = []
    for center in (50, 100, 150):
        window, group = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, 1
        group.FrameVOILUTSequence = [window]
        groups.append(group)
    data = make_dicom(
        FRAMES[0],
        NumberOfFrames=3,
        PixelData=FRAMES.tobytes(),
        PerFrameFunctionalGroupsSequence=groups,
    )
    for k, center in enumerate((50, 100, 150)):
        found = as_image_collection([data], ReadOptions(frames=k)).load(0)
        np.testing.assert_array_equal(found[:, :, 0], np.where(FRAMES[k] > center - 0.5, 255, 0))


def test_a_claim_of_a_billion_frames(make_dicom):
    data = make_dicom(FRAMES[0], NumberOfFrames=10**9, PixelData=FRAMES.tobytes())
    options = ReadOptions(frames="all", bag_pooling="mean", on_error="nan")
    images = as_image_collection([data], options)
    with pytest.raises(ImageError, match="truncated"):
        images.load(0)


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_warnings_of_pydicom_decide_nothing(action):
    from pydicom.data import get_testdata_file

    path = get_testdata_file("SC_rgb_jpeg.dcm", download=False)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        assert decode(path).shape == (256, 256, 3)
