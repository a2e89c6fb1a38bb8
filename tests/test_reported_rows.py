"""Rows that others' libraries mixed up or kept too long: the cases of public threads, tried here.

Each test names its thread. A wrong row is worse than an error: it is plausible.
"""

import importlib
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from sklearn_featx import FeatureStore, PretrainedFeatureExtractor
from sklearn_featx.exceptions import BackboneError, FeatxError, ImageError, InputError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def features(network, store, images=X, **parameters):
    return PretrainedFeatureExtractor(network, cache=store, **parameters).transform(images)


def exact(network, images=X):
    with torch.no_grad():
        return network.eval()(torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2))


HELPERS = "SCALE = {scale}\n\ndef shifted(x):\n    return x * SCALE + {shift}\n"
MODEL = """
import torch
from torch import nn
from helpers_of_a_user import shifted

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        {condition}
        return shifted(x.mean((2, 3)) * self.weight)
"""


@pytest.mark.parametrize("condition", ["pass", "assert float(x.sum()) > -1"], ids=["traced", "not"])
@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
def test_a_function_of_an_imported_module_is_edited(condition, tmp_path, monkeypatch, store):
    # huggingface/datasets#3297, scikit-learn#14855: the cache knows imported functions by name
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "model_of_a_user.py").write_text(MODEL.format(condition=condition))
    found = []
    for scale, shift in [(1, 0), (2, 0), (2, 1), (1, 0)]:
        (tmp_path / "helpers_of_a_user.py").write_text(HELPERS.format(scale=scale, shift=shift))
        for name in ("model_of_a_user", "helpers_of_a_user"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        network = importlib.import_module("model_of_a_user").Model()
        found.append(features(network, store))
        np.testing.assert_allclose(found[-1], exact(network), rtol=1e-5)
    np.testing.assert_array_equal(found[0], found[3])
    # The edit that was taken back finds its rows.
    assert store.info().n_rows == 3 * len(X)


def test_two_notebooks_with_a_network_of_one_name(store):
    # joblib#1096: the second one gets the results of the first
    found = []
    for factor in (1, 3, 1):
        cell = {"__name__": "__main__", "nn": nn, "torch": torch}
        exec(  # as a notebook does
            "class Model(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.weight = nn.Parameter(torch.ones(1))\n"
            "    def forward(self, x):\n"
            f"        return x.mean((2, 3)) * self.weight * {factor}\n",
            cell,
        )
        found.append(features(cell["Model"](), store))
        np.testing.assert_allclose(found[-1], exact(cell["Model"]()), rtol=1e-5)
    np.testing.assert_array_equal(found[0], found[2])


def test_weights_are_replaced_while_the_process_runs(store, trunk_rows):
    # InternLM/lmdeploy#4917: what was computed with the old weights is used on
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    old = features(network, store)
    network.load_state_dict({name: value + 0.5 for name, value in before.items()})
    new = features(network, store)
    np.testing.assert_allclose(new, exact(network), rtol=1e-4)
    assert np.abs(new - old).min() > 0
    trunk_rows.clear()
    network.load_state_dict(before)
    np.testing.assert_array_equal(features(network, store), old)
    assert trunk_rows == []


def test_a_model_is_configured_on_another_way(store):
    # NVIDIA-NeMo/Guardrails#1751: the key has the model of one place in the configuration
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0)
    before = features(model, store, image_size=32)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.3)}
    after = features(model, store, image_size=32)
    assert np.abs(after - before).max() > 0
    np.testing.assert_array_equal(after, features(model, False, image_size=32))


