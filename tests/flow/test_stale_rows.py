"""Rows and networks that must not outlive what they were made of: problems that others reported.

The table of all that a row depends on is in `test_what_rows_depend_on`.
"""

import os
import shutil
import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageSequence
from torchvision.models import get_model

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.backbones import _registry, get_backbone
from sklearn_featx.engines import _arithmetic
from sklearn_featx.exceptions import ImageError, ImageWarning, InputError
from sklearn_featx.flow import _image_keys, _recipe, _shelves
from sklearn_featx.images import Views, _items, as_image_collection
from sklearn_featx.images._scaling import to_levels
from sklearn_featx.store import FeatureStore


class Scene:
    """Files and extractors of one store."""

    def __init__(self, folder, net):
        self.rng = np.random.default_rng(0)
        self.folder = folder
        self.net = net
        self.store = FeatureStore(folder / "store")

    def pixels(self, side=8):
        return self.rng.integers(0, 256, (side, side, 3), dtype=np.uint8)

    def file(self, ending="bmp", side=8):
        path = self.folder / f"{self.rng.integers(2**62)}.{ending}"
        Image.fromarray(self.pixels(side)).save(path)
        return path

    def extractor(self, **parameters):
        settings = {"image_size": 8, "cache": self.store} | parameters
        return PretrainedFeatureExtractor(self.net, **settings)


@pytest.fixture
def scene(tmp_path, small_net):
    return Scene(tmp_path, small_net)


@pytest.fixture(autouse=True)
def _trusting_memo(monkeypatch):
    """A memo of files that knows even those that changed just now."""
    monkeypatch.setattr("sklearn_featx._digest._RACY_NS", -(10**18))


# --- What a network by name depends on -----------------------------------------------------------

NAME = "shufflenet_v2_x0_5"


@pytest.fixture
def weights(tmp_path):
    """Two weights files of one size and time."""
    files = tmp_path / "1.pth", tmp_path / "2.pth"
    for file in files:
        torch.save(get_model(NAME, weights=None).state_dict(), file)
        os.utime(file, ns=(10**18, 10**18))
    return files


def in_place(first, second):
    first.write_bytes(second.read_bytes())


def by_another_file(first, second):
    shutil.copy(second, first.with_suffix(".new")).replace(first)


def replace_weights(make_new, first, second):
    before = first.stat()
    while first.stat().st_ctime_ns == before.st_ctime_ns:
        make_new(first, second)
        os.utime(first, ns=(10**18, 10**18))
    after = first.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


@pytest.mark.parametrize("make_new", [in_place, by_another_file])
def test_a_weights_file_that_is_replaced_has_another_key(make_new, weights, monkeypatch):
    monkeypatch.setenv("HOME", str(weights[0].parent))
    monkeypatch.setattr("sklearn_featx._digest._RACY_NS", -(10**18))
    before = _registry._source(NAME, "~/1.pth")[0]
    assert _registry._source(NAME, "~/1.pth")[0] == before
    replace_weights(make_new, *weights)
    assert _registry._source(NAME, "~/1.pth")[0] != before


def test_a_network_is_built_again_where_its_weights_were_replaced(weights):
    first = get_backbone(NAME, str(weights[0]))
    replace_weights(by_another_file, *weights)
    again = get_backbone(NAME, str(weights[0]))
    assert again.digest(1) != first.digest(1)
    assert again.digest(1) == get_backbone(NAME, str(weights[1])).digest(1)


def test_a_weights_file_that_was_just_written_is_known_by_its_content(weights, monkeypatch):
    monkeypatch.setattr("sklearn_featx._digest._RACY_NS", 10**18)
    monkeypatch.setattr(_registry, "stat_signature", lambda path: (1, 10**18, 10**19, 2))
    first = get_backbone(NAME, str(weights[0]))
    assert get_backbone(NAME, str(weights[0])) is first
    weights[0].write_bytes(weights[1].read_bytes())
    assert get_backbone(NAME, str(weights[0])) is not first


