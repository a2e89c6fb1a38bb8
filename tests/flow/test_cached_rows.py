"""A frozen row is computed once: proven by counting decodes and passes, not by clocks."""

import copy
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.exceptions import StoreWarning
from sklearn_featx.flow import Tap, _cache
from sklearn_featx.images import ImageCollection
from sklearn_featx.store import FeatureStore


@pytest.fixture
def decodes(monkeypatch):
    """Paths of the files that are decoded while the test runs."""
    from sklearn_featx.images import _items

    paths = []
    for name in ("decode", "decode_resized"):
        original = getattr(_items, name)

        def spy(source, *recipe, _original=original):
            paths.append(source)
            return _original(source, *recipe)

        monkeypatch.setattr(_items, name, spy)
    return paths


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def tuner(backbone, **parameters):
    settings = {"max_epochs": 2, "random_state": 0, "C": 1.0, "image_size": 16, "batch_size": 8}
    return FineTuneClassifier(backbone, **settings | parameters)


class TestOnce:
    def test_a_search_runs_the_trunk_once_per_image_and_split(
        self, small_net, digits, store, trunk_rows
    ):
        n = len(digits[0])
        grid = {"unfreeze_depth": [0, 1, 2, 3], "lr": [1e-3, 1e-2]}
        search = GridSearchCV(tuner(small_net, cache=store), grid, cv=2, refit=False)
        search.fit(*digits)
        # The embeddings and the activations at two splits; depth 3 starts at the pixels.
        assert sum(trunk_rows) == 3 * n
        trunk_rows.clear()
        search.fit(*digits)
        assert trunk_rows == []

    def test_a_second_run_decodes_nothing_and_runs_nothing(
        self, small_net, digit_files, store, decodes, trunk_rows
    ):
        paths, _ = digit_files
        extractor = PretrainedFeatureExtractor(small_net, image_size=16, cache=store)
        first = extractor.transform(paths)
        assert len(decodes) == sum(trunk_rows) == 60
        decodes.clear()
        trunk_rows.clear()
        np.testing.assert_array_equal(extractor.transform(paths), first)
        assert decodes == trunk_rows == []

    def test_a_warm_run_opens_no_file(self, small_net, digit_files, store, monkeypatch):
        paths, _ = digit_files
        # A file that changed within the last two seconds is not trusted otherwise.
        monkeypatch.setattr("sklearn_featx._digest._RACY_NS", 0)
        extractor = PretrainedFeatureExtractor(small_net, image_size=16, cache=store)
        first = extractor.transform(paths)

        def refuse(*_):
            raise AssertionError("a file was opened")

        for cls in ImageCollection.__subclasses__():
            monkeypatch.setattr(cls, "load", refuse)
            monkeypatch.setattr(cls, "digest", refuse)
            monkeypatch.setattr(cls, "opened", refuse)
        np.testing.assert_array_equal(extractor.transform(paths), first)

    def test_shuffled_subset_and_grown_compute_only_what_is_new(
        self, small_net, digits, store, trunk_rows
    ):
        images, _ = digits
        extractor = PretrainedFeatureExtractor(small_net, cache=store)
        first = extractor.transform(images[:40])
        trunk_rows.clear()
        np.testing.assert_array_equal(extractor.transform(images[:40][::-1]), first[::-1])
        np.testing.assert_array_equal(extractor.transform(images[5:9]), first[5:9])
        assert trunk_rows == []
        grown = extractor.transform(images)
        assert sum(trunk_rows) == 20
        np.testing.assert_array_equal(grown[:40], first)

    def test_duplicates_are_computed_once(self, small_net, digits, store, trunk_rows):
        images = digits[0][np.array([0, 1, 0, 0, 1])]
        features = PretrainedFeatureExtractor(small_net, cache=store).transform(images)
        assert sum(trunk_rows) == 2
        np.testing.assert_array_equal(features[0], features[3])

    def test_a_downstream_search_embeds_each_image_once(self, small_net, digits, store, trunk_rows):
        pipe = Pipeline(
            [
                ("images", PretrainedFeatureExtractor(small_net, cache=store)),
                ("clf", LogisticRegression(max_iter=1000)),
            ]
        )
        GridSearchCV(pipe, {"clf__C": [0.1, 1, 10, 100]}, cv=3).fit(*digits)
        assert sum(trunk_rows) == len(digits[0])

    def test_the_probe_and_the_extractor_share_rows(self, small_net, digits, store, trunk_rows):
        PretrainedFeatureExtractor(small_net, image_size=16, cache=store).transform(digits[0])
        trunk_rows.clear()
        tuner(small_net, unfreeze_depth=0, cache=store).fit(*digits).predict(digits[0])
        assert trunk_rows == []

    @pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given:UserWarning")
    def test_two_workers_share_the_store_and_agree_with_one(self, digits, store):
        images, labels = digits[0][:24], digits[1][:24]
        clf = tuner("efficientnet_lite0", unfreeze_depth=1, image_size=32, cache=store)
        asked = {"cv": 2, "method": "predict_proba"}
        two = cross_val_predict(clf, images, labels, n_jobs=2, **asked)
        # The embeddings, and the activations before the last stage.
        assert store.info().n_rows == 48
        one = cross_val_predict(clf, images, labels, **asked)
        assert store.info().n_rows == 48
        np.testing.assert_allclose(one, two, atol=1e-4)


