"""One bad file of many: named, left out or NaN; never a lost batch, never a substitute."""

import functools
import os
import re
import sqlite3
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from torch import nn

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
    layer_sweep,
    plan_search,
    precompute,
)
from sklearn_featx.exceptions import ImageError, ImageWarning
from sklearn_featx.flow import row_keys
from sklearn_featx.images import _decode, _items, as_image_collection
from sklearn_featx.store import FeatureStore


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@functools.cache
def bomb():
    """A PNG of less than 2 MB with 2.5 billion pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 10**8))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


# What is wrong with the file, by its name: (content, what the error says).
def faults(good):
    return {
        "truncated.png": (good[: len(good) // 2], "decoded|no image"),
        "zero.jpg": (b"", "0 bytes"),
        "text.jpg": (b"I am a text.\n" * 20, "no image of a format"),
        "movie.png": (b"\0\0\0\x18ftypmp42" + b"\0" * 400, "no image of a format"),
        "bomb.png": (bomb(), "MAX_IMAGE_PIXELS"),
    }


@pytest.fixture
def mixed(digit_files, tmp_path):
    """Good files with bad ones among them: (paths, rows of the bad, what is said of each)."""
    good = [Path(path) for path in digit_files[0][:12]]
    paths, rows, said = [str(path) for path in good], [], {}
    for i, (name, (content, reason)) in enumerate(faults(good[0].read_bytes()).items()):
        path = tmp_path / name
        path.write_bytes(content)
        rows.append(2 * i)
        said[2 * i] = reason
        paths.insert(2 * i, str(path))
    return paths, rows, said


def extractor(net, **parameters):
    settings = {"image_size": 16, "cache": False, "batch_size": 4, "on_error": "nan"}
    return PretrainedFeatureExtractor(net, **settings | parameters)


def without(values, rows):
    return [value for i, value in enumerate(values) if i not in rows]


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


class TestExtractor:
    def test_an_empty_crop_among_pictures(self, small_net):
        picture = Image.new("L", (9, 9), 100)
        extractor = PretrainedFeatureExtractor(small_net, image_size=8, on_error="nan")
        with pytest.warns(ImageWarning, match="row 1: a picture of 0 x 6 pixels is empty"):
            rows = extractor.fit_transform([picture, picture.crop((3, 3, 3, 9)), picture])
        assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]

    @pytest.mark.parametrize("cached", [False, True])
    @pytest.mark.parametrize("n_jobs", [1, 3])
    def test_rows_stay_aligned_and_one_warning_counts_all(
        self, cached, n_jobs, small_net, mixed, store
    ):
        paths, rows, said = mixed
        images = extractor(small_net, cache=store if cached else False, n_jobs=n_jobs)
        for _ in range(2):
            with pytest.warns(ImageWarning) as caught:
                features = images.transform(paths)
            assert len(caught) == 1
            assert str(caught[0].message).startswith("5 of 17 images could not be read")
            assert features.shape == (17, 32)
            assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == rows
            assert np.isnan(features[rows]).all()
            good = without(paths, rows)
            expected = extractor(small_net, on_error="raise").transform(good)
            given = features[~np.isnan(features[:, 0])]
            # Not bitwise: they share their batches with others.
            np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
            assert all(f"row {row} " in str(caught[0].message) for row in rows[:3])
            assert "and 2 more; failures_ lists all." in str(caught[0].message)
            table = pd.DataFrame(images.failures_)
            assert table.columns.tolist() == ["row", "path", "reason"]
            assert table.row.tolist() == rows
            assert table.path.tolist() == [paths[row] for row in rows]
            for reason, pattern in zip(table.reason, said.values(), strict=True):
                assert re.search(pattern, reason)
        if cached:
            assert store.info().n_rows == 12

    def test_the_first_is_named_by_default(self, small_net, mixed, store):
        paths, _, _ = mixed
        for cache in (False, store):
            with pytest.raises(ImageError) as caught:
                extractor(small_net, on_error="raise", cache=cache).transform(paths)
            assert (caught.value.row, caught.value.path) == (0, paths[0])
        assert "on_error" not in str(caught.value)

    def test_no_failure_no_warning_and_an_empty_table(self, small_net, digit_files):
        images = extractor(small_net)
        assert not np.isnan(images.transform(digit_files[0][:5])).any()
        assert images.failures_ == []
        strict = extractor(small_net, on_error="raise")
        strict.transform(digit_files[0][:5])
        assert not hasattr(strict, "failures_")

    def test_what_is_not_there_is_a_row_like_the_others(self, small_net, digit_files, tmp_path):
        good = digit_files[0][0]
        X = [
            good,
            None,
            str(tmp_path / "gone.png"),
            np.nan,
            tmp_path,
            "http://127.0.0.1:9/c.png",
            good,
        ]
        images = extractor(small_net)
        with pytest.warns(ImageWarning, match="5 of 7"):
            features = images.fit(X).transform(X)
        assert [failure.row for failure in images.failures_] == [1, 2, 3, 4, 5]
        assert "no such file" in images.failures_[1].reason
        np.testing.assert_array_equal(features[0], features[6])

    def test_one_bad_file_given_twice_is_two_rows(self, small_net, digit_files, tmp_path, store):
        (tmp_path / "bad.png").write_bytes(b"bad")
        bad = str(tmp_path / "bad.png")
        images = extractor(small_net, cache=store)
        with pytest.warns(ImageWarning, match="2 of 3"):
            images.transform([bad, digit_files[0][0], bad])
        assert [failure.row for failure in images.failures_] == [0, 2]

    @pytest.mark.parametrize("cached", [False, True])
    @pytest.mark.parametrize("n_bad", [1, 3])
    def test_none_readable_is_nan_and_training_refuses(
        self, n_bad, cached, small_net, digit_files, tmp_path, store
    ):
        paths = [str(tmp_path / f"{i}.png") for i in range(n_bad)]
        for path in paths:
            Path(path).write_bytes(b"bad")
        images = extractor(small_net, cache=store if cached else False, normalize=True)
        with pytest.warns(ImageWarning, match=f"{n_bad} of {n_bad} images .* rows are NaN"):
            features = images.transform(paths)
        assert features.shape == (n_bad, 32)
        assert features.dtype == np.float32
        assert np.isnan(features).all()
        assert [failure.path for failure in images.failures_] == paths
        with pytest.raises(ImageError, match=f"None of the {n_bad} images can be read") as caught:
            images.fit_transform(paths)
        assert (caught.value.row, caught.value.path) == (0, paths[0])
        # One alone has the row that it has beside others.
        with pytest.warns(ImageWarning):
            beside = images.transform([digit_files[0][0], *paths])
        np.testing.assert_array_equal(beside[1:], features)

    @pytest.mark.parametrize("layer", [None, "body", ["stem", "top"]])
    def test_none_readable_of_images_that_decide_the_size(self, layer, small_net, digit_files):
        images = extractor(small_net, image_size=None, layer=layer)
        with pytest.raises(ImageError, match="None of the 2 images"):
            images.transform([b"bad", b"worse"])
        expected = images.fit(digit_files[0][:2]).transform(digit_files[0][:2])
        with pytest.warns(ImageWarning, match="2 of 2"):
            features = images.transform([b"bad", b"worse"])
        assert features.shape == expected.shape
        assert np.isnan(features).all()

    def test_a_sweep_without_images_is_an_error(self, small_net):
        images = extractor(small_net)
        with pytest.raises(ImageError, match="None of the 2"):
            layer_sweep(images, RidgeClassifier(), [b"a", b"b"], [0, 1], layers=["top"], cv=2)

    def test_normalized_concatenated_named_and_as_a_frame(self, small_net, mixed):
        paths, rows, _ = mixed
        images = extractor(small_net, normalize=True, layer=["stem", "top"])
        images.set_output(transform="pandas")
        with pytest.warns(ImageWarning):
            frame = images.fit(paths).transform(paths)
        assert frame.isna().all(axis=1).to_numpy().nonzero()[0].tolist() == rows
        norms = np.linalg.norm(frame.dropna().to_numpy(), axis=1)
        np.testing.assert_allclose(norms, 1, rtol=1e-6)

    def test_size_from_the_first_readable_image(self, small_net, digit_files, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"bad")
        X = [str(tmp_path / "bad.png"), *digit_files[0][:3]]
        images = extractor(small_net, image_size=None, layer="body", pooling="flatten")
        with pytest.warns(ImageWarning):
            assert images.fit(X).transform(X).shape == (4, 16 * 4 * 4)
        with pytest.raises(ImageError, match="row 0"):
            images.set_params(on_error="raise").fit(X)
        with pytest.raises(ImageError, match="None of the 1"):
            images.set_params(on_error="nan").fit(X[:1])

    def test_a_preprocessing_that_fails_is_a_failure_too(self, small_net, digits):
        def prepare(picture):
            if np.asarray(picture).sum() == np.asarray(digits[0][3]).sum():
                raise KeyError("nose")
            return torch.zeros(1, 8, 8)

        images = extractor(small_net, preprocessing=prepare)
        with pytest.warns(ImageWarning, match="preprocessing raised KeyError: 'nose'"):
            features = images.transform(digits[0][:6])
        assert np.isnan(features[3]).all()

    def test_a_long_list_is_shortened_in_the_text_only(self, small_net, digit_files, tmp_path):
        bad = []
        for i in range(120):
            bad.append(str(tmp_path / f"{i}.png"))
            Path(bad[-1]).write_bytes(b"")
        images = extractor(small_net)
        with pytest.warns(ImageWarning) as caught:
            images.transform([digit_files[0][0], *bad])
        text = str(caught[0].message)
        assert text.startswith("120 of 121")
        assert text.endswith("and 117 more; failures_ lists all.")
        assert len(text) <= 300
        assert "\n" not in text
        assert len(images.failures_) == 120

    def test_claims_on_bad_rows_are_given_back(self, small_net, mixed, store):
        with pytest.warns(ImageWarning):
            extractor(small_net, cache=store).transform(mixed[0])
        assert n_claims(store) == 0
        with pytest.raises(ImageError):
            extractor(small_net, cache=store, on_error="raise", image_size=17).transform(mixed[0])
        assert n_claims(store) == 0

    def test_the_other_tools_leave_them_out(self, small_net, mixed, store):
        paths, rows, _ = mixed
        labels = np.arange(17) % 2
        images = extractor(small_net, cache=store)
        planned = plan_search(images, paths, timed=False)
        assert (planned.n_images, planned.n_distinct) == (17, 17)
        precompute(images, paths)
        assert store.info().n_rows == 12
        with pytest.warns(ImageWarning, match="left out of the scores"):
            table = layer_sweep(images, RidgeClassifier(), paths, labels, layers=["top"], cv=2)
        good = layer_sweep(
            images, RidgeClassifier(), without(paths, rows), without(labels, rows),
            layers=["top"], cv=2,
        )  # fmt: skip
        assert table == good


def n_claims(store):
    total = 0
    for path in Path(store.path).rglob("*.sqlite*"):
        if path.suffix in (".sqlite", ".sqlite3", ".db"):
            with closing(sqlite3.connect(path)) as connection:
                total += connection.execute("SELECT count(*) FROM claims").fetchone()[0]
    return total


class TestFineTuners:
    @pytest.fixture
    def labels(self):
        return np.array(["a", "b"] * 9)[:17]

    @pytest.mark.parametrize("depth", [0, 1, "all"])
    @pytest.mark.parametrize("cached", [False, True])
    def test_a_fit_leaves_them_out_and_says_which(
        self, depth, cached, small_net, mixed, labels, store
    ):
        paths, rows, _ = mixed
        settings = {
            "unfreeze_depth": depth, "image_size": 16, "max_epochs": 2, "random_state": 0, "C": 1.0,
            "batch_size": 4, "cache": store if cached else False,
        }  # fmt: skip
        clf = FineTuneClassifier(small_net, on_error="nan", **settings)
        with pytest.warns(ImageWarning, match=r"5 of 17 .*left out of the training") as caught:
            clf.fit(paths, labels)
        assert len(caught) == 1
        assert [failure.row for failure in clf.failures_] == rows
        plain = FineTuneClassifier(small_net, **settings)
        plain.fit(without(paths, rows), without(labels, rows))
        for name, values in plain.trained_state_.items():
            np.testing.assert_allclose(clf.trained_state_[name], values, rtol=1e-3, atol=1e-4)
        assert plain.failures_ == []

    @pytest.fixture
    def fitted(self, small_net, mixed, labels):
        paths, rows, _ = mixed
        clf = FineTuneClassifier(
            small_net, unfreeze_depth=0, image_size=16, C=1.0, on_error="nan", cache=False
        )
        return clf.fit(without(paths, rows), without(labels, rows))

    def test_predictions_without_evidence_are_the_prior(self, fitted, mixed):
        paths, rows, _ = mixed
        good = without(paths, rows)
        # Four of the twelve readable images are "a".
        prior = [4 / 12, 8 / 12]
        np.testing.assert_allclose(fitted.class_prior_, prior)
        with pytest.warns(ImageWarning, match="5 of 17 .*shares of the classes") as caught:
            probabilities = fitted.predict_proba(paths)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert [failure.row for failure in fitted.failures_] == rows
        np.testing.assert_allclose(probabilities[rows], np.tile(prior, (5, 1)))
        np.testing.assert_allclose(
            without(probabilities, rows), fitted.predict_proba(good), rtol=1e-5
        )
        assert fitted.failures_ == []
        with pytest.warns(ImageWarning) as caught:
            labels = fitted.predict(paths)
        assert caught[0].filename == __file__
        assert [failure.path for failure in fitted.failures_] == [paths[row] for row in rows]
        assert set(labels[rows]) == {"b"}
        assert without(labels, rows) == fitted.predict(good).tolist()
        # One alone has the same answer.
        with pytest.warns(ImageWarning, match="1 of 1"):
            np.testing.assert_allclose(fitted.predict_proba(paths[:1]), [prior])
        fitted.set_params(on_error="raise")
        with pytest.raises(ImageError) as error:
            fitted.predict(paths)
        assert (error.value.row, error.value.path) == (0, paths[0])

    def test_predictions_in_slices_name_the_rows_of_the_whole(self, fitted, mixed, monkeypatch):
        from sklearn_featx.flow import _activations

        monkeypatch.setattr(_activations, "_SLICE_BYTES", 1)
        monkeypatch.setattr("sklearn_featx.estimators._finetune_base._ROWS_PER_PREDICTION", 2)
        with pytest.warns(ImageWarning) as caught:
            probabilities = fitted.predict_proba(mixed[0])
        np.testing.assert_allclose(probabilities[mixed[1]], np.tile(fitted.class_prior_, (5, 1)))
        assert [failure.row for failure in fitted.failures_] == mixed[1]
        assert all(f"row {row} " in str(caught[0].message) for row in mixed[1][:3])

    @pytest.mark.parametrize("depth", [0, 1])
    def test_a_regressor_predicts_the_mean(self, depth, small_net, mixed):
        paths, rows, _ = mixed
        targets = np.linspace(-1, 3, 17)
        settings = {"unfreeze_depth": depth, "image_size": 16, "max_epochs": 1, "random_state": 0}
        reg = FineTuneRegressor(small_net, on_error="nan", C=1.0, cache=False, **settings)
        with pytest.warns(ImageWarning):
            reg.fit(paths, targets)
        with pytest.warns(ImageWarning):
            predicted = reg.predict(paths)
        np.testing.assert_allclose(predicted[rows], np.mean(without(targets, rows)))
        plain = FineTuneRegressor(small_net, C=1.0, cache=False, **settings)
        plain.fit(without(paths, rows), np.array(without(targets, rows)))
        expected = plain.predict(without(paths, rows))
        np.testing.assert_allclose(without(predicted, rows), expected, rtol=1e-4, atol=1e-6)

    def test_weights_follow_their_images(self, small_net, mixed, labels):
        paths, rows, _ = mixed
        weights = np.arange(17.0) % 4
        settings = {"unfreeze_depth": 0, "image_size": 16, "C": 1.0, "cache": False}
        clf = FineTuneClassifier(small_net, on_error="nan", **settings)
        with pytest.warns(ImageWarning):
            clf.fit(paths, labels, sample_weight=weights)
        # Images without weight are not read at all.
        assert [failure.row for failure in clf.failures_] == [r for r in rows if weights[r]]
        plain = FineTuneClassifier(small_net, **settings).fit(
            without(paths, rows), without(labels, rows), sample_weight=without(weights, rows)
        )
        good = without(paths, rows)
        np.testing.assert_allclose(clf.predict_proba(good), plain.predict_proba(good), rtol=1e-6)

    def test_partial_fit_leaves_them_out(self, small_net, mixed, labels):
        paths, rows, _ = mixed
        clf = FineTuneClassifier(small_net, image_size=16, cache=False, on_error="nan")
        for _ in range(2):
            with pytest.warns(ImageWarning, match="5 of 17"):
                clf.partial_fit(paths, labels, classes=["a", "b"])
            assert [failure.row for failure in clf.failures_] == rows

    def test_large_rows_in_the_store(self, small_net, mixed, labels, store, monkeypatch):
        from sklearn_featx.flow import _activations

        monkeypatch.setattr(_activations, "_HELD_BYTES", 1)
        clf = FineTuneClassifier(
            small_net, image_size=16, cache=store, on_error="nan", max_epochs=1, C=1.0
        )
        with pytest.warns(ImageWarning, match="5 of 17"):
            clf.fit(mixed[0], labels)

    @pytest.mark.parametrize("n_views", [2, None])
    def test_views_of_what_can_be_read(self, n_views, small_net, mixed, labels, store):
        clf = FineTuneClassifier(
            small_net, image_size=16, cache=store, on_error="nan", max_epochs=2, C=1.0,
            augment="light", n_views=n_views,
        )  # fmt: skip
        with pytest.warns(ImageWarning, match="5 of 17") as caught:
            clf.fit(mixed[0], labels)
        assert len(caught) == 1

    def test_a_class_of_which_nothing_is_left(self, small_net, mixed):
        paths, rows, _ = mixed
        labels = np.array(["bad" if i in rows else "good" for i in range(17)])
        clf = FineTuneClassifier(small_net, image_size=16, cache=False, on_error="nan")
        with (
            pytest.warns(ImageWarning),
            pytest.raises(ValueError, match=r"only one class: .*'good'"),
        ):
            clf.fit(paths, labels)


class FirstPixel(nn.Module):
    """Gives the mean of a gray image, so that a row tells which picture it was."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return (x * self.scale).mean((2, 3))


