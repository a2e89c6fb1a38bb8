"""One pipeline over a whole call: counted batches, opened files, claims and workers."""

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.engines import Workers
from sklearn_featx.engines._torch import TorchEngine
from sklearn_featx.exceptions import ImageError
from sklearn_featx.flow import _claims, _compute
from sklearn_featx.images import _decode, _items
from sklearn_featx.store import FeatureStore, RecipeRows


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def many():
    """600 images, no two alike."""
    images = np.zeros((600, 8, 8), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(600) % 256, np.arange(600) // 256
    return images


@pytest.fixture
def files(tmp_path):
    """40 files, no two alike, of which the last ten have the content of the first."""
    paths = []
    for i in range(40):
        paths.append(str(tmp_path / f"{i:02d}.png"))
        Image.new("L", (8, 8), 5 * (i % 30)).save(paths[-1])
        os.utime(paths[-1], (1e9, 1e9))
    return paths


@pytest.fixture
def opened(monkeypatch):
    """How often each file is opened while the test runs."""
    counts = Counter()

    def spied(path, original=_decode.read_file):
        counts[path] += 1
        return original(path)

    for module in (_decode, _items):
        monkeypatch.setattr(module, "read_file", spied)
    return counts


@pytest.fixture
def pools(monkeypatch):
    """Number of pools of threads that are started."""
    from sklearn_featx import _parallel

    started = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, *args, **kwargs):
            started.append(args)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(_parallel, "ThreadPoolExecutor", Counted)
    return started


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """An engine that computes in two workers what other threads read."""
    monkeypatch.setattr(TorchEngine, "computes_where_it_reads", False)
    monkeypatch.setattr(
        TorchEngine, "workers", lambda engine, n_batches, n_jobs: Workers(2, 2, lambda: None)
    )


def meet(monkeypatch, n_workers):
    """Let each batch wait until so many are computed at the same time; return their sizes."""
    together, rows, original = threading.Barrier(n_workers), [], TorchEngine.run

    def run(engine, batch):
        rows.append(len(batch))
        together.wait(timeout=30)
        return original(engine, batch)

    monkeypatch.setattr(TorchEngine, "run", run)
    return rows


def extractor(net, store, **parameters):
    settings = {"image_size": 8, "cache": store, "batch_size": 50, "n_jobs": 2}
    return PretrainedFeatureExtractor(net, **settings | parameters)


class TestOnePipeline:
    def test_two_batches_are_on_a_gpu_all_the_time(
        self, small_net, many, store, monkeypatch, pools, as_on_a_gpu
    ):
        expected = extractor(small_net, False).transform(many)
        del pools[:]
        rows = meet(monkeypatch, 2)
        features = extractor(small_net, store).transform(many)
        np.testing.assert_array_equal(features, expected)
        # Every batch met another one: there was no end of a claim at which one was alone.
        assert rows == [50] * 12
        # One that reads and one that computes, for the whole call.
        assert len(pools) == 2

    def test_all_workers_of_a_processor_compute_all_the_time(
        self, small_net, many, store, monkeypatch, pools
    ):
        rows = meet(monkeypatch, 12)
        extractor(small_net, store, n_jobs=12).transform(many)
        assert rows == [50] * 12
        assert len(pools) == 1

    def test_batches_are_cut_as_without_a_store(self, small_net, files, store, trunk_rows):
        extractor(small_net, False, batch_size=16).transform(files)
        plain = sorted(trunk_rows)
        del trunk_rows[:]
        extractor(small_net, store, batch_size=16).transform(files[:30])
        assert plain == [8, 16, 16]
        assert sorted(trunk_rows) == [14, 16]

    def test_memory_is_bounded(self, small_net, many, store, monkeypatch, as_on_a_gpu):
        """Of 600 images, few are read before the first batch is computed."""
        read, first = [], []
        load, run = _compute.iterate_batches, TorchEngine.run

        def note(engine, batch):
            first.append(len(read))
            return run(engine, batch)

        def counted(images, positions, prepare, **settings):
            def prepared(item):
                read.append(1)
                return np.ascontiguousarray(item)

            return load(images, positions, prepared, **settings)

        monkeypatch.setattr(_compute, "iterate_batches", counted)
        monkeypatch.setattr(TorchEngine, "run", note)
        extractor(small_net, store, batch_size=16).transform(many)
        assert len(read) == 600
        assert first[0] < 250