class TestFolders:
    def test_only_the_last_ones_are_held_open(self, small_net, digits, tmp_path):
        # Each holds files open, and a process may have 256 of them.
        rows = [
            PretrainedFeatureExtractor(small_net, cache=tmp_path / str(i)).transform(digits[0][:2])
            for i in range(_cache._MOST_KEPT + 2)
        ]
        assert len(_cache._kept) == _cache._MOST_KEPT
        first = PretrainedFeatureExtractor(small_net, cache=tmp_path / "0")
        np.testing.assert_array_equal(first.transform(digits[0][:2]), rows[0])
        assert FeatureStore(tmp_path / "0").info().n_rows == 2


class TestSame:
    @pytest.mark.parametrize("depth", [0, 1, 2, 3])
    def test_on_off_warm_and_cold_are_bitwise_identical(self, depth, small_net, digits, store):
        results = []
        for cache in (False, store, store, True, False):
            clf = tuner(small_net, unfreeze_depth=depth, cache=cache).fit(*digits)
            losses = [epoch["train_loss"] for epoch in clf.history_]
            results.append((losses, clf.predict_proba(digits[0])))
        for losses, probabilities in results[1:]:
            assert losses == results[0][0]
            np.testing.assert_array_equal(probabilities, results[0][1])

    def test_other_types_of_storage_give_what_they_give_again(self, small_net, digits, tmp_path):
        exact = PretrainedFeatureExtractor(small_net, cache=False).transform(digits[0])
        for storage, tolerance in (("float16", 1e-3), ("bfloat16", 1e-2)):
            store = FeatureStore(tmp_path / storage, storage=storage)
            extractor = PretrainedFeatureExtractor(small_net, cache=store)
            cold = extractor.transform(digits[0])
            np.testing.assert_array_equal(extractor.transform(digits[0]), cold)
            np.testing.assert_allclose(cold, exact, rtol=tolerance, atol=tolerance)
            assert not np.array_equal(cold, exact)

    def test_an_interrupted_run_keeps_what_it_had(self, small_net, digits, store, monkeypatch):
        from sklearn_featx.engines._torch import TorchEngine

        original, calls = TorchEngine.run, []

        def interrupted(engine, batch):
            calls.append(len(batch))
            if len(calls) == 4:
                raise KeyboardInterrupt
            return original(engine, batch)

        monkeypatch.setattr(TorchEngine, "run", interrupted)
        extractor = PretrainedFeatureExtractor(small_net, cache=store, batch_size=10)
        with pytest.raises(KeyboardInterrupt):
            extractor.transform(digits[0])
        assert store.info().n_rows == 30
        del calls[:]
        extractor.transform(digits[0])
        assert sum(calls) == 30


def one_ulp(tensor):
    tensor.view(torch.int32)[0].add_(1)


CHANGES = {
    "one weight by one ulp": lambda e: e.backbone.stem[0].weight.data.view(torch.int32)[0].add_(1),
    "one buffer": lambda e: e.backbone.body[1].running_mean[0].add_(1e-6),
    "a batch count": lambda e: e.backbone.body[1].num_batches_tracked.add_(1),
    "image_size": lambda e: e.set_params(image_size=17),
    "layer": lambda e: e.set_params(layer="body"),
    "pooling": lambda e: e.set_params(pooling="max", layer="top"),
    "stride": lambda e: setattr(e.backbone.body[0], "stride", (1, 1)),
    "padding mode": lambda e: setattr(e.backbone.body[0], "padding_mode", "circular"),
    "eps": lambda e: setattr(e.backbone.body[1], "eps", 1e-3),
    "activation": lambda e: e.backbone.set_submodule("body.2", torch.nn.GELU()),
}