def test_a_model_that_is_registered_again_is_built_again():
    timm = pytest.importorskip("timm")

    def register(width):
        def tiny_of_this_test(pretrained=False, **kwargs):
            return timm.create_model("test_resnet", **{**kwargs, "stem_width": width})

        tiny_of_this_test.__module__ = "timm.models.resnet"
        timm.models.register_model(tiny_of_this_test)

    register(8)
    first = get_backbone("timm/tiny_of_this_test", None, warn=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        register(16)
    again = get_backbone("timm/tiny_of_this_test", None, warn=False)
    assert again is not first
    shapes = [backbone.network.module.conv1[0].weight.shape[0] for backbone in (first, again)]
    assert shapes[0] != shapes[1]


# --- What is left, and what is shown not to matter -----------------------------------------------


def test_what_the_system_does_not_note_is_left(scene, monkeypatch):
    path, other = (scene.file() for _ in range(2))
    monkeypatch.setattr(_image_keys, "stat_signature", lambda path: (1, 2, 3, 4))
    before = scene.extractor().transform([path])
    path.write_bytes(other.read_bytes())
    np.testing.assert_array_equal(scene.extractor().transform([path]), before)
    # The ways out that the guide names.
    exact = scene.extractor(cache=False).transform([other])
    np.testing.assert_array_equal(scene.extractor(cache=False).transform([path]), exact)
    np.testing.assert_array_equal(scene.extractor().transform([path.read_bytes()]), exact)
    scene.store.clear()
    np.testing.assert_array_equal(scene.extractor().transform([path]), exact)


def test_a_warm_run_asks_the_system_twice_for_each_file(scene, monkeypatch):
    """Once whether it is there, once for its state; no file is opened, nothing is hashed."""
    paths = [str(scene.file()) for _ in range(40)]
    scene.extractor().transform(paths)
    calls = {"stat": 0, "hash": 0}

    def counted(name, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "stat", counted("stat", os.stat))
    monkeypatch.setattr(_items, "digest_file", counted("hash", _items.digest_file))
    monkeypatch.setattr(_items, "read_file", counted("hash", _items.read_file))
    scene.extractor().transform(paths)
    assert calls["hash"] == 0
    assert calls["stat"] <= 2 * len(paths) + 30


def test_scaling_is_plain_arithmetic_which_no_version_of_numpy_changes():
    """Subtraction, multiplication and division are rounded as IEEE 754 says, one after another."""

    def float32(value):
        return struct.unpack("f", struct.pack("f", value))[0]

    values = np.arange(0, 65536, 7, dtype=np.uint16)
    low, high = 100.0, 65500.0
    inside = values[(values >= low) & (values <= high)]
    expected = [float32(float32(float32(v - low) * 255) / (high - low)) for v in inside.tolist()]
    np.testing.assert_array_equal(
        np.rint(to_levels(inside, (low, high))), np.rint(np.float32(expected))
    )


def test_a_file_that_changes_before_it_is_read_is_not_remembered(scene, monkeypatch):
    path, other = scene.file(), scene.file().read_bytes()
    before = path.read_bytes()
    scene.extractor(layer="stem").fit_transform([path])  # the store knows the file's content

    def known_keys(*arguments):
        found = _image_keys.known_keys(*arguments)
        path.write_bytes(other)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(_shelves, "known_keys", known_keys)
        scene.extractor().fit_transform([path])
    path.write_bytes(before)
    expected = scene.extractor(cache=False).fit_transform([path])
    np.testing.assert_array_equal(scene.extractor().fit_transform([path]), expected)


def test_what_could_not_be_read_is_not_remembered(scene, monkeypatch):
    path = scene.file("jpg", side=64)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    extractor = scene.extractor(on_error="nan")
    with pytest.warns(ImageWarning, match="truncated"):
        assert np.isnan(extractor.transform([path, scene.pixels()])[0]).all()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert np.isfinite(extractor.transform([path])).all()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with pytest.raises(ImageError, match="truncated"):
        scene.extractor().transform([path])
    path.write_bytes(whole)
    exact = scene.extractor(cache=False).transform([whole])
    np.testing.assert_array_equal(scene.extractor().transform([path]), exact)


def keys_of(scene, **parameters):
    recipe = scene.extractor(**parameters)._recipe()
    return recipe.digest(recipe.taps[0])


def test_where_and_by_what_rows_are_computed_is_in_their_keys(scene, monkeypatch):
    """Keys alone: other devices and engines need not be here."""
    monkeypatch.setattr(_recipe, "resolve_device", torch.device)
    devices = [{"device": name} for name in ("cpu", "cuda", "mps")]
    engines = [{"device": "cpu", "engine": "openvino"}, {"device": "cpu", "compile": True}]
    keys = [keys_of(scene, **parameters) for parameters in devices + engines]
    assert keys_of(scene, device="cuda:1") == keys[1]
    monkeypatch.setattr(_arithmetic, "installed_version", lambda name: f"{name} 99")
    keys.append(keys_of(scene, device="cpu", engine="openvino"))
    assert len(set(keys)) == len(keys) == 6
    assert keys_of(scene, device="cpu") == keys[0]


def test_views_are_named_by_image_variation_seed_and_number():
    class Variation:
        digest = "first"

    def name(image="a", variation="first", seed=0, view=0):
        changed = Variation()
        changed.digest = variation
        images = as_image_collection(np.zeros((1, 2, 2, 3), np.uint8))
        return Views(images, [image], changed, seed=seed, views=[view]).digest(0)

    changes = [{}, {"image": "b"}, {"variation": "other"}, {"seed": 1}, {"view": 1}]
    assert len({name(**change) for change in changes}) == len(changes)
    assert name() == name()


def test_who_changes_what_was_returned_changes_no_row(scene):
    X = [scene.pixels() for _ in range(3)]
    for _ in range(2):
        features = scene.extractor().transform(X)
        exact = scene.extractor(cache=False).transform(X)
        np.testing.assert_array_equal(features, exact)
        features[:] = 0


def test_frames_that_are_one_object_are_refused(scene):
    pages = [Image.fromarray(scene.pixels()) for _ in range(3)]
    path = scene.folder / "pages.tiff"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with Image.open(path) as opened:
        frames = list(ImageSequence.Iterator(opened))
        with pytest.raises(InputError, match=r"rows 0 and 1 are one .*\.copy\(\)"):
            scene.extractor().transform(frames)
        frames = [frame.copy() for frame in ImageSequence.Iterator(opened)]
    features = scene.extractor().transform(frames)
    assert len(np.unique(features, axis=0)) == 3
    # The same picture several times, as in a bootstrap sample, is what it seems.
    assert len(scene.extractor().transform([frames[0]] * 2)) == 2
