"""Frames of animations and of files of several pages."""

import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sklearn_featx import ImageReader, PretrainedFeatureExtractor
from sklearn_featx.exceptions import ImageError, InputError, RangeWarning
from sklearn_featx.images import Bags, ReadOptions, as_image_collection

FRAMES = [np.full((6, 8, 3), level, np.uint8) for level in (10, 90, 170)]


def animation(file_format):
    first, *others = [Image.fromarray(frame) for frame in FRAMES]
    file = BytesIO()
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    first.save(file, file_format, save_all=True, append_images=others, **lossless)
    return file.getvalue()


@pytest.fixture(params=["GIF", "TIFF", "PNG", "WEBP"])
def stack(request):
    return animation(request.param)


def level(images, i):
    return int(images.load(i).mean())


@pytest.mark.parametrize(("frames", "wanted"), [("first", 10), (0, 10), (1, 90), (-1, 170)])
def test_one_frame(stack, frames, wanted, tmp_path):
    path = tmp_path / "stack"
    path.write_bytes(stack)
    options = ReadOptions(frames=frames)
    held = [stack, str(path)]
    held += [Image.open(BytesIO(stack))] if frames != "first" else []
    images = as_image_collection(held, options)
    assert [level(images, i) for i in range(len(images))] == [wanted] * len(held)
    assert images.digest(0) == images.digest(1)


@pytest.mark.parametrize(
    ("frames", "wanted"), [("all", [10, 90, 170]), (slice(1, None), [90, 170]), (-1, [170])]
)
def test_several_frames_are_a_bag(stack, frames, wanted, tmp_path):
    path = tmp_path / "stack"
    path.write_bytes(stack)
    opened = Image.open(BytesIO(stack))
    opened.seek(1)
    options = ReadOptions(frames=frames, bag_pooling="mean")
    bags = as_image_collection([str(path), stack, opened], options)
    assert isinstance(bags, Bags)
    assert bags.sizes.tolist() == [len(wanted)] * 3
    assert [level(bags.images, i) for i in range(len(bags.images))] == wanted * 3
    assert opened.tell() == 1
    digests = [bags.images.digest(i) for i in range(2 * len(wanted))]
    assert digests[: len(wanted)] == digests[len(wanted) :]
    assert len(set(digests)) == len(wanted)


def test_the_first_frame_is_the_file():
    data = animation("GIF")
    whole = as_image_collection([data]).digest(0)
    assert as_image_collection([data], ReadOptions(frames=0)).digest(0) == whole
    assert as_image_collection([data], ReadOptions(frames=1)).digest(0) != whole


@pytest.mark.parametrize("frames", [3, -4])
def test_missing_frames(stack, frames):
    images = as_image_collection([stack], ReadOptions(frames=frames))
    with pytest.raises(ImageError, match=f"row 0: has 3 frames.*frames={frames}"):
        images.load(0)


@pytest.mark.parametrize(
    "entry",
    [
        animation("GIF"),
        Image.open(BytesIO(animation("GIF"))),
        Image.fromarray(FRAMES[0]),
        np.stack(FRAMES),
    ],
    ids=["file", "opened", "picture", "array"],
)
def test_a_slice_without_frames_is_unreadable(entry):
    options = ReadOptions(frames=slice(5, None), bag_pooling="mean")
    with pytest.raises(ImageError, match="row 0: has no frame"):
        as_image_collection([entry], options)


@pytest.mark.parametrize("frames", ["all", slice(1, None)])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no image", "no image of a format"),
        (b"", "is empty"),
        (animation("GIF")[:20], "no image of a format"),
        (animation("TIFF")[:200], "is truncated"),
        (bytes(128) + b"DICM" + bytes(60), "DICOM file"),
        (bytes(344) + b"n+1\0" + bytes(60), "NIfTI"),
    ],
    ids=["text", "empty", "GIF", "TIFF", "DICOM", "NIfTI"],
)
def test_damaged_files_have_their_reason(data, reason, frames, tmp_path):
    path = tmp_path / "damaged"
    path.write_bytes(data)
    options = ReadOptions(frames=frames, bag_pooling="mean")
    for entry in (str(path), data):
        with pytest.raises(ImageError, match=f"row 0.*{reason}") as caught:
            as_image_collection([entry], options)
        assert caught.value.path == (None if entry is data else str(path))


def test_a_damaged_later_frame_is_no_bag_of_the_first():
    data = animation("TIFF")
    options = ReadOptions(frames="all", bag_pooling="mean")
    with pytest.raises(ImageError, match="row 0: is damaged: its frames cannot be counted"):
        as_image_collection([data[: len(data) * 2 // 3]], options)


@pytest.mark.parametrize("frames", ["last", 1.5, None, True, [0]])
def test_no_frames(frames):
    with pytest.raises(InputError, match="frames="):
        ReadOptions(frames=frames)


def test_several_frames_need_a_pooling():
    with pytest.raises(InputError, match=r"frames='all'.*bag_pooling"):
        ReadOptions(frames="all")


def test_unread_frames_hide_no_other_warning(small_net):
    """The rows are cached: the next run reads no image that it could judge."""
    dark = (np.arange(64, dtype=np.uint16) * 64).reshape(8, 8)
    with pytest.warns(RangeWarning) as caught:
        PretrainedFeatureExtractor(small_net, image_size=8).fit_transform([animation("GIF"), dark])
    assert {str(w.message).split(" ")[0] for w in caught} == {"a", "values"}


def test_unread_frames_are_said_once(small_net):
    extractor = PretrainedFeatureExtractor(small_net, image_size=8, cache=False)
    X = [animation("GIF"), animation("TIFF")]
    with pytest.warns(RangeWarning, match="several frames.*frames=0") as caught:
        extractor.fit_transform(X)
    assert len(caught) == 1
    for reader in (ImageReader(frames=0), ImageReader(frames="all", bag_pooling="max")):
        extractor.set_params(reader=reader)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            extractor.fit_transform(X)
