"""Weights from files: everything accounted for, nothing executed."""

import pickle

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from sklearn_featx.backbones._digests import digest_tensor
from sklearn_featx.backbones.sources._weights import load_state, read_state_dict
from sklearn_featx.exceptions import WeightsError


@pytest.fixture(scope="module")
def ten_classes(tmp_path_factory):
    """A ResNet-18 with a head for ten classes, and its file."""
    network = get_model("resnet18", weights=None, num_classes=10)
    path = tmp_path_factory.mktemp("weights") / "ten.pth"
    torch.save(network.state_dict(), path)
    return network.eval(), path


def test_a_head_of_another_size_is_ignored_and_all_else_loaded(ten_classes, cut):
    network, path = ten_classes
    backbone = cut("resnet18", weights=path)
    network.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.network.module(x), network(x))


def test_safetensors_load_alike(ten_classes, cut, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "ten.safetensors"
    safetensors.save_file(read_state_dict(ten_classes[1]), path)
    a, b = (cut("resnet18", weights=p) for p in (path, ten_classes[1]))
    assert a.digest(5) == b.digest(5)


def test_a_changed_file_is_read_again(ten_classes, cut, tmp_path):
    path = tmp_path / "w.pth"
    state = read_state_dict(ten_classes[1])
    torch.save(state, path)
    before = cut("resnet18", weights=path).digest(5)
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"] + 1
    torch.save({**state, "fc.bias": torch.zeros(11)}, path)
    assert cut("resnet18", weights=path).digest(5) != before


def test_missing_unexpected_and_misshapen_keys_are_listed(ten_classes, cut, tmp_path):
    state = read_state_dict(ten_classes[1])
    del state["layer2.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(WeightsError) as caught:
        cut("resnet18", weights=tmp_path / "bad.pth")
    message = str(caught.value)
    assert "Missing: layer2.0.conv1.weight" in message
    assert "unexpected: layer9.weight" in message
    assert "bn1.bias is (3,), expected (64,)" in message


def test_many_keys_are_counted():
    with pytest.raises(WeightsError, match="and 18 more"):
        load_state(nn.Linear(1, 1), {f"k{i}": torch.zeros(1) for i in range(20)}, source="x")


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(WeightsError, match="refused"):
        read_state_dict(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrap", ["state_dict", "model", None])
def test_checkpoints_and_data_parallel_prefixes_are_unwrapped(wrap, tmp_path):
    state = {"module.weight": torch.ones(2, 2)}
    torch.save(state if wrap is None else {wrap: state}, tmp_path / "c.pth")
    assert list(read_state_dict(tmp_path / "c.pth")) == ["weight"]


def test_a_file_without_tensors_and_no_file_are_errors(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "c.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        read_state_dict(tmp_path / "c.pth")
    with pytest.raises(WeightsError, match="does not exist"):
        read_state_dict(tmp_path / "none.pth")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_one_ulp_changes_the_digest(dtype):
    layer = nn.Linear(3, 2).to(dtype)
    before = digest_tensor(layer.weight)
    with torch.no_grad():
        value = layer.weight.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize])
        value[0, 0] += 1
    assert digest_tensor(layer.weight) != before


def test_a_damaged_safetensors_file_is_a_weights_error(tmp_path):
    pytest.importorskip("safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(tmp_path / "w.safetensors")