def test_files_of_one_name_in_several_folders(tmp_path, store, trunk_rows):
    # coqui-ai/TTS#1722, rom1504/clip-retrieval#321: the features of one stand for the other
    paths = []
    for i, folder in enumerate(("train", "test", "copy of train")):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "0001.png")
        Image.fromarray(X[i % 2]).save(paths[-1])
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = features(network, store, paths)
    np.testing.assert_allclose(found, exact(network, X[[0, 1, 0]]), rtol=1e-4)
    assert sum(trunk_rows) == 2


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_sizes_of_the_other_images_in_a_batch(batch_size, store):
    # facebookresearch/mmf#720: images are padded to the largest of their batch
    images = [RNG.integers(0, 256, (8 + i, 12 - i, 3), dtype=np.uint8) for i in range(5)]
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    settings = {"image_size": 8, "batch_size": batch_size}
    together = features(network, store, images, **settings)
    alone = [features(network, False, [image], **settings)[0] for image in images]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_a_network_in_training_mode(small_net, store, digits):
    # davidsandberg/facenet#278, cvai-roig-lab/Net2Brain#81: statistics of the batch, dropout
    gray = digits[0][:6]
    small_net.train()
    before = {name: value.clone() for name, value in small_net.state_dict().items()}
    found = [
        features(small_net, cache, gray[rows]) for cache in (store, False) for rows in ([0, 1], [0])
    ]
    for row in found:
        np.testing.assert_allclose(row[0], found[0][0], rtol=1e-5, atol=1e-6)
    assert small_net.training
    assert all(torch.equal(before[k], v) for k, v in small_net.state_dict().items())


def test_a_network_of_several_results(store):
    # pytorch-image-models#1426: a list of maps, of which one is meant
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", features_only=True)
    with pytest.raises(BackboneError) as error:
        features(network, store, image_size=32)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 300


class Reusing(nn.Module):
    """Writes each result into the same tensor."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Conv2d(3, 4, 1)
        self.result = None

    def forward(self, x):
        values = self.linear(x).mean((2, 3))
        if self.result is None or self.result.shape != values.shape:
            self.result = torch.empty_like(values)
        return self.result.copy_(values)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
def test_a_network_that_writes_its_results_into_one_tensor(n_jobs, store):
    # ShapeNet/JointEmbedding#3: the next pass overwrites the features
    network = Reusing()
    images = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    expected = exact(Reusing.forward.__get__(network), images) if False else None
    with torch.no_grad():
        values = torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2)
        expected = network.linear(values).mean((2, 3))
    for cache in (store, False):
        found = features(network, cache, images, batch_size=4, n_jobs=n_jobs)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    for i, image in enumerate(X):
        path = tmp_path / "images" / f"class {i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "images"


def test_a_random_flip_before_a_cache(folder, store):
    # AnimaLoraStudio#176, tensorflow/docs#1097: what the first pass drew is kept for good
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    transform = v2.Compose([v2.PILToTensor(), v2.RandomHorizontalFlip(0.5)])
    torch.manual_seed(1)
    dataset = ImageFolder(folder, transform)
    with pytest.raises(ImageError, match="its transform is random"):
        features(network, store, dataset)
    plain = features(network, store, ImageFolder(folder))
    order = [0, 2, 4, 1, 3, 5]
    np.testing.assert_allclose(plain, exact(network, X[order]), rtol=1e-4, atol=1e-5)


def test_rows_follow_the_data_set(folder, store):
    # keras-team/keras#3296 and #6234, binli123/dsmil-wsi#19: a shuffled loader beside sorted names
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    dataset = ImageFolder(folder)
    rows = features(network, store, dataset)
    with pytest.raises(InputError, match=r"Pass its images: loader\.dataset"):
        features(network, store, DataLoader(dataset, shuffle=True))
    chosen = [4, 0, 3]
    np.testing.assert_array_equal(features(network, store, Subset(dataset, chosen)), rows[chosen])
    paths = [path for path, _ in dataset.samples]
    np.testing.assert_array_equal(features(network, store, paths[::-1]), rows[::-1])


def test_a_corrupt_image_is_not_replaced_by_the_next(folder, store):
    # rom1504/clip-retrieval#13: the loader skips it and gives the next image twice
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    paths = [path for path, _ in ImageFolder(folder).samples]
    rows = features(network, store, paths)
    with open(paths[2], "wb") as file:  # noqa: PTH123
        file.write(b"\x89PNG")
    with pytest.warns(UserWarning, match="row 2"):
        found = features(network, store, paths, on_error="nan")
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(rows, 2, 0))
    with pytest.raises(FeatxError, match="row 2"):
        features(network, store, paths)
