"""The estimate of time: sizes come from headers, and each size of images is timed."""

import numpy as np
import pytest
from PIL import Image

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.images import as_image_collection
from sklearn_featx.model_selection import _calls, _ledger, _timing


@pytest.fixture
def files(photographs, tmp_path):
    """Real crops of 40 x 40 pixels, and two whole photographs, as JPEG files."""
    paths = []
    for i in range(20):
        crop = photographs[i % 2][10 * i : 10 * i + 40, 20 * i : 20 * i + 40]
        paths.append(tmp_path / f"{i:02d}.jpg")
        Image.fromarray(crop).save(paths[-1])
    for i, photograph in enumerate(photographs):
        paths.append(tmp_path / f"large {i}.jpg")
        Image.fromarray(photograph).save(paths[-1])
    return [str(path) for path in paths]


def test_strata_differ_by_a_factor_of_two():
    sizes = np.array([100, 4000, 150, 200, 201, 100, 9000])
    groups = [sizes[stratum].tolist() for stratum in _timing.strata(sizes)]
    assert groups == [[100, 100, 150, 200], [201], [4000], [9000]]
    assert len(list(_timing.strata(np.zeros(5, dtype=int)))) == 1


def test_sizes_come_from_headers(files, photographs, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    content = (tmp_path / "00.jpg").read_bytes()
    entries = [*files[-1:], content, Image.fromarray(photographs[0]), tmp_path / "broken.jpg"]
    images = as_image_collection(entries)
    sizes = [images.n_pixels(i) for i in range(len(images))]
    assert sizes == [427 * 640, 1600, 427 * 640, None]


def test_each_size_is_timed_and_counts_as_often_as_it_comes(files, small_net, monkeypatch):
    calls = _calls.Calls(files, None, asked_by="test")
    extractor = PretrainedFeatureExtractor(small_net, image_size=16, cache=False)
    calls.all_jobs(extractor)
    ledger = _ledger.Ledger()
    for call in calls.fit(extractor, np.arange(len(files))):
        ledger.enter(call)

    def seconds(load, positions):
        return sum(load.job.images.n_pixels(i) for i in positions.tolist()) / 1e6

    monkeypatch.setattr(_timing, "_timed", seconds)
    expected = (20 * 1600 + 2 * 427 * 640) / 1e6
    assert _timing.minutes(ledger.loads()) * 60 == pytest.approx(expected)


def test_a_sample_has_few_pixels():
    sizes = np.full(30, 100_000_000)
    (stratum,) = _timing.strata(sizes)
    assert len(_timing._sample(stratum, sizes)) == 1
    assert len(_timing._sample(stratum, sizes // 100)) == 8
