"""Networks of timm and torchvision passed as objects are backbones as they are by name."""

import warnings

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones._torchvision_objects import _HEADS
from sklearn_featx.backbones.sources._torchvision import modern_keys
from sklearn_featx.exceptions import BackboneError, BackboneWarning

timm = pytest.importorskip("timm")


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def features(backbone, X, **parameters):
    return PretrainedFeatureExtractor(backbone, cache=False, **parameters).transform(X)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3)).astype(np.uint8)


# timm


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_convnext"])
def test_a_timm_object_gives_the_rows_of_its_name(name, X, tmp_path):
    module = seeded(lambda: timm.create_model(name))
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    by_object = features(module, X)
    by_name = features(f"timm/{name}", X, weights=tmp_path / "weights.pth")
    np.testing.assert_array_equal(by_object, by_name)
    backbone, named = get_backbone(module), get_backbone(f"timm/{name}", tmp_path / "weights.pth")
    assert backbone.preprocess == named.preprocess
    assert [s.name for s in backbone.stages] == [s.name for s in named.stages]
    assert backbone.name.startswith(f"timm/{name}")
    assert module.num_classes == 1000


def test_timm_without_classes_needs_no_warning(X):
    whole = seeded(lambda: timm.create_model("test_vit"))
    headless = seeded(lambda: timm.create_model("test_vit", num_classes=0))
    headless.load_state_dict(whole.state_dict(), strict=False)
    np.testing.assert_array_equal(features(headless, X), features(whole, X))


def test_timm_for_gray_images_of_another_size(X):
    module = seeded(lambda: timm.create_model("test_vit", in_chans=1, img_size=64))
    backbone = get_backbone(module)
    assert backbone.preprocess.crop == (64, 64)
    assert len(backbone.preprocess.mean) == backbone.preprocess.channels == 1
    assert features(module, X).shape == (2, module.num_features)


def test_a_function_that_builds_a_timm_model(X):
    module = seeded(lambda: timm.create_model("resnet10t"))
    np.testing.assert_array_equal(features(lambda: module, X), features(module, X))


# torchvision


def test_an_object_with_published_weights_is_recognized(X, tmp_path, monkeypatch):
    weights = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    module = seeded(torchvision.models.mobilenet_v2)
    # The published file is recognized by its place and name; its values matter only by equality.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    published.parent.mkdir(parents=True)
    torch.save(module.state_dict(), published)
    by_object = features(module, X)
    np.testing.assert_array_equal(by_object, features("mobilenet_v2", X, weights=weights.name))
    assert get_backbone(module).name == "mobilenet_v2"
    # The head is no part of the backbone: another one changes nothing.
    module.classifier[1] = nn.Linear(1280, 3)
    np.testing.assert_array_equal(features(module, X), by_object)
    module.classifier = nn.Linear(1280, 3)
    np.testing.assert_array_equal(features(module, X), by_object)


def test_an_object_with_other_weights_says_what_is_done(X, tmp_path):
    module = seeded(torchvision.models.resnet18)
    torch.save(module.state_dict(), tmp_path / "own.pth")
    extractor = PretrainedFeatureExtractor(module, cache=False)
    wanted = r"ResNet.*ImageNet \(mean=\(0.485.*preprocessing="
    with pytest.warns(BackboneWarning, match=wanted) as seen:
        by_object = extractor.fit(X).transform(X)
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    by_name = features("resnet18", X, weights=tmp_path / "own.pth")
    assert by_object.shape == (2, 512)
    np.testing.assert_array_equal(by_object, by_name)


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.BackboneWarning")
@pytest.mark.parametrize("edit", ["identity", "linear", "sequential", "hidden"])
def test_heads_that_users_have_changed(X, edit):
    module = seeded(torchvision.models.resnet18)
    wanted = features(module, X)
    module.fc = {
        "identity": nn.Identity(),
        "linear": nn.Linear(512, 7),
        "sequential": nn.Sequential(nn.Dropout(), nn.Linear(512, 7)),
        "hidden": nn.Sequential(nn.Linear(512, 9), nn.ReLU(), nn.Linear(9, 2)),
    }[edit]
    np.testing.assert_array_equal(features(module, X), wanted)
    assert not isinstance(module.fc, nn.Identity) or edit == "identity"


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.BackboneWarning")
def test_auxiliary_heads_are_removed(X):
    def build(**settings):
        return torchvision.models.googlenet(init_weights=False, transform_input=False, **settings)

    with_heads = seeded(lambda: build(aux_logits=True))
    without = build(aux_logits=False)
    without.load_state_dict(with_heads.state_dict(), strict=False)
    np.testing.assert_array_equal(features(with_heads, X), features(without, X))
    assert with_heads.aux1 is not None


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.BackboneWarning")
def test_a_damaged_download_is_no_published_file(X, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    published.parent.mkdir(parents=True)
    published.write_bytes(b"half a download")
    assert features(seeded(torchvision.models.squeezenet1_1), X).shape == (2, 512)


def one_of_each_class():
    names = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        builder = torchvision.models.get_model_builder(name)
        names.setdefault(builder.__module__, name)
    return sorted({**names, "inception": "inception_v3", "vit": "vit_b_32"}.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", one_of_each_class())
@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.BackboneWarning")
def test_every_class_of_torchvision_is_cut_as_by_name(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = seeded(lambda: torchvision.models.get_model(name, **options))
        named = get_backbone(name, None, warn=False)
    backbone = get_backbone(module)
    assert type(module).__name__ in _HEADS
    assert [s.name for s in backbone.stages] == [s.name for s in named.stages]
    shapes = [cost[0] for cost in backbone.costs((3, 224, 224))]
    assert shapes == [cost[0] for cost in named.costs((3, 224, 224))]


def test_a_subclass_is_an_own_network(X):
    class Own(torchvision.models.ResNet):
        def forward(self, x):
            return super().forward(x) * 2

    module = seeded(lambda: Own(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1]))
    with pytest.warns(BackboneWarning, match=r"'fc' \(512 to 1000.*layer="):
        assert features(module, X).shape == (2, 1000)


def test_old_names_of_published_files():
    names = [
        "features.denseblock1.denselayer2.norm.1.weight",
        "x.mlp.linear_2.bias",
        "conv1.weight",
    ]
    assert list(modern_keys(dict.fromkeys(names, torch.zeros(1)))) == [
        "features.denseblock1.denselayer2.norm1.weight", "x.mlp.3.bias", "conv1.weight",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["densenet121", "mnasnet0_5"])
def test_published_files_load_as_torchvision_loads_them(name, tmp_path):
    state = torchvision.models.get_model(name).state_dict()
    old = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for k, v in state.items()}
    torch.save(old if name == "densenet121" else dict(state), tmp_path / "published.pth")
    module = get_backbone(name, tmp_path / "published.pth").network.module
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


# Own networks


class Classifier(nn.Module):
    def __init__(self, name="fc", classes=5):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.name = name
        setattr(self, name, nn.Linear(6, classes) if classes else nn.Identity())

    def forward(self, x):
        return getattr(self, self.name)(torch.flatten(self.features(x).mean((2, 3)), 1))


@pytest.mark.parametrize("name", ["fc", "head", "classifier"])
def test_an_own_classifier_is_named(name, X):
    module = Classifier(name)
    with pytest.warns(BackboneWarning, match=rf"'{name}' \(6 to 5 .*layer='flatten'") as seen:
        assert features(module, X).shape == (2, 5)
    assert len(seen) == 1
    # Both ways out that the warning names.
    assert features(module, X, layer="flatten").shape == (2, 6)
    assert features(Classifier(name, 4), X, layer=name).shape == (2, 4)
    setattr(module, name, nn.Identity())
    assert features(module, X).shape == (2, 6)


def test_a_classifier_behind_a_normalization_is_named(X):
    module = nn.Sequential(torchvision.transforms.Normalize([0.5], [0.2]), Classifier("fc", 7))
    with pytest.warns(BackboneWarning, match=r"'1\.fc' \(6 to 7"):
        assert features(module, X).shape == (2, 7)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrapped_objects_are_unwrapped(X, wrap):
    module = seeded(lambda: timm.create_model("resnet10t"))
    np.testing.assert_array_equal(features(wrap(module), X), features(module, X))


def test_other_last_layers_are_not_named(X):
    assert features(Classifier("project"), X).shape == (2, 5)
    assert features(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), X).shape == (2, 4)