class TestFiles:
    @pytest.mark.parametrize("gpu", [False, True])
    def test_each_cold_file_is_opened_once(
        self, gpu, small_net, files, store, opened, trunk_rows, request
    ):
        expected = extractor(small_net, False).transform(files)
        opened.clear()
        del trunk_rows[:]
        if gpu:
            request.getfixturevalue("as_on_a_gpu")
        images = extractor(small_net, store, batch_size=8)
        np.testing.assert_allclose(images.transform(files), expected, rtol=1e-5, atol=1e-6)
        assert opened == dict.fromkeys(files, 1)
        # Copies are told by their digests, before they are decoded.
        assert sum(trunk_rows) == 30

    def test_files_of_known_content_are_not_decoded(
        self, small_net, files, store, opened, trunk_rows, tmp_path, monkeypatch
    ):
        """Another path, the same bytes: read once for the digest, which is then remembered."""
        images = extractor(small_net, store, batch_size=8)
        expected = images.transform(files)
        moved = []
        for path in files:
            moved.append(path.replace(".png", " moved.png"))
            Path(path).rename(moved[-1])
        opened.clear()
        del trunk_rows[:]
        monkeypatch.setattr(_items, "decode_resized", None)
        monkeypatch.setattr("sklearn_featx._digest._RACY_NS", -(10**18))
        np.testing.assert_array_equal(images.transform(moved), expected)
        assert opened == dict.fromkeys(moved, 1)
        assert trunk_rows == []
        opened.clear()
        np.testing.assert_array_equal(images.transform(moved), expected)
        assert not opened

    def test_few_large_files_are_open_at_once(self, small_net, files, store, monkeypatch):
        """Each is decoded before the next one is opened where two do not fit."""
        events = []

        def spied(path, original=_items.read_file):
            events.append("open")
            return original(path)

        def decoded(*args, original=_items.decode_resized):
            events.append("decode")
            return original(*args)

        monkeypatch.setattr(_claims, "_MOST_OPEN_BYTES", 1)
        monkeypatch.setattr(_items, "read_file", spied)
        monkeypatch.setattr(_items, "decode_resized", decoded)
        extractor(small_net, store, n_jobs=1).transform(files[:30])
        assert events == ["open", "decode"] * 30

    def test_only_the_taps_that_are_missing_are_computed(
        self, small_net, files, store, trunk_rows, monkeypatch
    ):
        """Also of files whose content is known only when they are read."""
        monkeypatch.setattr("sklearn_featx._digest._RACY_NS", 10**18)
        first = extractor(small_net, store, layer="body").transform(files[:20])
        del trunk_rows[:]
        both = extractor(small_net, store, layer=["body", "top"])
        features = both.transform(files[:30])
        assert sum(trunk_rows) == 30
        np.testing.assert_array_equal(features[:20, : first.shape[1]], first)
        plain = extractor(small_net, False, layer=["body", "top"]).transform(files[:30])
        np.testing.assert_allclose(features, plain, rtol=1e-5, atol=1e-6)


class TestClaims:
    @pytest.fixture
    def claimed(self, monkeypatch):
        """Keys that are claimed, and those that are claimed and neither written nor released."""
        every, open_ = [], set()
        claim, put, release = RecipeRows.claim, RecipeRows.put_many, RecipeRows.release

        def claims(rows, keys):
            found = claim(rows, keys)
            every.extend(keys[i] for i in found)
            open_.update(keys[i] for i in found)
            return found

        monkeypatch.setattr(RecipeRows, "claim", claims)
        monkeypatch.setattr(
            RecipeRows, "put_many", lambda r, k, v: (put(r, k, v), open_.difference_update(k))[0]
        )
        monkeypatch.setattr(
            RecipeRows, "release", lambda r, k: (release(r, k), open_.difference_update(k))[0]
        )
        return every, open_

    @pytest.mark.parametrize("error", [ImageError("broken"), KeyboardInterrupt()], ids=repr)
    @pytest.mark.parametrize("gpu", [False, True])
    def test_none_is_left_after_an_error(
        self, gpu, error, small_net, files, store, claimed, monkeypatch, request
    ):
        if gpu:
            request.getfixturevalue("as_on_a_gpu")
        calls, original = [], TorchEngine.run

        def run(engine, batch):
            calls.append(1)
            # At most four passes are in flight: before the sixth, some results were taken.
            if len(calls) == 6:
                raise error
            return original(engine, batch)

        monkeypatch.setattr(TorchEngine, "run", run)
        with pytest.raises(type(error)):
            extractor(small_net, store, batch_size=4).transform(files)
        assert len(claimed[0]) >= 8
        assert claimed[1] == set()
        assert not [t for t in threading.enumerate() if t.name.startswith("featx")]
        assert 0 < store.info().n_rows < 30

    def test_what_others_compute_is_waited_for(self, small_net, files, store, trunk_rows):
        """A thread that has claimed some of the images writes them while this one waits."""
        images = extractor(small_net, store, batch_size=8)
        expected = extractor(small_net, False).transform(files[:30])
        del trunk_rows[:]
        recipe = images._recipe()
        rows = store.rows(recipe.digest(recipe.taps[0]))
        keys = [images._images(files, reset=False).digest(i) for i in range(10)]
        held, waited = threading.Event(), threading.Event()

        def other():
            rows.claim(keys)
            held.set()
            waited.wait(timeout=30)
            rows.put_many(keys, expected[:10])

        thread = threading.Thread(target=other)
        thread.start()
        held.wait(timeout=30)
        wait = RecipeRows.wait

        def waits(rows, keys, timeout):
            waited.set()
            return wait(rows, keys, timeout)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RecipeRows, "wait", waits)
            features = images.transform(files[:30])
        thread.join()
        assert sum(trunk_rows) == 20
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