class TestKeys:
    """What must miss, and what must hit."""

    @pytest.fixture
    def known(self, small_net, digits, store):
        extractor = PretrainedFeatureExtractor(small_net, cache=store, image_size=16)
        extractor.transform(digits[0])
        return extractor

    @pytest.mark.parametrize("change", CHANGES)
    def test_one_change_is_a_miss(self, change, known, digits, trunk_rows):
        CHANGES[change](known)
        known.transform(digits[0])
        assert sum(trunk_rows) == 60

    def test_one_pixel_is_a_miss(self, known, digits, trunk_rows):
        images = digits[0].copy()
        images[7, 3, 3] ^= 1
        known.transform(images)
        assert trunk_rows == [1]

    @pytest.mark.parametrize(
        ("change", "computed"),
        [
            ({"mean": (0.4, 0.5, 0.5)}, 4),
            ({"std": (0.5, 0.5, 0.4)}, 4),
            ({"interpolation": "bilinear"}, 4),
            ({"resize": 260}, 4),
            ({"crop": (222, 224)}, 4),
            ({"channels": 3}, 0),
        ],
    )
    def test_every_part_of_the_recipe_counts(
        self, change, computed, digits, store, trunk_rows, monkeypatch
    ):
        from dataclasses import replace

        from sklearn_featx.backbones import get_backbone

        extractor = PretrainedFeatureExtractor(cache=store)
        backbone = get_backbone("efficientnet_lite0")
        extractor.transform(digits[0][:4])
        trunk_rows.clear()
        monkeypatch.setattr(backbone, "preprocess", replace(backbone.preprocess, **change))
        extractor.transform(digits[0][:4])
        assert sum(trunk_rows) == computed

    @pytest.mark.parametrize(
        "same",
        [
            clone,
            copy.deepcopy,
            lambda e: pickle.loads(pickle.dumps(e)),
            lambda e: e.set_params(batch_size=3),
            lambda e: e.set_params(n_jobs=2),
            lambda e: e.set_params(verbose=1),
        ],
    )
    def test_the_same_work_is_a_hit(self, same, known, digits, trunk_rows):
        same(known).transform(digits[0])
        assert trunk_rows == []

    def test_a_reloaded_state_dict_is_a_hit(
        self, known, small_net_factory, digits, store, trunk_rows
    ):
        other = small_net_factory(seed=5)
        other.load_state_dict(known.backbone.state_dict())
        PretrainedFeatureExtractor(other, cache=store, image_size=16).transform(digits[0])
        assert trunk_rows == []

    def test_another_name_of_a_file_is_a_hit(self, small_net, digits, store, trunk_rows, tmp_path):
        for name in ("one.png", "two.png"):
            Image.fromarray(digits[0][0]).save(tmp_path / name)
        extractor = PretrainedFeatureExtractor(small_net, cache=store)
        extractor.transform([tmp_path / "one.png"])
        extractor.transform([tmp_path / "two.png"])
        assert sum(trunk_rows) == 1

    @pytest.mark.slow
    def test_other_processes_hit(self, digits, store, tmp_path, trunk_rows):
        np.save(tmp_path / "images.npy", digits[0][:4])
        settings = {"image_size": 32, "cache": store}
        rows = PretrainedFeatureExtractor(**settings).transform(digits[0][:4])
        assert sum(trunk_rows) == 4
        script = (
            "import numpy, sys;"
            "from sklearn_featx import PretrainedFeatureExtractor;"
            "from sklearn_featx.engines._torch import TorchEngine;"
            "TorchEngine.run = None;"
            "images = numpy.load(sys.argv[1]);"
            "extractor = PretrainedFeatureExtractor(image_size=32, cache=sys.argv[2]);"
            "numpy.save(sys.argv[1], extractor.transform(images))"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "images.npy"), store.path]
        subprocess.run(command, check=True)
        np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), rows)