def test_fine_tuning_names_a_classifier_too(X):
    with pytest.warns(BackboneWarning, match="nn.Identity"):
        FineTuneClassifier(Classifier(classes=6), unfreeze_depth=0, cache=False).fit(X, [0, 1])


# Vision transformers at another image size


def test_timm_interpolates_positions(X, tmp_path):
    module = seeded(lambda: timm.create_model("test_vit"))
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    at_96 = seeded(lambda: timm.create_model("test_vit", img_size=96, num_classes=0))
    state = timm.models.vision_transformer.checkpoint_filter_fn(dict(module.state_dict()), at_96)
    at_96.load_state_dict(state, strict=False)
    wanted = features(at_96, X)
    for backbone, weights in ((module, "DEFAULT"), ("timm/test_vit", tmp_path / "weights.pth")):
        rows = features(backbone, X, weights=weights, image_size=96)
        np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-5)
    assert features(module, X, image_size=(96, 128)).shape == wanted.shape
    assert np.abs(features(module, X) - wanted).max() > 1e-3
    # Pixels beyond the last whole patch would not be seen.
    for size in (95, 97, (96, 100)):
        with pytest.raises(BackboneError, match="whole patches of 16 x 16 pixels"):
            features(module, X, image_size=size)


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.BackboneWarning")
def test_torchvision_interpolates_positions(X):
    def build(image_size):
        return torchvision.models.VisionTransformer(
            image_size=image_size, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=8
        )

    module = seeded(lambda: build(32))
    nn.init.normal_(module.encoder.pos_embedding)
    at_48 = build(48).eval()
    interpolate = torchvision.models.vision_transformer.interpolate_embeddings
    at_48.load_state_dict(interpolate(48, 8, module.state_dict()))

    def prepare(picture):
        return np.asarray(picture.resize((48, 48)), np.float32).transpose(2, 0, 1) / 255

    wanted = features(at_48, X, preprocessing=prepare)
    rows = features(module, X, preprocessing=prepare, image_size=48)
    np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-6)
    assert features(module, X).shape == features(module, X, image_size=48).shape == wanted.shape
    for size in (50, (48, 56)):
        with pytest.raises(BackboneError, match=r"image_size=.* takes 32 x 32 pixels.*8") as error:
            features(module, X, image_size=size)
        assert "\n" not in str(error.value)


def test_a_size_that_a_network_cannot_take_is_an_error_of_one_line(X):
    extractor = PretrainedFeatureExtractor("timm/mixer_s32_224", weights=None, image_size=96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BackboneError, match=r"made for .*224 x 224") as error:
            extractor.fit(X)
    assert "\n" not in str(error.value)


def test_fine_tuning_at_another_size(X):
    module = seeded(lambda: timm.create_model("test_vit"))
    classifier = FineTuneClassifier(
        module, unfreeze_depth=1, image_size=96, max_epochs=1, cache=False
    )
    assert classifier.fit(X, [0, 1]).predict_proba(X).shape == (2, 2)
