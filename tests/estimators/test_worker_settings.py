"""Pillow's settings and plugins in worker processes: those of the process that sends the work."""

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from joblib import Parallel, delayed
from joblib.externals.loky.backend import reduction
from PIL import Image, ImageFile
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.estimators import _worker_settings
from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import _pillow, decode, pillow_settings


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def truncated(picture, tmp_path):
    file = io.BytesIO()
    picture.save(file, "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    return str(path)


def in_workers(extractor, paths):
    return Parallel(2)(delayed(extractor.transform)([path]) for path in paths)


@pytest.mark.slow
def test_truncated_images_are_read_by_workers_where_that_is_set(
    truncated, small_net_factory, monkeypatch
):
    extractor = PretrainedFeatureExtractor(small_net_factory(), image_size=32, cache=False)
    # Workers that have started already know nothing of a later change.
    with pytest.raises(ImageError, match="truncated"):
        in_workers(extractor, [truncated] * 2)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    wanted = extractor.transform([truncated])
    for rows in in_workers(extractor, [truncated] * 2):
        np.testing.assert_allclose(rows, wanted, rtol=1e-5)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with pytest.raises(ImageError, match="truncated"):
        in_workers(extractor, [truncated] * 2)


@pytest.mark.parametrize("way", ["joblib", "multiprocessing"])
def test_what_is_sent_to_a_worker_brings_the_settings(way, monkeypatch):
    extractor = PretrainedFeatureExtractor(image_size=32)
    dumps = reduction.dumps if way == "joblib" else ForkingPickler.dumps
    with monkeypatch.context() as sender:
        sender.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        sender.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        sent = bytes(dumps(make_pipeline(extractor)))
    # Restored when the test ends.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "the sender")
    assert repr(pickle.loads(sent)[0]) == repr(extractor)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (1000, True)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [PretrainedFeatureExtractor, FineTuneClassifier])
def test_spawned_processes_get_them_too(estimator, tmp_path):
    (tmp_path / "work.py").write_text(
        "from PIL import Image\ndef limit(estimator):\n    return Image.MAX_IMAGE_PIXELS\n"
    )
    (tmp_path / "script.py").write_text(
        "import multiprocessing, sys, work\n"
        "from PIL import Image\n"
        f"from sklearn_featx import {estimator.__name__} as Estimator\n"
        "if __name__ == '__main__':\n"
        "    Image.MAX_IMAGE_PIXELS = 4321\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(work.limit, (Estimator(),)))\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["4321"]


def test_saved_files_hold_no_settings_and_loading_changes_none(monkeypatch):
    extractor = PretrainedFeatureExtractor()
    plain = pickle.dumps(extractor)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert pickle.dumps(extractor) == plain
    sent = bytes(ForkingPickler.dumps(extractor))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    # What a worker sends back arrives in a process that has no parent.
    assert repr(pickle.loads(sent)) == repr(extractor)
    assert Image.MAX_IMAGE_PIXELS == 2000


def test_without_joblibs_table_estimators_are_sent_as_before(monkeypatch):
    monkeypatch.delattr(reduction, "register")
    assert _worker_settings._find_register() is None


def test_plugins_of_the_user_are_imported_in_workers(monkeypatch):
    settings = pillow_settings()._replace(plugins=("no_such_plugin", "colorsys"))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    _pillow.apply_pillow_settings(settings)
    assert "colorsys" in sys.modules


class TestOptionalFormats:
    @pytest.fixture(autouse=True)
    def _registry(self, monkeypatch):
        """Pillow's tables as they were before the plugins were registered."""
        _pillow.image_suffixes()
        for table in ("ID", "OPEN", "EXTENSION", "MIME", "SAVE", "SAVE_ALL"):
            plain = getattr(Image, table)
            kept = plain.copy()
            monkeypatch.setattr(Image, table, kept)
        _pillow.register_plugins.cache_clear()
        yield
        _pillow.register_plugins.cache_clear()

    def forget(self, name):
        Image.ID[:] = [entry for entry in Image.ID if entry != name]
        Image.OPEN.pop(name, None)

    def test_heif_is_read_without_a_word_from_the_user(self, picture):
        heif = pytest.importorskip("pillow_heif")
        heif.register_heif_opener()
        file = io.BytesIO()
        picture.save(file, "HEIF", quality=95)
        self.forget("HEIF")
        assert decode(file.getvalue()).shape == (64, 64, 3)
        assert ".heic" in _pillow.image_suffixes()

    def test_jpeg_xl_is_read_without_a_word_from_the_user(self, picture, tmp_path):
        pytest.importorskip("pillow_jxl")
        picture.save(tmp_path / "a.jxl", lossless=True)
        np.testing.assert_array_equal(decode(tmp_path / "a.jxl"), np.asarray(picture))
        assert ".jxl" in _pillow.image_suffixes()

    def test_without_the_plugin_the_message_names_it(self, monkeypatch):
        self.forget("HEIF")
        self.forget("JXL")
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        monkeypatch.setitem(sys.modules, "pillow_jxl", None)
        with pytest.raises(ImageError, match="pip install pillow-heif"):
            decode(b"\0\0\0\x18ftypheic" + bytes(100))
        with pytest.raises(ImageError, match="pip install pillow-jxl-plugin"):
            decode(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100))


@pytest.mark.parametrize("way", ["joblib", "multiprocessing"])
def test_what_is_sent_to_a_worker_brings_the_session(way, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SKLEARN_FEATX_SESSION", raising=False)
    dumps = reduction.dumps if way == "joblib" else ForkingPickler.dumps
    clone(PretrainedFeatureExtractor())
    dumps(PretrainedFeatureExtractor(cache=False))
    pickle.dumps(PretrainedFeatureExtractor())
    # Neither a clone nor a saved file has side effects.
    assert "SKLEARN_FEATX_SESSION" not in os.environ
    assert list(tmp_path.iterdir()) == []
    sent = bytes(dumps(make_pipeline(PretrainedFeatureExtractor())))
    (folder,) = tmp_path.iterdir()
    monkeypatch.delenv("SKLEARN_FEATX_SESSION")
    pickle.loads(sent)
    assert os.environ["SKLEARN_FEATX_SESSION"] == str(folder)
