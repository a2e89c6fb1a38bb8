"""A sample of torchvision's networks, cut at every boundary. All 80: benchmarks/cut_sweep.py."""

import time
import timeit

import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from sklearn_featx.backbones import backbone_names, get_backbone
from sklearn_featx.backbones._backbone import Backbone
from sklearn_featx.backbones._normalize import Normalize
from sklearn_featx.backbones.sources import _torchvision
from sklearn_featx.backbones.sources._torchvision import (
    build_torchvision,
    recipe_of,
    torchvision_names,
)
from sklearn_featx.exceptions import (
    BackboneError,
    UnknownBackboneError,
    UnknownLayerError,
    WeightsError,
)
from sklearn_featx.images._geometry import resize_and_crop

SAMPLE = {
    "resnet18": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "squeezenet1_1": 96,
    "shufflenet_v2_x0_5": 64,
    "regnet_y_400mf": 64,
    "densenet121": 64,
    "googlenet": 96,
    "mnasnet0_5": 64,
    "swin_t": 64,
}


def test_the_removed_head_is_no_layer():
    backbone = get_backbone("resnet18", None, warn=False)
    with pytest.raises(UnknownLayerError, match="'fc' was the classification head"):
        backbone.tapped(["fc"])


@pytest.mark.parametrize("name", SAMPLE)
def test_tail_after_trunk_is_the_network(name, cut, assert_exact):
    assert_exact(cut(name), torch.randn(2, 3, SAMPLE[name], SAMPLE[name]))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "regnet_y_400mf"])
def test_blocks_are_exact_too(name, cut, assert_exact):
    backbone = cut(name, "block")
    assert len(backbone.stages) >= len(cut(name).stages)
    assert_exact(backbone, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "densenet121"])
def test_depth_is_monotone_in_trained_parameters(name, cut):
    backbone = cut(name)
    depths = range(len(backbone.stages) + 1)
    trained = [
        sum(
            p.numel()
            for part in backbone.tail(backbone.trained_stages(d).start)
            for p in part.parameters()
        )
        for d in depths
    ]
    assert trained == sorted(trained)
    assert len(set(trained)) == len(trained)
    assert trained[0] == 0
    assert trained[-1] == sum(stage.n_parameters for stage in backbone.stages)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        ("swin_t", "head"),
        ("densenet121", "classifier"),
    ],
)
def test_features_are_those_of_the_network_with_an_identity_for_its_head(name, head, cut):
    backbone = cut(name)
    whole = torchvision.models.get_model(name, weights=None).eval()
    parent, _, last = head.rpartition(".")
    setattr(whole.get_submodule(parent), last, nn.Identity())
    whole.load_state_dict(backbone.network.module.state_dict())
    x = torch.randn(2, 3, 64, 64)
    (features,) = backbone.tapped([len(backbone.stages)])(x)
    with torch.no_grad():
        assert torch.equal(features, whole(x))


def test_several_layers_in_one_pass_equal_torchvisions_extractor(cut):
    backbone = cut("resnet18")
    names = ["layer1", "layer2.0.conv1", "layer3.1", "layer4"]
    extractor = create_feature_extractor(backbone.network.module, names)
    x = torch.randn(2, 3, 64, 64)
    found = backbone.tapped(names)(x)
    with torch.no_grad():
        expected = extractor(x)
    assert all(torch.equal(a, expected[name]) for a, name in zip(found, names, strict=True))


@pytest.mark.slow
def test_cutting_takes_less_than_a_second():
    network = build_torchvision("maxvit_t", None)  # the slowest of the 80
    Backbone(build_torchvision("squeezenet1_1", None))  # torch.fx imports on its first use
    # The least of several in CPU time: the bar is the work, not what else the machine does.
    seconds = min(
        timeit.repeat(lambda: Backbone(network), timer=time.process_time, number=1, repeat=5)
    )
    assert seconds < 1


def test_unknown_names_suggest_the_nearest(cut):
    with pytest.raises(UnknownBackboneError, match="'resnet18'"):
        cut("resnet81")


def test_quantized_names_are_refused_with_the_name_to_use(cut):
    with pytest.raises(BackboneError, match=r"quantized.*'resnet18' instead"):
        cut("quantized_resnet18")


def test_all_80_names_are_there():
    assert len(torchvision_names()) == 80
    assert set(torchvision_names()) < set(backbone_names())
    assert not any(name.startswith("quantized") for name in backbone_names())


def test_unknown_weights_suggest_the_nearest(cut):
    with pytest.raises(WeightsError, match="IMAGENET1K_V1"):
        cut("resnet18", weights="IMAGENET1K_V9")


def test_a_failed_download_says_what_to_fetch(cut, monkeypatch):
    from urllib.error import URLError

    def fail(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", fail)
    with pytest.raises(WeightsError, match=r"https://download.pytorch.org/models/resnet18.*\.pth"):
        cut("resnet18", weights="IMAGENET1K_V1")


def test_every_recipe_is_the_preset_of_its_weights():
    """All weights of all 80 names, on a real photograph."""
    photo = load_sample_images().images[0]
    n_recipes = 0
    for name in torchvision_names():
        for entry in torchvision.models.get_model_weights(name):
            recipe = recipe_of(entry)
            expected = entry.transforms()(Image.fromarray(photo))
            pixels = torch.from_numpy(resize_and_crop(photo, recipe).copy())
            found = Normalize(recipe.mean, recipe.std)(pixels[None])[0]
            tolerance = 1e-6 * max(1.0, float(expected.abs().max()))
            assert (found - expected).abs().max() <= tolerance, entry
            n_recipes += 1
    assert n_recipes >= 80


@pytest.mark.parametrize(("name", "width"), [("resnet50", 2048), ("vit_b_16", 768)])
def test_widths_before_the_head(name, width):
    backbone = get_backbone(name, None, warn=False)
    n_stages = len(backbone.stages)
    assert backbone.layer_shapes([n_stages], (3, 224, 224)) == [(width,)]


def test_a_published_file_is_known_by_its_hash_and_gets_its_own_preprocessing(
    cut, tmp_path, monkeypatch
):
    torch.save(get_model("mobilenet_v2", weights=None).state_dict(), tmp_path / "w.pth")
    sides = {}
    for start in ("b0353104", "7ebf99e0", "00000000"):  # the weights V1, V2, and others
        monkeypatch.setattr(_torchvision, "sha256_of_file", lambda _, start=start: start + 56 * "0")
        network = build_torchvision("mobilenet_v2", str(tmp_path / "w.pth"))
        sides[start] = network.preprocess.resize
    assert sides == {"b0353104": 256, "7ebf99e0": 232, "00000000": 232}


def test_without_a_network_other_weights_on_the_disk_are_named(monkeypatch, tmp_path):
    from urllib.error import URLError

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mobilenet_v2-b0353104.pth").touch()
    with pytest.raises(WeightsError, match=r"On this disk: weights='IMAGENET1K_V1'"):
        build_torchvision("mobilenet_v2", "DEFAULT")
