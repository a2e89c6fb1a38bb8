"""Keys of images: digests of files, computed in threads."""

import threading

import pytest

from sklearn_featx.exceptions import ImageError
from sklearn_featx.flow import row_keys
from sklearn_featx.flow._image_keys import BytesItem
from sklearn_featx.images import as_image_collection
from sklearn_featx.store import FeatureStore


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.bin" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i // 2]) * 100)
    return [str(path) for path in paths]


def test_several_files_are_digested_at_once(files, monkeypatch):
    meeting = threading.Barrier(3, timeout=60)
    original = BytesItem.content

    def content(item):
        meeting.wait()
        return original(item)

    monkeypatch.setattr(BytesItem, "content", content)
    images = as_image_collection(files)
    keys = row_keys(images, None, n_jobs=3)
    monkeypatch.undo()
    assert keys == [images.digest(i) for i in range(6)]
    assert keys[0] == keys[1] != keys[2]


def test_the_store_learns_all_of_them(files, tmp_path, monkeypatch):

    monkeypatch.setattr("sklearn_featx._digest._RACY_NS", -(10**18))
    with FeatureStore(tmp_path / "store") as store:
        images = as_image_collection(files)
        keys = row_keys(images, store, n_jobs=2)
        monkeypatch.setattr(BytesItem, "content", None)
        assert row_keys(images, store) == keys


def test_the_first_unreadable_file_is_the_error(files, tmp_path):
    images = as_image_collection(files)
    for row in (1, 4):
        (tmp_path / f"{row}.bin").unlink()
    with pytest.raises(ImageError) as caught:
        row_keys(images, None, n_jobs=3)
    assert caught.value.row == 1
    keys = row_keys(images, None, "nan", n_jobs=3)
    assert [row for row, key in enumerate(keys) if not key] == [1, 4]