class TestDecisions:
    def test_each_decision_gives_its_reason(self, small_net, digits, store, capsys):
        def note(**parameters):
            settings = {"image_size": 16, "verbose": 1, "cache": store} | parameters
            PretrainedFeatureExtractor(small_net, **settings).transform(digits[0])
            return capsys.readouterr().err

        assert "rows are cached, 60 rows of 0.1 KiB" in note()
        assert "rows are" not in note(), "reported again, though nothing is computed"
        assert "rows are" not in note(cache=False), "reported, though nobody asked for a cache"
        assert "lambda> uses .random, which may be random" in note(
            cache=True,
            preprocessing=lambda p: np.asarray(p)[None] / np.float32(255 + random.random()),
        )

    @pytest.mark.parametrize("of", [str, FeatureStore])
    def test_a_store_that_cannot_be_made_is_said_once(
        self, small_net, digits, tmp_path, of, capsys
    ):
        (tmp_path / "file").touch()
        extractor = PretrainedFeatureExtractor(
            small_net, image_size=16, verbose=1, cache=of(tmp_path / "file")
        )
        with pytest.warns(StoreWarning) as caught:
            extractor.transform(digits[0])
        (said,) = [str(warning.message) for warning in caught]
        assert "no store can be made" in said
        assert "file' is a file, and a store is a folder). Rows are not cached." in said
        assert "rows are" not in capsys.readouterr().err

    def test_rows_that_do_not_fit_are_not_remembered(self, small_net, digits, tmp_path):
        small = FeatureStore(tmp_path, max_size="8MiB")
        extractor = PretrainedFeatureExtractor(
            small_net, layer="stem", pooling=None, image_size=96, cache=small, verbose=1
        )
        with pytest.warns(StoreWarning, match="more than half of max_size=8MiB: pass a larger"):
            extractor.transform(digits[0])
        assert small.info().n_rows == 0

    def test_rows_may_take_half_of_the_store_and_of_the_free_space(
        self, small_net, digits, tmp_path, monkeypatch
    ):
        from sklearn_featx.flow import _cache

        recipe = PretrainedFeatureExtractor(small_net, cache=False).work(digits[0]).predicting
        small, shapes = FeatureStore(tmp_path, max_size="8MiB"), [(1000,)]
        row = sum(recipe.row_bytes(shapes, "float32"))
        monkeypatch.setattr(_cache, "_free_bytes", lambda path: 2**30)
        n_rows = 4 * 2**20 // row
        assert _cache.decide(recipe, shapes, n_rows, small).cached
        assert "half of max_size" in _cache.decide(recipe, shapes, n_rows + 1, small).reason
        monkeypatch.setattr(_cache, "_free_bytes", lambda path: 2 * 10 * row)
        assert _cache.decide(recipe, shapes, 10, small).cached
        assert "half of the free disk" in _cache.decide(recipe, shapes, 11, small).reason

    def test_an_unusable_store_costs_a_warning_not_a_result(self, small_net, digits, tmp_path):
        file = tmp_path / "file"
        file.write_text("not a folder")
        expected = PretrainedFeatureExtractor(small_net, cache=False).transform(digits[0])
        with pytest.warns(StoreWarning):
            features = PretrainedFeatureExtractor(small_net, cache=file).transform(digits[0])
        np.testing.assert_array_equal(features, expected)


class TestRowsBeyondMemory:
    @pytest.fixture
    def little_memory(self, monkeypatch):
        from sklearn_featx.flow import _activations

        monkeypatch.setattr(_activations, "_HELD_BYTES", 1)

    def fit(self, small_net, digits, store, **parameters):
        return tuner(small_net, cache=store, unfreeze_depth=1, **parameters).fit(*digits)

    @pytest.mark.parametrize("early_stopping", [False, True])
    def test_training_on_stored_rows_is_bitwise_the_same(
        self, small_net, digits, store, early_stopping, monkeypatch
    ):
        from sklearn_featx.flow import _activations

        held = self.fit(small_net, digits, store, early_stopping=early_stopping)
        monkeypatch.setattr(_activations, "_HELD_BYTES", 1)
        stored = self.fit(small_net, digits, store, early_stopping=early_stopping)
        assert_same_state(held, stored)

    def test_each_row_still_passes_once(self, small_net, digits, store, trunk_rows, little_memory):
        self.fit(small_net, digits, store)
        assert sum(trunk_rows) == len(digits[0])

    def test_rows_that_the_store_loses_are_computed_again(
        self, small_net, digits, store, little_memory
    ):
        whole = self.fit(small_net, digits, store)

        from skorch.callbacks import Callback

        class Empty(Callback):
            def on_epoch_begin(self, net, **kwargs):
                store.clear()

        losing = self.fit(small_net, digits, store, callbacks=[Empty()])
        assert_same_state(whole, losing)

    def test_rows_come_in_the_order_asked_for_and_may_repeat(
        self, small_net, digits, store, little_memory
    ):
        from sklearn_featx.flow._activations import activations, held_or_stored

        images, recipe, settings = flow_of(tuner(small_net, cache=store, unfreeze_depth=1), digits)
        whole = activations(images, recipe, settings).taps[0]
        stored = held_or_stored(images, recipe, settings).taps[0]
        assert not isinstance(stored, np.ndarray)
        assert len(stored) == len(whole)
        np.testing.assert_array_equal(stored[[5, 2, 5, 0]], whole[[5, 2, 5, 0]])


def flow_of(estimator, digits):
    """What `fit` hands to the flow: images, the recipe of the split, settings."""
    images = estimator._images(digits[0], reset=True)
    backbone = estimator._backbone()
    recipe = estimator._recipe(backbone, [Tap(estimator._split(backbone))])
    return images, recipe, estimator._settings()


def assert_same_state(first, second):
    assert first.trained_state_.keys() == second.trained_state_.keys()
    for name, value in first.trained_state_.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(second.trained_state_[name]))