def gray(path, level):
    Image.new("L", (8, 8), level).save(path)
    return str(path)


class TestDuringTheRun:
    """Files that vanish or change while rows are computed."""

    @pytest.fixture(params=["known", "unknown"])
    def paths(self, request, tmp_path, store, monkeypatch):
        """Files whose digests the store knows, or has yet to learn."""
        monkeypatch.setattr("sklearn_featx._digest._RACY_NS", -(10**18))
        paths = [gray(tmp_path / f"{i}.png", 50 * i) for i in range(4)]
        if request.param == "known":
            row_keys(as_image_collection(paths), store)
        return paths

    @pytest.fixture
    def read(self, monkeypatch):
        """Do something to a file just before or after it is read."""
        actions = {}

        def spied(path, original=_decode.read_file):
            actions.pop(("before", path), lambda: None)()
            found = original(path)
            actions.pop(("after", path), lambda: None)()
            return found

        for module in (_decode, _items):
            monkeypatch.setattr(module, "read_file", spied)
        return actions

    def test_a_file_that_vanishes_before_it_is_read(self, paths, store, read):
        read["before", paths[2]] = Path(paths[2]).unlink
        images = extractor(FirstPixel(), cache=store)
        with pytest.warns(ImageWarning, match=r"row 2 .*FileNotFoundError"):
            features = images.transform(paths)
        assert np.isnan(features[:, 0]).tolist() == [False, False, True, False]
        assert n_claims(store) == 0

    def test_a_file_that_vanishes_once_it_is_read_is_not_missed(self, paths, store, read):
        expected = extractor(FirstPixel()).transform(paths)
        read["after", paths[2]] = Path(paths[2]).unlink
        features = extractor(FirstPixel(), cache=store).transform(paths)
        np.testing.assert_array_equal(features, expected)
        assert n_claims(store) == 0

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_file_that_changes_is_never_remembered_as_what_it_was(
        self, when, paths, tmp_path, store, read
    ):
        images = extractor(FirstPixel(), cache=store)
        contents = {"after": Path(paths[1]).read_bytes()}
        levels = {"after": extractor(FirstPixel()).transform(paths)[1, 0]}
        gray(tmp_path / "other.png", 200)
        contents["before"] = (tmp_path / "other.png").read_bytes()
        levels["before"] = images.transform([tmp_path / "other.png"])[0, 0]

        def change():
            gray(paths[1], 200)
            os.utime(paths[1], (1e9, 1e9))

        read[when, paths[1]] = change
        # The row is that of the bytes that were read.
        assert images.transform(paths)[1, 0] == levels[when]
        assert n_claims(store) == 0
        # Neither the new file nor one with the content of before finds a row of the other.
        assert images.transform(paths)[1, 0] == levels["before"]
        for name, content in contents.items():
            copy = tmp_path / f"copy {name}.png"
            copy.write_bytes(content)
            assert images.transform([copy])[0, 0] == levels[name]
        assert levels["before"] != levels["after"]

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
    def test_a_file_without_permission(self, tmp_path):
        paths = [gray(tmp_path / f"{i}.png", 50) for i in range(2)]
        Path(paths[1]).chmod(0)
        with pytest.warns(ImageWarning, match=r"row 1 .*PermissionError"):
            extractor(FirstPixel()).transform(paths)


