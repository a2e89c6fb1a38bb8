"""Devices and types across the layers: one home, one key for a device, features that are finite."""

import copy
import pathlib
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

import sklearn_featx
from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones.sources._custom import build_custom
from sklearn_featx.engines import _precision
from sklearn_featx.exceptions import ImageError
from sklearn_featx.flow._recipe import Recipe, Tap

HOME = "engines/_device.py"


def test_accelerators_have_one_home():
    root = pathlib.Path(sklearn_featx.__file__).parent
    named = re.compile(r"torch\.(cuda|mps|xpu)\b|[\"'](cuda|mps|xpu|hip)\b|non_blocking|pin_memory")
    found = {
        str(path.relative_to(root)) for path in root.rglob("*.py") if named.search(path.read_text())
    }
    assert found == {HOME}


def test_names_of_one_device_share_engines_and_passes(small_net):
    # The only device that is here, under two names.
    backbone = get_backbone(small_net)
    recipes = [
        Recipe(backbone, (Tap(3, "avg"),), backbone.preprocess, device)
        for device in ("cpu", "cpu:0")
    ]
    assert recipes[0].arithmetic == recipes[1].arithmetic
    from sklearn_featx.flow._compute import engine_for

    assert engine_for(recipes[0]) is engine_for(recipes[1])
    assert recipes[0].digest(recipes[0].taps[0]) == recipes[1].digest(recipes[1].taps[0])


class Grows(nn.Module):
    """Activations that leave the range of float16 where an image is bright."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1000.0))

    def forward(self, x):
        return (x * self.scale) * self.scale


class TestFloat16:
    @pytest.fixture(autouse=True)
    def _processor_with_float16(self, monkeypatch):
        monkeypatch.setattr(_precision, "_cpu_has", lambda *names: True)

    @pytest.fixture
    def images(self):
        images = np.zeros((6, 8, 8, 3), dtype=np.uint8)
        images[4] = 255
        return images

    def extractor(self, **parameters):
        settings = {"image_size": 8, "precision": "float16", "pooling": "max", "cache": False}
        return PretrainedFeatureExtractor(Grows(), **settings | parameters)

    def test_features_beyond_its_range_are_an_error_with_the_row(self, images):
        with pytest.raises(ImageError, match=r"row 4: .*precision='float16'.*'bfloat16'"):
            self.extractor().fit_transform(images)

    def test_in_a_fine_tuner_too(self, images):
        clf = FineTuneClassifier(
            Grows(), image_size=8, precision="float16", unfreeze_depth=0, cache=False
        )
        with pytest.raises(ImageError, match=r"row 4: .*precision='float16'"):
            clf.fit(images, [0, 1, 0, 1, 0, 1])

    def test_others_are_left_as_they_are(self, images):
        assert np.isfinite(self.extractor().fit_transform(images[:4])).all()
        for precision in ("float32", "bfloat16"):
            features = self.extractor(precision=precision).fit_transform(images)
            assert np.isfinite(features).all()
            assert features[4].max() > 65504

    def test_the_file_is_named(self, images, tmp_path):
        from PIL import Image

        paths = []
        for i, image in enumerate(images):
            paths.append(str(tmp_path / f"{i}.png"))
            Image.fromarray(image).save(paths[-1])
        with pytest.raises(ImageError, match=r"row 4 \('.*4\.png'\): "):
            self.extractor(on_error="nan").fit_transform(paths)


def test_a_linear_probe_needs_no_float64_on_the_device(small_net, digits, monkeypatch):
    """MPS has none: the net of a closed solution stays on the CPU."""
    X, y = digits
    clf = FineTuneClassifier(small_net, unfreeze_depth=0, image_size=16, device="cpu", cache=False)
    clf.fit(X, y)
    expected = clf.predict_proba(X)
    monkeypatch.setattr(
        "sklearn_featx.estimators._finetune_base.resolve_device", lambda d: torch.device("mps")
    )
    fitted = FineTuneClassifier(
        small_net, unfreeze_depth=0, image_size=16, device="cpu", cache=False
    ).fit(X, y)
    assert fitted.net_.device == "cpu"
    assert {p.dtype for p in fitted.net_.module_.parameters()} == {torch.float64}
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)


@pytest.mark.parametrize("depth", [0, 1])
def test_the_callers_mixed_precision_changes_no_prediction(small_net, digits, depth):
    X, y = digits
    clf = FineTuneClassifier(
        small_net, unfreeze_depth=depth, image_size=16, max_epochs=1, random_state=0, head="mlp"
    ).fit(X, y)
    expected = clf.predict_proba(X)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(clf.predict_proba(X), expected)


@pytest.mark.parametrize("parameters", [{"head": "mlp"}, {"augment": "light"}, {"head": "linear"}])
def test_the_default_device_of_a_script_changes_nothing(small_net, digits, parameters):
    """Such scripts set a GPU; a device without values fails wherever a tensor lands on it."""
    X, y = digits[0][:24], digits[1][:24]

    def predicted():
        clf = FineTuneClassifier(
            copy.deepcopy(small_net),
            image_size=16,
            max_epochs=1,
            random_state=0,
            device="cpu",
            cache=False,
            early_stopping=True,
            validation_fraction=0.25,
            **parameters,
        )
        return clf.fit(X, y).predict_proba(X)

    expected = predicted()
    torch.set_default_device("meta")
    try:
        found = predicted()
    finally:
        torch.set_default_device(None)
    np.testing.assert_array_equal(found, expected)


def test_a_network_that_comes_on_another_device_is_copied_to_the_cpu(small_net, monkeypatch):
    moved = []
    cpu = nn.Module.cpu
    monkeypatch.setattr(nn.Module, "cpu", lambda module: moved.append(module) or cpu(module))
    backbone = build_custom(small_net)
    assert moved == [backbone.module]
    assert backbone.module is not small_net


class TestPickles:
    """A file that was written on a machine with a GPU is read on one without."""

    def test_a_saved_estimator_holds_arrays_and_no_device(self, small_net, digits):
        X, y = digits[0][:24], digits[1][:24]
        clf = FineTuneClassifier(small_net, image_size=16, max_epochs=1, random_state=0).fit(X, y)
        expected = clf.predict_proba(X)
        assert all(isinstance(value, np.ndarray) for value in clf.trained_state_.values())
        clf.device = "cuda"
        again = pickle.loads(pickle.dumps(clf))
        if not torch.cuda.is_available():
            with pytest.raises(ValueError, match="device='cuda' cannot be used here"):
                again.predict_proba(X)
        again.set_params(device="cpu")
        np.testing.assert_array_equal(again.predict_proba(X), expected)


def test_what_is_made_in_inference_mode_can_be_trained(small_net, digits):
    X, y = digits[0][:24], digits[1][:24]
    network = type(small_net)(seed=11)
    with torch.inference_mode():
        PretrainedFeatureExtractor(network, image_size=16, cache=False).fit_transform(X)
        inside = FineTuneClassifier(network, image_size=16, max_epochs=1, random_state=0).fit(X, y)
    outside = FineTuneClassifier(network, image_size=16, max_epochs=1, random_state=0).fit(X, y)
    np.testing.assert_array_equal(inside.predict_proba(X), outside.predict_proba(X))