class TestOddButGood:
    def test_the_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("L", (8, 8), level) for level in (40, 200, 250)]
        for name in ("a.gif", "a.webp", "a.png", "a.tif"):
            frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        still = gray(tmp_path / "still.png", 40)
        reader = ImageReader(frames=0)
        features = extractor(FirstPixel(), on_error="raise", reader=reader).transform(
            [still, *(tmp_path / name for name in ("a.gif", "a.webp", "a.png", "a.tif"))]
        )
        np.testing.assert_allclose(features[1:], np.repeat(features[:1], 4, axis=0), atol=0.02)

    @pytest.mark.parametrize("size", [(1, 1), (30_000, 10), (10, 30_000), (1, 5000)])
    def test_odd_sizes(self, size, tmp_path, small_net):
        path = tmp_path / "odd.png"
        Image.new("L", size, 90).save(path)
        (features,) = extractor(small_net, on_error="raise").transform([path])
        (plain,) = extractor(small_net).transform([np.full((16, 16), 90, np.uint8)])
        np.testing.assert_allclose(features, plain, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", ["jpeg.png", "noextension", "png.jpg", "gif.txt"])
    def test_the_content_counts_not_the_name(self, name, tmp_path):
        kind = {"jpeg.png": "JPEG", "noextension": "BMP", "png.jpg": "PNG", "gif.txt": "GIF"}[name]
        Image.new("L", (8, 8), 77).save(tmp_path / name, format=kind)
        given = extractor(FirstPixel(), on_error="raise").transform([tmp_path / name])
        plain = extractor(FirstPixel()).transform([gray(tmp_path / "plain.png", 77)])
        np.testing.assert_allclose(given, plain, atol=0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="others do not tell a peak so")
def test_a_bomb_takes_less_than_100_mib(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    # `resource.getrusage` would count what this process has in memory, which is more.
    script = (
        "import pathlib, sys; from sklearn_featx.images import decode;"
        "from sklearn_featx.exceptions import ImageError\n"
        "status = lambda: pathlib.Path('/proc/self/status').read_text()\n"
        "peak = lambda: int(status().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\n"
        "try: decode(sys.argv[1])\n"
        "except ImageError: print((peak() - before) // 1024)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "bomb.png")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert int(ran.stdout) < 100
